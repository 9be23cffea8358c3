"""The act: what was decided for one lane is saved, launched, and saved again with what became of it. Nothing else launches.

The intent is saved first. So of two controllers that decided at the same time one stands down, and a crash leaves a trace.
"""

from __future__ import annotations

from dataclasses import replace

from batch.model.clock import iso
from batch.model.errors import FanoutError
from controller.act.intents import Intent, new_decision_id, split
from controller.act.launcher import backed_off, backing_off, launch, unlaunchable
from controller.act.reserved import ACT_WITHIN_S
from controller.act.state import LaneState, Saved, StateConflict, saved
from controller.decide.decision import Decision, HoldCause, Kind, on_hold, to_json
from controller.model.wording import spoken
from controller.tick.outside import Outside
from controller.tick.results import TickResult
from controller.tick.view import View, unreadable

MINUTE_S = 60.0


def act(view: View, decision: Decision, outside: Outside, *, dry_run: bool, reserved_at: float | None = None) -> TickResult:
    """Launch what was decided, or record that nothing was. `reserved_at` (Unix seconds) is when workers of a shared budget were reserved
    for it. Services that fail are told in the result; they are not raised."""
    if decision.kind is Kind.LAUNCH and reserved_at is not None and (late_s := outside.clock.now() - reserved_at) > ACT_WITHIN_S:
        late = f"{late_s:.0f} s went by since workers of the shared budget were reserved for it; the next tick decides anew"
        decision = on_hold(decision, HoldCause.STATE_UNREADABLE, late)
    if dry_run or view.held is not None:
        result = TickResult(decision, dry_run=dry_run, notes=view.notes)
    elif decision.kind is Kind.LAUNCH:
        result = _launched(view, decision, outside)
    else:
        result = _recorded(view, decision, outside)
    return replace(result, delayed=view.delayed)


def allowed(view: View, decision: Decision) -> Decision:
    """The decision, on hold where Cloud Run would refuse its launch, or has just refused one because there were too many."""
    if decision.kind is not Kind.LAUNCH:
        return decision
    backoff = view.state.backoff
    if backoff is not None and backing_off(backoff, view.now):
        often = f" {backoff.count} times in a row" if backoff.count > 1 else ""
        wait = f"no launch before {iso(backoff.until)} ({spoken(backoff.until - view.now)} more)"
        return on_hold(decision, HoldCause.THROTTLED, f"Cloud Run refused{often} for too many launches; {wait}: {backoff.reason}")
    why = unlaunchable(view.lane, split("", decision.workers, decision.backlog))
    return on_hold(decision, HoldCause.UNLAUNCHABLE, why) if why else decision


def _launched(view: View, decision: Decision, outside: Outside) -> TickResult:
    lane, now = view.lane, outside.clock.now()
    decision = replace(decision, decision_id=new_decision_id(now, outside.rng))
    intent = Intent(decision.decision_id, now, split(decision.decision_id, decision.workers, decision.backlog))
    state = _after(view, decision).with_intent(intent).with_decision(to_json(decision)).pruned(now)
    try:
        written = _save(outside, state, view.saved.generation, f"{decision.decision_id}/intent")
    except StateConflict as conflict:
        return TickResult(decision, stood_down=True, notes=(*view.notes, str(conflict)))
    except FanoutError as error:
        return TickResult(unreadable(lane, decision.reading, now, f"the intent could not be saved: {error}"), notes=view.notes)
    clock, memory = outside.clock, outside.memory
    done = launch(lane, intent, outside.runner, clock.now, lambda: memory.called_run(clock.now(), MINUTE_S))
    backoff = backed_off(state.backoff, done.throttled, outside.clock.now(), outside.rng)
    state = replace(written.state.with_intent(done.intent), backoff=backoff)
    try:
        _save(outside, state, written.generation, f"{decision.decision_id}/done")
    except FanoutError as error:
        lost = f"what became of {decision.decision_id} was not recorded, the next tick finds it by listing: {error}"
        return TickResult(decision, done.intent, notes=(*view.notes, lost))
    return TickResult(decision, done.intent, notes=view.notes)


def _recorded(view: View, decision: Decision, outside: Outside) -> TickResult:
    """Without a launch the state is written only where it changed; a decision only where its kind did."""
    now = outside.clock.now()
    state = _after(view, decision)
    last_kind = state.decisions[-1].get("kind") if state.decisions else ""
    if decision.kind.value != last_kind:
        state = state.with_decision(to_json(decision))
    if state == view.saved.state:
        return TickResult(decision, notes=view.notes)
    try:
        _save(outside, state.pruned(now), view.saved.generation, new_decision_id(now, outside.rng))
    except FanoutError as error:
        return TickResult(decision, notes=(*view.notes, str(error)))
    return TickResult(decision, notes=view.notes)


def _after(view: View, decision: Decision) -> LaneState:
    """The state with what the next decision is to know of this one."""
    return replace(view.state, waiting_since=decision.waiting_since, blind=decision.blind)


def _save(outside: Outside, state: LaneState, generation: int, token: str) -> Saved:
    """Raises StateConflict, FanoutError; then the state is read anew by the next tick."""
    outside.memory.remember_state(state.lane, None)
    written = saved(outside.store, state, generation, token)
    outside.memory.remember_state(state.lane, written)
    return written
