"""Whether Cloud Scheduler's jobs tick: whether the controller would answer what they send, and whether every lane is ticked. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from urllib.parse import parse_qs, urlsplit

from fanout.doctor.finding import Finding, Verdict, fine
from fanout.doctor.place import Place
from fanout.doctor.services import ScheduledCall

SCHEDULER = "Cloud Scheduler"
EVERY_MINUTE = ("* * * * *", "*/1 * * * *")
_NOTHING = "nothing is launched unless something ticks"


def of_scheduler(calls: Sequence[ScheduledCall], lanes: Collection[str], place: Place) -> Iterator[Finding]:
    """`lanes` are the names of all lanes. A job that calls something else is no business of ours."""
    ticking = [one for one in calls if "tick" in _parts(one.url)]
    where = f"--project={place.project} --location={place.region}"
    if not ticking:
        uri = f"{place.controller_url.rstrip('/') or '$CONTROLLER_URL'}"
        target = f"--schedule='* * * * *' --uri=\"{uri}/tick\" --http-method=POST"
        caller = f'--oidc-service-account-email="$SCHEDULER_ACCOUNT" --oidc-token-audience="{place.audience or uri}"'
        command = f"gcloud scheduler jobs create http fanout-tick {where} {target} {caller}"
        why = f"{_NOTHING}; a Scheduler job in another region would not show here"
        yield Finding(SCHEDULER, "ticks", Verdict.WRONG, f"no job in {place.region} calls /tick", why, command)
        return
    enabled = [one for one in ticking if one.enabled]
    if not enabled:
        paused = ticking[0].name
        command = f"gcloud scheduler jobs resume {paused} {where}"
        yield Finding(SCHEDULER, "ticks", Verdict.WRONG, f"job {paused} is paused", _NOTHING, command)
        return
    problems = {one.name: list(_of_target(one, lanes, place)) for one in enabled}
    yield from (found for of_one in problems.values() for found in of_one)
    right = [one for one in enabled if not any(found.verdict.bad for found in problems[one.name])]
    if right:
        yield _of_schedules(right, lanes, where)


def _of_target(call: ScheduledCall, lanes: Collection[str], place: Place) -> Iterator[Finding]:
    """What of its request the controller would not answer with a tick."""
    update = f"gcloud scheduler jobs update http {call.name} --project={place.project} --location={place.region}"

    def wrong(what: str, why: str, command: str, verdict: Verdict = Verdict.WRONG) -> Finding:
        return Finding(SCHEDULER, "target", verdict, f"job {call.name} {what}", why, command)

    address, own = urlsplit(call.url), urlsplit(place.controller_url)
    base, parts, lane = f"{address.scheme}://{address.netloc}", _parts(call.url), _lane(call.url)
    if own.netloc and (address.scheme, address.netloc) != (own.scheme, own.netloc):
        base = f"{own.scheme}://{own.netloc}"
        what = f"calls {address.scheme}://{address.netloc}, the controller (CONTROLLER_URL) is {base}"
        yield wrong(what, "another service gets the ticks", f"{update} --uri={base}{address.path}")
    if parts[0] != "tick" or len(parts) > 2:
        yield wrong(
            f"calls {address.path}, which the controller does not have", "it answers 404, and ticks nothing", f"{update} --uri={base}/tick"
        )
    elif lane and lane not in lanes:
        why = "the controller answers 404, and ticks nothing"
        yield wrong(f"ticks lane {lane!r}, and there is no such lane", why, f"{update} --uri={base}/tick")
    if call.method != "POST":
        yield wrong(f"sends {call.method}, not POST", "the controller answers 405, and ticks nothing", f"{update} --http-method=POST")
    account = '--oidc-service-account-email="$SCHEDULER_ACCOUNT"'
    meant = place.audience
    if not call.account:
        verdict = Verdict.WRONG if meant else Verdict.ADVICE
        yield wrong(
            "sends no OIDC token",
            "a controller that lets only known callers in refuses it",
            f"{update} {account} --oidc-token-audience={meant or base}",
            verdict,
        )
    elif meant and (call.audience or call.url) != meant:
        what = f"sends a token for {call.audience or call.url}, OIDC_AUDIENCE is {meant}"
        yield wrong(
            what,
            "the controller answers 401, and ticks nothing",
            f"{update} --oidc-service-account-email={call.account} --oidc-token-audience={meant}",
        )


def _of_schedules(right: Sequence[ScheduledCall], lanes: Collection[str], where: str) -> Finding:
    """Of jobs that the controller answers."""
    ticked = {_lane(one.url) for one in right}
    forgotten = [] if "" in ticked else sorted(set(lanes) - ticked)
    if forgotten:
        names, uri = ", ".join(forgotten), right[0].url.split("/tick")[0]
        command = f"gcloud scheduler jobs update http {right[0].name} {where} --uri={uri}/tick"
        return Finding(SCHEDULER, "ticks", Verdict.WRONG, f"no job ticks {names}, nor all lanes", _NOTHING, command)
    rare = [one for one in right if one.schedule.strip() not in EVERY_MINUTE]
    if len(rare) == len(right):
        command = f"gcloud scheduler jobs update http {rare[0].name} {where} --schedule='* * * * *'"
        what = f"job {rare[0].name} ticks at {rare[0].schedule!r}, not every minute"
        why = "a backlog waits for the next tick, and is late where the controller's TICK_EVERY_S does not say when that comes"
        return Finding(SCHEDULER, "ticks", Verdict.ADVICE, what, why, command)
    return fine(SCHEDULER, "ticks", "a job calls /tick every minute")


def _parts(url: str) -> list[str]:
    return urlsplit(url).path.strip("/").split("/")


def _lane(url: str) -> str:
    """Empty for all lanes."""
    parts = _parts(url)
    return parts[1] if len(parts) == 2 else parse_qs(urlsplit(url).query).get("lane", [""])[0]
