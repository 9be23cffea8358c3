"""A tick: read, list, ledger, decide, save the intent, launch, save what happened. One order, one function, for every lane.

Nothing is launched unless the reading is known, the listing is complete and the intent is saved. Two ticks of one lane at the
same time are harmless: only one of them can save its intent.
"""

from __future__ import annotations

import difflib
import random
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace

from batch.clock import Clock
from batch.errors import DependencyError, SettingsError
from batch.objects import ObjectStore
from controller.backlog import BacklogReader, Reading, Value
from controller.broken import Broken, broken_of
from controller.decision import Decision, HoldCause, Kind, to_json
from controller.intents import Intent, PartState, new_decision_id, split
from controller.jobs import JobRunner
from controller.lanes import Lane, LaneRefused, lanes_of
from controller.launcher import kept, launch, settled, unlisted
from controller.ledger import GUARD_S, Ledger, ledger_of, seconds_per_message
from controller.policy import decide
from controller.state import LaneState, Saved, StateConflict, StateUnreadable, load, save
from controller.survey import Survey, survey


@dataclass(frozen=True, slots=True)
class Outside:
    """Everything a tick touches."""

    store: ObjectStore
    runner: JobRunner
    backlog: BacklogReader
    clock: Clock
    chance: random.Random


@dataclass(frozen=True, slots=True)
class TickResult:
    """What one tick decided and did. `stood_down`: another controller decided for this lane at the same time, nothing was launched."""

    decision: Decision
    intent: Intent | None = None
    stood_down: bool = False
    dry_run: bool = False
    notes: tuple[str, ...] = ()

    @property
    def launched(self) -> tuple[str, ...]:
        """Names of the executions that were started."""
        parts = self.intent.parts if self.intent else ()
        return tuple(part.execution for part in parts if part.state is PartState.LAUNCHED)

    @property
    def failures(self) -> tuple[str, ...]:
        """Why parts of the launch did not, or may not, take effect."""
        parts = self.intent.parts if self.intent else ()
        return tuple(f"{part.decision_id}: {part.reason}" for part in parts if part.state is not PartState.LAUNCHED)


@dataclass(frozen=True, slots=True)
class Round:
    """One tick of every lane asked for, and the jobs that could not be lanes."""

    results: tuple[TickResult, ...]
    refused: tuple[LaneRefused, ...] = ()


@dataclass(frozen=True, slots=True)
class _View:
    """What a tick knows before it decides: the state brought up to date, whether the lane is broken, and the ledger or why there is
    none."""

    state: LaneState
    ledger: Ledger | None = None
    broken: Broken | None = None
    listing_error: str = ""
    notes: tuple[str, ...] = ()


def tick(lane: Lane, outside: Outside, *, reading: Reading | None = None, dry_run: bool = False) -> TickResult:
    """Decide for one lane and launch what was decided. `reading` is given where several lanes were read in one call; with `dry_run`
    nothing is written or launched. Failing services become a hold in the result; they are not raised."""
    now = outside.clock.now()
    if reading is None:
        reading = outside.backlog.read([lane.subscription])[lane.subscription]
    try:
        saved = load(outside.store, lane.name)
    except (DependencyError, StateUnreadable) as error:
        return TickResult(_unreadable(lane, reading, now, str(error)), dry_run=dry_run)
    view = _viewed(lane, saved.state, reading, outside, now, dry_run=dry_run)
    decision = decide(
        lane,
        reading,
        view.ledger,
        now=now,
        seconds_per_message=view.state.seconds_per_message,
        listing_error=view.listing_error,
        broken=view.broken,
    )
    if dry_run:
        return TickResult(decision, dry_run=True, notes=view.notes)
    if decision.kind is Kind.LAUNCH:
        return _launched(lane, decision, saved, view, outside, now)
    return _recorded(decision, saved, view, outside, now)


def _viewed(lane: Lane, state: LaneState, reading: Reading, outside: Outside, now: float, *, dry_run: bool) -> _View:
    """List only where it can matter: to size a launch, or to follow one that is unclear."""
    wanted = isinstance(reading, Value) and reading.undelivered_count > 0 and not lane.policy.paused
    if not wanted and not any(intent.pending for intent in state.intents):
        return _View(state)
    sampled_at = reading.sampled_at if isinstance(reading, Value) else now
    try:
        since = sampled_at - GUARD_S
        seen = survey(lane, state.watched, outside.runner, outside.store, since=since, now=now)
        intents, found = _followed(lane, state.intents, seen, outside, now, give_up=not dry_run)
        if found:
            seen = survey(lane, [*seen.live_names, *found], outside.runner, outside.store, since=since, now=now)
    except DependencyError as error:
        return _View(state, listing_error=str(error))
    state = replace(
        state,
        intents=intents,
        watched=seen.live_names,
        seconds_per_message=seconds_per_message(seen.worked) or state.seconds_per_message,
    )
    lost = unlisted(intents, seen, now)
    return _View(state, ledger_of(sampled_at, seen.worked, lost, now=now), broken_of(seen.worked, lost), notes=seen.notes)


