"""`fanout lanes`: every lane as it stands now. It reads and changes nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import click

from batch.model.clock import iso
from controller.act.intents import PartState
from controller.act.state import LaneState
from controller.config import ControllerSettings
from controller.decide.decision import HoldCause, Kind
from controller.decide.ledger import GUARD_S
from controller.lanes.lanes import LaneRefused, chosen_lanes
from controller.lanes.sources import NOT_ASKED
from controller.model.lane import Lane
from controller.model.reading import Reading, Unknown, Value, reading_json
from controller.model.together import together
from controller.model.wording import rough, spoken
from controller.observe.jobs import JobInfo
from controller.observe.waiting import MAX_COUNTED, Waiting, waiting_of
from controller.tick.found import find_lanes
from controller.tick.outside import Memory, Outside
from controller.tick.rounds import LANES_AT_A_TIME
from controller.tick.view import View, fault, hold_view, look
from fanout import cloud
from fanout.output import EXIT_FINE, EXIT_TROUBLE, Listing, one_line, show, show_json, some_of, tell
from fanout.watch import watch_options, watched

COLUMNS = ("lane", "state", "backlog", "oldest", "assigned", "workers", "dead", "delayed", "launch")
NUMBERS = frozenset({"backlog", "oldest", "assigned", "workers", "dead", "delayed"})
COUNTED = {"cancelled": "cancelled", "ends": "ends to fire"}
"""Counts that are told below the list, unless they are 0."""


@click.command()
@click.argument("lanes", nargs=-1)
@watch_options
@cloud.as_json_option
@cloud.with_settings
def command(lanes: tuple[str, ...], watch: bool, every_s: float, as_json: bool, settings: ControllerSettings) -> None:
    """Show LANES, or all: backlog and ledger, workers alive, dead letters, the last launch, and what is in the way.

    STATE is `ok`, `paused`, `held` (its job, or what it drains, breaks a rule: nothing is launched), `broken` (its newest workers could not
    work), `unknown` (something could not be read), `crashed` (workers of its newest execution were ended by a signal or crashed), `refused`
    (Cloud Run refused the last launch) or `unfired` (the end of a submission is overdue). BACKLOG is what the gauge counted, up to three
    minutes ago, OLDEST how old the oldest of it is by now, ASSIGNED how many of these messages workers have, or have acknowledged
    since. DEAD letters wait for a rule or a person, DELAYED tasks for their time. LAUNCH is how
    long ago the controller last launched workers.

    Lines below tell what is not as usual: cancelled tasks that workers still look for, and submissions whose end is still to be fired (no
    more than 10,000 are counted), then advice, and what is in the way. Ends with 1 when a lane is in any other state than ok or paused, a
    job cannot be a lane, or there is no lane.

    \b
    fanout lanes --watch
    fanout lanes --json | jq '.lanes[] | select(.troubles != [])'

    JSON: lanes (lane, job, subscription, paused, reading, sample_age_s, accepted_count, assigned_count, unassigned_count,
    live_worker_count, dead_count, delayed_count, cancelled_count, ends_count, last_decision, schedules (name, times, last, due), advice,
    troubles) and refused (job, problems). What is not known is null. A schedule is due while its task is not known to be published.
    """
    with cloud.connected(settings) as outside:
        if watch:
            watched(lambda: seen(outside, lanes), lambda found: draw(found, as_json=as_json), every_s, outside.clock, bare=as_json)
        found = seen(outside, lanes)
    draw(found, as_json=as_json)
    if not found.bodies and not found.refused:
        click.echo(f"Error: {cloud.no_lane(settings)}", err=True)
        sys.exit(EXIT_TROUBLE)
    sys.exit(EXIT_TROUBLE if found.refused or any(body["troubles"] for body in found.bodies) else EXIT_FINE)


@dataclass(frozen=True, slots=True)
class Seen:
    """One look at lanes: each with what is known of it as JSON, and the jobs that cannot be one."""

    views: Sequence[View]
    bodies: Sequence[Mapping[str, Any]]
    refused: Sequence[LaneRefused]


def seen(outside: Outside, names: Sequence[str]) -> Seen:
    """It remembers nothing of an earlier look, so that it tells the same as the first. Raises SettingsError, DependencyError."""
    views, refused = looked(replace(outside, memory=Memory()), names)
    waiting = together(lambda view: waiting_of(view.lane, outside.store, view.now), views, LANES_AT_A_TIME, "waiting")
    return Seen(views, [lane_json(view, waits) for view, waits in zip(views, waiting, strict=True)], refused)


def draw(found: Seen, *, as_json: bool) -> None:
    if as_json:
        show_json({"lanes": found.bodies, "refused": [{"job": one.job, "problems": list(one.problems)} for one in found.refused]})
        return
    pairs = list(zip(found.views, found.bodies, strict=True))
    show(Listing(COLUMNS, tuple(row(view, body) for view, body in pairs), NUMBERS))
    tell(*_once((view.lane.name, line) for view, body in pairs for line in remarks(view, body)))
    tell(*_once((body["lane"], trouble) for body in found.bodies for trouble in body["troubles"]))
    tell(*(f"job {one.job} is not a lane until this is right: {one_line(problem)}" for one in found.refused for problem in one.problems))


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
    value = view.reading if isinstance(view.reading, Value) else None
    assigned_count = None if view.ledger is None or view.listing_error else view.ledger.total_count
    unassigned_count = None
    if assigned_count is not None and not isinstance(view.reading, Unknown):
        known_count = (value.undelivered_count if value else 0) + view.accepted_count
        # After a drain the ledger still has what was acknowledged since the sample; of messages that are gone nothing is assigned.
        assigned_count = min(assigned_count, known_count)
        unassigned_count = known_count - assigned_count
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
        "last_decision": view.state.last.shown(view.lane.name) if view.state.last else None,
        "schedules": [{"name": one.name, "times": one.times, "last": iso(one.last), "due": bool(one.task)} for one in view.state.scheduled],
        "advice": list(view.advice),
        "troubles": [*troubles(view), *waiting.problems, *waiting.overdue],
    }


def troubles(view: View) -> list[str]:
    """What is in the way of this lane, a line each; a pause is not: somebody wanted it."""
    found = [f"it is held until this is right: {problem}" for problem in view.problems]
    found += [f"the backlog is unknown: {view.reading.reason}"] if isinstance(view.reading, Unknown) else []
    found += [view.held.reason] if view.held is not None else []
    found += [f"what runs already is unknown: {view.listing_error}"] if view.listing_error else []
    backoff = view.state.backoff
    if backoff is not None and view.now < backoff.until:
        found.append(f"Cloud Run refused launches, none is tried for {spoken(backoff.until - view.now)} more: {backoff.reason}")
    elif backoff is None and (refused := _refused_launch(view)):
        found.append(refused)
    if view.broken is not None:
        found.append(
            view.broken.hold_reason(view.lane.name, view.now) or f"{view.broken.execution}: {view.broken.how}; one worker tries next"
        )
    found += [view.crashed] if view.crashed else []
    return found


def _refused_launch(view: View) -> str:
    """Why the last launch started nothing, or not all; empty where it did, or something else was decided since."""
    last = view.state.last
    for intent in view.state.intents:
        refused = [part for part in intent.parts if part.state is PartState.REFUSED]
        if refused and last is not None and intent.decision_id == last.decision_id:
            what = "nothing" if len(refused) == len(intent.parts) else "not all of its workers"
            return f"the last launch, {rough(view.now - intent.saved_at)} ago, started {what}: {refused[0].reason}"
    return ""


def remarks(view: View, body: Mapping[str, Any]) -> list[str]:
    """What is not as usual, and keeps nothing from being done, a line each."""
    counts = [f"{_many(count)} {what}" for name, what in COUNTED.items() if (count := body[f"{name}_count"]) != 0]
    counts += [f"{view.accepted_count} accepted since the sample"] if view.accepted_count else []
    found = [", ".join(counts)] if counts else []
    found += _assigned_to_nobody(view, body)
    found += _yet_to_start(view)
    elsewhere = view.state.elsewhere
    if elsewhere is not None and view.ledger is not None and (count := elsewhere.counted_by(view.reading, view.ledger)):
        found.append(elsewhere.reason(count, view.now))
    last = view.state.last
    if last is not None and last.kind == Kind.HOLD and last.hold_cause != HoldCause.PAUSED and not body["troubles"]:
        over = ", and that has been put right" if last.hold_cause == HoldCause.MISCONFIGURED else ""
        found.append(f"the last decision, {rough(view.now - last.decided_at)} ago, was to hold{over}: {last.reason}")
    if last is not None and last.kind == Kind.NOTHING_TO_DO and body["unassigned_count"]:
        found.append(f"the last decision, {rough(view.now - last.decided_at)} ago, was to launch nothing: {last.reason}")
    return [*found, *(f"advice: {one}" for one in view.advice)]


def _assigned_to_nobody(view: View, body: Mapping[str, Any]) -> list[str]:
    """Where no worker is alive, why messages are assigned nonetheless."""
    if view.ledger is None or view.ledger.live_worker_count or not body["assigned_count"]:
        return []
    entries = view.ledger.entries
    parts = {
        "acknowledged since the sample": sum(one.assigned_count for one in entries),
        f"perhaps acknowledged in the {GUARD_S:.0f} s before it": view.ledger.guard_count,
        "wait for their time": sum(one.deferred_count for one in entries),
        "on leases of killed workers": sum(one.outstanding_count for one in entries),
    }
    age = "" if body["sample_age_s"] is None else f" ({rough(body['sample_age_s'])} old)"
    return [f"assigned, though no worker is alive: {', '.join(f'{count} {what}' for what, count in parts.items() if count)}{age}"]


def _yet_to_start(view: View) -> list[str]:
    """Executions without a worker: of a delayed lane nobody need look into them, until the ledger says so."""
    entries = view.ledger.entries if view.ledger and view.broken is None else ()
    slow = [one for one in entries if one.note and one.live and 0 < one.worker_count == one.pending_worker_count]
    late = f"this lane's start up to {spoken(view.lane.start_within_s)} after their launch"
    waiting = [one.execution for one in entries if one.awaits_start and not one.note] if view.lane.is_delayed else []
    found = [f"no worker of {', '.join(waiting)} has started yet: {late}"] if waiting else []
    return found + [f"{one.execution}: {one.note}" for one in slow]


def row(view: View, body: Mapping[str, Any]) -> tuple[str, ...]:
    reading = view.reading
    backlog = str(reading.undelivered_count) if isinstance(reading, Value) else str(body["reading"]["state"])
    age_s = reading.oldest_age_s if isinstance(reading, Value) and reading.undelivered_count else None
    oldest = "" if age_s is None else rough(age_s + body["sample_age_s"])
    return (
        view.lane.name,
        state_of(
            view,
            more_unknown=None in [body[f"{what}_count"] for what in ("dead", "delayed", *COUNTED)],
            unfired=len(body["troubles"]) > len(troubles(view)),
        ),
        backlog,
        oldest,
        _number(body["assigned_count"]),
        _number(body["live_worker_count"]),
        _number(body["dead_count"]),
        _many(body["delayed_count"]),
        _last_launch(view.state, view.now),
    )


def state_of(view: View, *, more_unknown: bool = False, unfired: bool = False) -> str:
    """One word; what is wrong goes before what is wanted, and both are said. `more_unknown`: something else could not be read."""
    words = ["paused"] if view.lane.policy.paused else []
    if view.problems:
        words.append("held")
    elif view.broken is not None:
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


def _last_launch(state: LaneState, now: float) -> str:
    """One that Cloud Run refused is none."""
    return "" if state.last_launch_at is None else rough(now - state.last_launch_at)


def _once(told: Iterable[tuple[str, str]]) -> list[str]:
    """What is the same of several lanes in one line: a service that fails is in the way of all."""
    lanes: dict[str, list[str]] = {}
    for lane, line in told:
        lanes.setdefault(one_line(line), []).append(lane)
    return [f"lane{'' if len(names) == 1 else 's'} {some_of(names)}: {line}" for line, names in lanes.items()]
