"""Acts on one lane's decision: saves the intent, launches it, publishes what its schedules have due, and saves what became of both. Nothing
else launches.

The intent is saved first. So of two controllers that decided at the same time one stands down, and a crash leaves a trace. The history
is told last: what it could not be given stays in the state, and the next tick tries again.
"""

from __future__ import annotations

from dataclasses import replace

from batch.model.errors import FanoutError
from controller.act.history import write_history
from controller.act.intents import Intent, new_decision_id, parts_for
from controller.act.launcher import backed_off, launch
from controller.act.reserved import ACT_WITHIN_S
from controller.act.schedules import publish_due
from controller.act.state import LaneState, StateConflict, Stored, save
from controller.decide.decision import Decision, HoldCause, Kind, held_decision, on_hold
from controller.lanes.deadline import unmet_by_gauge
from controller.tick.outside import Outside
from controller.tick.results import TickResult
from controller.tick.view import View


def act(view: View, decision: Decision, outside: Outside, *, dry_run: bool, reserved_at: float | None = None) -> TickResult:
    """Launch what was decided, or record that nothing was. `reserved_at` (Unix seconds) is when workers of a shared budget were reserved
    for it. Errors of services become part of the result; they are not raised."""
    if decision.kind is Kind.LAUNCH and reserved_at is not None and (late_s := outside.clock.now() - reserved_at) > ACT_WITHIN_S:
        late = f"{late_s:.0f} s went by since workers of the shared budget were reserved for it; the next tick decides anew"
        decision = on_hold(decision, HoldCause.STATE_UNREADABLE, late)
    if dry_run or view.held is not None:
        looks_on = dry_run and view.held is None
        unmet = unmet_by_gauge(view.lane, view.state.learned.rates(view.now), poked=bool(view.state.pokes)) if looks_on else ""
        result = TickResult(decision, dry_run=dry_run, notes=(*view.notes, unmet) if unmet else view.notes)
    elif decision.kind is Kind.LAUNCH:
        result = _launch(view, decision, outside)
    else:
        result = _record(view, decision, outside)
    return replace(result, delayed=view.delayed, notes=(*result.notes, *view.advice))


def _launch(view: View, decision: Decision, outside: Outside) -> TickResult:
    lane, now = view.lane, outside.clock.now()
    decision = replace(decision, decision_id=new_decision_id(decision.decided_at, outside.rng))
    since = None if decision.probe else view.state.waiting.since
    parts = parts_for(decision.decision_id, decision.workers, decision.backlog, waited_since=since)
    intent = Intent(decision.decision_id, now, parts)
    state = _after(view, decision).with_intent(intent).with_decision(decision, decision.decision_id).pruned(now)
    try:
        written = _save(outside, state, view.stored.generation, f"{decision.decision_id}/intent")
    except StateConflict as conflict:
        return TickResult(decision, stood_down=True, notes=(*view.notes, str(conflict)))
    except FanoutError as error:
        reason = f"the intent could not be saved: {error}"
        return TickResult(held_decision(lane.name, decision.reading, now, HoldCause.STATE_UNREADABLE, reason), notes=view.notes)
    clock, memory = outside.clock, outside.memory
    done = launch(lane, intent, outside.runner, clock.now, lambda: memory.remember_run_call(clock.now()))
    backoff = backed_off(state.backoff, done, outside.clock.now(), outside.rng)
    state = replace(written.state.with_intent(done.intent).compared((), lane, now), backoff=backoff)
    state, unwritten = write_history(outside.store, state)
    state, submitted = _submitted(view, state, outside)
    notes = (*view.notes, *unwritten, *submitted)
    try:
        _save(outside, state, written.generation, f"{decision.decision_id}/done")
    except FanoutError as error:
        lost = f"what became of {decision.decision_id} was not recorded, the next tick finds it by listing: {error}"
        return TickResult(decision, done.intent, notes=(*notes, lost))
    return TickResult(decision, done.intent, notes=notes)


def _record(view: View, decision: Decision, outside: Outside) -> TickResult:
    """Without a launch the state is written only if it changed; a decision only if it says something new."""
    now = outside.clock.now()
    state = _after(view, decision)
    if state.last is None or not state.last.is_repeated_by(decision):
        state = state.with_decision(decision, new_decision_id(decision.decided_at, outside.rng))
    state, unwritten = write_history(outside.store, state)
    notes = (*view.notes, *unwritten)
    try:
        written = view.stored
        if state != written.state:
            written = _save(outside, state.pruned(now), written.generation, new_decision_id(now, outside.rng))
        state, submitted = _submitted(view, written.state, outside)
        notes += submitted
        if state != written.state:
            _save(outside, state, written.generation, new_decision_id(now, outside.rng))
    except FanoutError as error:
        return TickResult(decision, notes=(*notes, str(error)))
    return TickResult(decision, notes=notes)


def _submitted(view: View, saved: LaneState, outside: Outside) -> tuple[LaneState, tuple[str, ...]]:
    """The state once the tasks that are due in the saved one are published, and what to note."""
    scheduled, notes = publish_due(view.lane, saved.scheduled, outside.topic, outside.store, outside.clock, outside.rng)
    return replace(saved, scheduled=scheduled), notes


def _after(view: View, decision: Decision) -> LaneState:
    """The state with what the next decision needs of this one."""
    count = 0 if decision.probe else decision.backlog
    state = replace(view.state, blind=decision.blind)
    return replace(state, doubt=state.doubt.launched(count), waiting=state.waiting.without(count)) if count else state


def _save(outside: Outside, state: LaneState, generation: int, token: str) -> Stored:
    """Raises StateConflict, FanoutError; then the next tick reads the state anew."""
    outside.memory.remember_state(state.lane, None)
    written = save(outside.store, state, generation, token)
    outside.memory.remember_state(state.lane, written)
    return written
