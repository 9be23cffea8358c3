"""A tick: look at every lane, decide for all, share what they share, act: the same order for the service, the command and simulated time.

Nothing is launched unless the reading is known, the listing is complete and the intent is saved. Two ticks of one lane at the same
time are harmless: only one of them can save its intent.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import islice

from batch.dead.lanes import LaneFacts, write_lanes
from batch.events import log
from batch.model.errors import FanoutError
from batch.model.names import CANCEL, DELAYED, cancel_object
from batch.services.ports import ObjectStore
from controller.act.endings import Endings, EndingsLook
from controller.decide.decision import Decision
from controller.lanes.lanes import chosen_lanes
from controller.lanes.sources import NOT_ASKED, Source
from controller.model.lane import Lane
from controller.model.reading import Reading
from controller.model.together import together
from controller.observe.jobs import JobInfo
from controller.tick.action import act
from controller.tick.found import Found, find_lanes
from controller.tick.health import health_of
from controller.tick.outside import Outside
from controller.tick.results import Round, TickResult
from controller.tick.sharing import share_out
from controller.tick.view import View, fault, hold_view, look

LANES_AT_A_TIME = 8
NOTHING_SENT: Mapping[str, int] = {}
NOTHING_KNOWN: Mapping[str, Source] = {}
PAGE = 1000


def tick_lanes(
    outside: Outside,
    names: Sequence[str] = (),
    *,
    dry_run: bool = False,
    wait: bool = True,
    on_result: Callable[[TickResult], None] | None = None,
) -> Round:
    """Tick the lanes with these names, or all; without `wait` they launch now what could wait. A fault in one lane's tick holds that lane,
    and the others go on. `on_result` is called with each result as it comes, from any thread. Raises SettingsError for a name that is not a
    lane's, DependencyError when the jobs cannot be listed."""
    found = find_lanes(outside)
    jobs, lanes = found.jobs, found.lanes
    chosen = chosen_lanes(lanes, found.refused, names)
    looked_at = lanes if outside.quotas.count_workers else chosen
    readings = outside.backlog.read([lane.subscription for lane in looked_at]) if looked_at else {}
    asked = [(lane, jobs[lane.job], readings[lane.subscription]) for lane in looked_at]
    endings = Endings() if dry_run or names else _look_at_ends(outside, lanes)
    results = ticked(
        outside,
        asked,
        {lane.name for lane in chosen},
        dry_run=dry_run,
        wait=wait,
        on_result=on_result,
        sent=endings.sent,
        sources=found.sources,
    )
    if not dry_run:
        _write_lanes(outside, found)
    return Round(tuple(results), tuple(found.refused) if not names else (), endings)


def _look_at_ends(outside: Outside, lanes: Sequence[Lane]) -> Endings:
    """Of all lanes, by one listing; one round at a time. A fault in it holds no lane."""
    memory = outside.memory
    if not lanes or not memory.ends_lock.acquire(blocking=False):
        return Endings()
    try:
        return EndingsLook(lanes, outside.topic, outside.store, outside.clock, outside.rng, memory.ends).run()
    except Exception as error:  # noqa: BLE001 - as for a lane
        return Endings(problems=_traced(error))
    finally:
        memory.ends_lock.release()


def _facts(lane: Lane) -> LaneFacts:
    return LaneFacts(
        lane.name,
        lane.subscription,
        lane.topic,
        lane.policy.rules,
        lane.vcpu,
        lane.memory_gib,
        lane.policy.accept,
        lane.policy.default_type,
        lane.policy.event_types,
        lane.price_percent,
    )


def _write_lanes(outside: Outside, found: Found) -> None:
    """For what serves several lanes. Where the others on record are not known, they stay as long as a job is refused: it may be theirs."""
    own = {one.name: _facts(one) for one in found.lanes}
    now, wanted, known = outside.clock.now(), {**found.kept, **own}, outside.memory.lanes(outside.clock.now())
    if not own or known == wanted:
        return
    try:
        keep_others = known is None and bool(found.refused)
        write_lanes(outside.store, wanted, keep_others=keep_others)
        if not keep_others:
            outside.memory.remember_lanes(wanted, now)
    except FanoutError as error:
        log("lanes_not_written", error=str(error))


def ticked(
    outside: Outside,
    asked: Sequence[tuple[Lane, JobInfo, Reading]],
    chosen: set[str],
    *,
    dry_run: bool,
    wait: bool = True,
    on_result: Callable[[TickResult], None] | None = None,
    sent: Mapping[str, int] = NOTHING_SENT,
    sources: Mapping[str, Source] = NOTHING_KNOWN,
) -> list[TickResult]:
    """Look at all lanes in `asked`, each with its job and its reading, and act on the `chosen` ones, which without `wait` launch now what
    could wait. `sent`: tasks of Fanout's own that this round has published, `sources`: what lanes drain, both by lane."""
    several = len(chosen) > 1
    may_be_due = _named_below(outside.store, DELAYED) if several else None
    cancelled = _named_below(outside.store, CANCEL) if several and may_be_due != set() else None

    def looked(one: tuple[Lane, JobInfo, Reading]) -> View:
        lane, job, reading = one
        republish = lane.name in chosen and (may_be_due is None or lane.subscription in may_be_due)
        try:
            may_be = cancelled is None or cancel_object(lane.name).removeprefix(CANCEL) in cancelled
            dry = dry_run or lane.name not in chosen
            return look(lane, job, outside, reading, dry_run=dry, republish=republish, cancelled=may_be, sent_count=sent.get(lane.name, 0))
        except Exception as error:  # noqa: BLE001 - an unforeseen fault holds this lane, with its traceback, and the others go on
            held = fault(lane, reading, outside.clock.now(), error)
            return hold_view(lane, reading, outside, held, notes=_traced(error))

    def acted(one: tuple[View, Decision]) -> TickResult:
        view, decision = one
        try:
            result = act(view, decision, outside, dry_run=dry_run, reserved_at=reserved_at)
        except Exception as error:  # noqa: BLE001 - as above
            held = fault(view.lane, view.reading, outside.clock.now(), error)
            result = TickResult(held, dry_run=dry_run, notes=_traced(error), delayed=view.delayed)
        result = _with_health(result, view)
        if on_result is not None:
            on_result(result)
        return result

    views = [view.with_source(sources.get(view.lane.name, NOT_ASKED)) for view in together(looked, asked, LANES_AT_A_TIME, "lane")]
    decided = share_out(views, outside, chosen, dry_run=dry_run, wait=wait)
    reserved_at = decided.reserved_at
    pairs = zip(views, decided.decisions, strict=True)
    return together(acted, [(view, decision) for view, decision in pairs if view.lane.name in chosen], LANES_AT_A_TIME, "lane")


def _with_health(result: TickResult, view: View) -> TickResult:
    """What was done is done: a fault in judging it is a note."""
    try:
        return replace(result, health=health_of(view, result.decision, result.failures))
    except Exception as error:  # noqa: BLE001 - as for a lane
        return replace(result, notes=(*result.notes, *_traced(error)))


def _named_below(store: ObjectStore, folder: str) -> set[str] | None:
    """What stands directly below a folder, by one page of a listing for all lanes: with `DELAYED` the subscriptions that have delayed
    tasks. None if one page does not show it all."""
    try:
        names = [info.name for info in islice(store.list(folder), PAGE)]
    except FanoutError:
        return None
    return {name.removeprefix(folder).partition("/")[0] for name in names} if len(names) < PAGE else None


def _traced(error: Exception) -> tuple[str, ...]:
    return ("".join(traceback.format_exception(error)),)
