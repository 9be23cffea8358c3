"""Whether anything ticks. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from fanout.doctor.facts import ScheduledCall
from fanout.doctor.finding import Finding, Verdict, fine
from fanout.doctor.place import Place

ABOUT = "Cloud Scheduler"
EVERY_MINUTE = ("* * * * *", "*/1 * * * *")


def of_scheduler(calls: Sequence[ScheduledCall], place: Place) -> Finding:
    ticking = [one for one in calls if one.url.split("?")[0].rstrip("/").endswith("/tick")]
    where = f"--project={place.project} --location={place.region}"
    if not ticking:
        target = "--schedule='* * * * *' --uri=\"$CONTROLLER_URL/tick\" --http-method=POST"
        caller = '--oidc-service-account-email="$SCHEDULER_ACCOUNT" --oidc-token-audience="$CONTROLLER_URL"'
        command = f"gcloud scheduler jobs create http fanout-tick {where} {target} {caller}"
        why = "nothing is launched unless something ticks; a Scheduler job in another region would not show here"
        return Finding(ABOUT, "ticks", Verdict.WRONG, f"no job in {place.region} calls /tick", why, command)
    enabled = [one for one in ticking if one.enabled]
    if not enabled:
        paused = ticking[0].name
        command = f"gcloud scheduler jobs resume {paused} {where}"
        return Finding(ABOUT, "ticks", Verdict.WRONG, f"job {paused} is paused", "nothing is launched unless something ticks", command)
    rare = [one for one in enabled if one.schedule.strip() not in EVERY_MINUTE]
    if len(rare) == len(enabled):
        one = rare[0]
        command = f"gcloud scheduler jobs update http {one.name} {where} --schedule='* * * * *'"
        what = f"job {one.name} ticks at {one.schedule!r}, not every minute"
        return Finding(ABOUT, "ticks", Verdict.ADVICE, what, "a backlog waits for the next tick", command)
    return fine(ABOUT, "ticks", "a job calls /tick every minute")