def _followed(
    lane: Lane, intents: Sequence[Intent], seen: Survey, outside: Outside, now: float, *, give_up: bool
) -> tuple[tuple[Intent, ...], list[str]]:
    """The intents as far as they are resolved, and full names of executions that the listing did not show."""
    followed: list[Intent] = []
    unseen: list[str] = []
    for intent in intents:
        intent, found = settled(lane, intent, seen, outside.store, outside.runner, now, give_up=give_up)
        followed.append(intent)
        unseen += [one.full_name for one in found]
    return kept(tuple(followed), now), unseen


def _launched(lane: Lane, decision: Decision, saved: Saved, view: _View, outside: Outside, now: float) -> TickResult:
    decision = replace(decision, decision_id=new_decision_id(now, outside.chance))
    intent = Intent(decision.decision_id, now, split(decision.decision_id, decision.workers, decision.backlog))
    state = view.state.with_intent(intent).with_decision(to_json(decision))
    try:
        generation = save(outside.store, state, saved.generation, f"{decision.decision_id}/intent")
    except StateConflict as conflict:
        return TickResult(decision, stood_down=True, notes=(*view.notes, str(conflict)))
    except DependencyError as error:
        return TickResult(_unreadable(lane, decision.reading, now, f"the intent could not be saved: {error}"), notes=view.notes)
    intent = launch(lane, intent, outside.runner)
    try:
        save(outside.store, state.with_intent(intent), generation, f"{decision.decision_id}/done")
    except (StateConflict, DependencyError) as error:
        lost = f"what became of {decision.decision_id} was not recorded, the next tick finds it by listing: {error}"
        return TickResult(decision, intent, notes=(*view.notes, lost))
    return TickResult(decision, intent, notes=view.notes)


def _recorded(decision: Decision, saved: Saved, view: _View, outside: Outside, now: float) -> TickResult:
    """Without a launch the state is written only where it changed; a decision only where its kind did."""
    state = view.state
    last_kind = state.decisions[-1].get("kind") if state.decisions else ""
    if decision.kind.value != last_kind:
        state = state.with_decision(to_json(decision))
    if state == saved.state:
        return TickResult(decision, notes=view.notes)
    try:
        save(outside.store, state, saved.generation, new_decision_id(now, outside.chance))
    except (StateConflict, DependencyError) as error:
        return TickResult(decision, notes=(*view.notes, str(error)))
    return TickResult(decision, notes=view.notes)


def _unreadable(lane: Lane, reading: Reading, now: float, reason: str) -> Decision:
    return Decision(lane.name, Kind.HOLD, reason, now, reading, hold_cause=HoldCause.STATE_UNREADABLE)


def tick_lanes(outside: Outside, names: Sequence[str] = (), *, dry_run: bool = False) -> Round:
    """Tick the lanes with these names, or all. Raises SettingsError for a name that is no lane, DependencyError when the jobs cannot
    be listed. A fault in one lane's tick holds that lane, and the others go on."""
    lanes, refused = lanes_of(outside.runner.jobs())
    chosen = chosen_lanes(lanes, refused, names)
    readings = outside.backlog.read([lane.subscription for lane in chosen]) if chosen else {}
    results = tuple(_contained(lane, outside, readings[lane.subscription], dry_run=dry_run) for lane in chosen)
    return Round(results, tuple(refused) if not names else ())


def _contained(lane: Lane, outside: Outside, reading: Reading, *, dry_run: bool) -> TickResult:
    try:
        return tick(lane, outside, reading=reading, dry_run=dry_run)
    except Exception as error:  # noqa: BLE001 - what nobody foresaw must not stop the other lanes; it is told in full, and the lane held
        reason = f"a fault in Fanout itself, report its traceback: {type(error).__name__}: {error}"
        decision = Decision(lane.name, Kind.HOLD, reason, outside.clock.now(), reading, hold_cause=HoldCause.FAULT)
        return TickResult(decision, dry_run=dry_run, notes=(traceback.format_exc(),))


def chosen_lanes(lanes: Sequence[Lane], refused: Sequence[LaneRefused], names: Sequence[str]) -> list[Lane]:
    """The lanes with these names, or all. Raises SettingsError with every name that is none."""
    known = {lane.name: lane for lane in lanes}
    problems = [_no_lane(name, list(known), refused) for name in names if name not in known]
    if problems:
        raise SettingsError(problems)
    return [known[name] for name in dict.fromkeys(names)] if names else list(lanes)


def _no_lane(name: str, known: Sequence[str], refused: Sequence[LaneRefused]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"lanes are: {', '.join(known) or 'none'}"
    wrong = "".join(f"; job {one.job} is refused: {'; '.join(one.problems)}" for one in refused)
    return f"there is no lane {name!r}; {hint}{wrong}"
