"""`fanout lanes`: every lane as it stands now. It reads and changes nothing."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from batch.model.clock import from_iso, iso
from controller.config import ControllerSettings
from controller.decide.decision import Kind
from controller.decide.explanation import VERDICTS
from controller.lanes.lanes import LaneRefused, chosen_lanes
from controller.lanes.sources import NOT_ASKED
from controller.model.lane import Lane
from controller.model.reading import Reading, Unknown, Value, reading_json
from controller.model.together import together
from controller.model.wording import spoken
from controller.observe.jobs import JobInfo
from controller.observe.waiting import MAX_COUNTED, Waiting, waiting_of
from controller.tick.found import find_lanes
from controller.tick.outside import Outside
from controller.tick.rounds import LANES_AT_A_TIME
from controller.tick.view import View, fault, hold_view, look
from fanout import cloud
from fanout.output import EXIT_FINE, EXIT_TROUBLE, Listing, one_line, say, show, show_json

NUMBERS = frozenset({"backlog", "assigned", "workers", "dead", "delayed", "cancelled", "ends"})
WAITING = ("dead", "delayed", "cancelled", "ends")
COLUMNS = ("lane", "state", "backlog", "sampled", "oldest", "assigned", "workers", "dead", "delayed", "cancelled", "ends", "last decision")


@click.command()
@click.argument("lanes", nargs=-1)
@cloud.as_json_option
@cloud.with_settings
def command(lanes: tuple[str, ...], as_json: bool, settings: ControllerSettings) -> None:
    """Show LANES, or all: backlog and ledger, workers alive, the last decision, and what is in the way.

    STATE is `ok`, `paused`, `broken` (its newest workers could not work), `unknown` (something could not be read), `crashed` (workers of
    its newest execution were ended by a signal or crashed), `refused` (Cloud Run refuses launches for now) or `unfired` (the end of a
    submission is overdue). BACKLOG is what the gauge counted when it was SAMPLED, OLDEST how old the oldest message was then, ASSIGNED how
    many of these messages workers already have. DEAD letters wait for a rule or a person, DELAYED tasks for their time; CANCELLED counts
    what clients have cancelled that workers still look for, ENDS the submissions whose end is still to be fired (no more than 10,000 are
    counted). Ends with 1 when a lane is in any other state than ok or paused, a job cannot be a lane, or there is no lane.

    \b
    fanout lanes
    fanout lanes --json | jq '.lanes[] | select(.troubles != [])'

    JSON: lanes (lane, job, subscription, paused, reading, sample_age_s, accepted_count, assigned_count, unassigned_count,
    live_worker_count, dead_count, delayed_count, cancelled_count, ends_count, last_decision, schedules (name, times, last, due), troubles)
    and refused (job, problems). A number that is not known is null. A schedule is due while its task is not known to be published.
    """
    with cloud.connected(settings) as outside:
        views, refused = looked(outside, lanes)
        waiting = together(lambda view: waiting_of(view.lane, outside.store, view.now), views, LANES_AT_A_TIME, "waiting")
    bodies = [lane_json(view, waits) for view, waits in zip(views, waiting, strict=True)]
    if as_json:
        show_json({"lanes": bodies, "refused": [{"job": one.job, "problems": list(one.problems)} for one in refused]})
    else:
        show(Listing(COLUMNS, tuple(row(view, body) for view, body in zip(views, bodies, strict=True)), NUMBERS))
        say(*_troubles(bodies, refused))
    if not bodies and not refused:
        click.echo(f"Error: {cloud.no_lane(settings)}", err=True)
        sys.exit(EXIT_TROUBLE)
    sys.exit(EXIT_TROUBLE if refused or any(body["troubles"] for body in bodies) else EXIT_FINE)


def looked(outside: Outside, names: Sequence[str]) -> tuple[list[View], Sequence[LaneRefused]]:
    """A look at these lanes, or all, and the jobs that cannot be one. Raises SettingsError, DependencyError."""
    found = find_lanes(outside)
    jobs, refused = found.jobs, found.refused
    chosen = chosen_lanes(found.lanes, refused, names)
    readings = outside.backlog.read([lane.subscription for lane in chosen]) if chosen else {}

    def one(asked: tuple[Lane, JobInfo, Reading]) -> View:
        lane, job, reading = asked
        try:
            return look(lane, job, outside, reading, dry_run=True, republish=False)
        except Exception as error:  # noqa: BLE001 - an unexpected error of one lane does not hide the others
            return hold_view(lane, reading, outside, fault(lane, reading, outside.clock.now(), error))

    asked = [(lane, jobs[lane.job], readings[lane.subscription]) for lane in chosen]
    views = together(one, asked, LANES_AT_A_TIME, "lane")
    views = [view.with_source(found.sources.get(view.lane.name, NOT_ASKED)) for view in views]
    return views, () if names else refused


def lane_json(view: View, waiting: Waiting) -> dict[str, Any]:
    """What is known of a lane."""
    decisions = view.state.decisions
    value = view.reading if isinstance(view.reading, Value) else None
    assigned_count = None if view.ledger is None or view.listing_error else view.ledger.total_count
    unassigned_count = None
    if assigned_count is not None and not isinstance(view.reading, Unknown):
        unassigned_count = max(0, (value.undelivered_count if value else 0) + view.accepted_count - assigned_count)
    return {
        "lane": view.lane.name,
        "job": view.lane.job,
        "subscription": view.lane.subscription,
        "paused": view.lane.policy.paused,
        "reading": reading_json(view.reading),
        "sample_age_s": None if value is None else round(max(0.0, view.now - value.sampled_at), 3),
        "accepted_count": view.accepted_count,
        "assigned_count": assigned_count,
        "unassigned_count": unassigned_count,
        "live_worker_count": view.live_worker_count if view.held is None else None,
        "dead_count": waiting.dead_count,
        "delayed_count": waiting.delayed_count,
        "cancelled_count": waiting.cancelled_count,
        "ends_count": waiting.ends_count,
        "last_decision": decisions[-1] if decisions else None,
        "schedules": [{"name": one.name, "times": one.times, "last": iso(one.last), "due": bool(one.task)} for one in view.state.scheduled],
        "troubles": [*troubles(view), *waiting.problems, *waiting.overdue],
    }


def troubles(view: View) -> list[str]:
    """What is in the way of this lane, a line each; a pause is not: somebody wanted it."""
    found = [f"the backlog is unknown: {view.reading.reason}"] if isinstance(view.reading, Unknown) else []
    found += [view.held.reason] if view.held is not None else []
    found += [f"what runs already is unknown: {view.listing_error}"] if view.listing_error else []
    backoff = view.state.backoff
    if backoff is not None and view.now < backoff.until:
        found.append(f"Cloud Run refused launches, none is tried for {spoken(backoff.until - view.now)} more: {backoff.reason}")
    if view.broken is not None:
        found.append(
            view.broken.hold_reason(view.lane.name, view.now) or f"{view.broken.execution}: {view.broken.how}; one worker tries next"
        )
    found += [view.crashed] if view.crashed else []
    return found


def row(view: View, body: Mapping[str, Any]) -> tuple[str, ...]:
    reading = view.reading
    backlog = str(reading.undelivered_count) if isinstance(reading, Value) else str(body["reading"]["state"])
    oldest = "" if not isinstance(reading, Value) or reading.oldest_age_s is None else spoken(reading.oldest_age_s)
    return (
        view.lane.name,
        state_of(
            view, more_unknown=None in [body[f"{what}_count"] for what in WAITING], unfired=len(body["troubles"]) > len(troubles(view))
        ),
        backlog,
        "" if body["sample_age_s"] is None else f"{spoken(body['sample_age_s'])} ago",
        oldest,
        _number(body["assigned_count"]),
        _number(body["live_worker_count"]),
        _number(body["dead_count"]),
        _many(body["delayed_count"]),
        _number(body["cancelled_count"]),
        _many(body["ends_count"]),
        _last_decision(body["last_decision"], view.now),
    )


def state_of(view: View, *, more_unknown: bool = False, unfired: bool = False) -> str:
    """One word; what is wrong goes before what is wanted, and both are said. `more_unknown`: something else could not be read."""
    words = ["paused"] if view.lane.policy.paused else []
    if view.broken is not None:
        words.append("broken")
    elif troubles(view):
        unknown = isinstance(view.reading, Unknown) or view.held or view.listing_error
        words.append("unknown" if unknown else "crashed" if troubles(view) == [view.crashed] else "refused")
    elif more_unknown:
        words.append("unknown")
    elif unfired:
        words.append("unfired")
    return "+".join(words) or "ok"


def _many(count: int | None) -> str:
    return f"{MAX_COUNTED:,}+" if count == MAX_COUNTED else _number(count)


def _number(count: int | None) -> str:
    return "?" if count is None else str(count)


def _last_decision(decision: Mapping[str, Any] | None, now: float) -> str:
    """Whatever stands in the history: another version may have written it."""
    if decision is None:
        return ""
    try:
        verdict, decided_at = VERDICTS[Kind(decision["kind"])], from_iso(str(decision["decided_at"]))
    except (KeyError, ValueError):
        return "unreadable"
    workers = f" {decision.get('workers')}" if decision["kind"] == Kind.LAUNCH else ""
    return f"{verdict}{workers}, {spoken(max(0.0, now - decided_at))} ago"


def _troubles(bodies: Sequence[Mapping[str, Any]], refused: Sequence[LaneRefused]) -> list[str]:
    lines = [f"lane {body['lane']}: {one_line(trouble)}" for body in bodies for trouble in body["troubles"]]
    return lines + [f"job {one.job} is not a lane until this is right: {one_line(problem)}" for one in refused for problem in one.problems]
