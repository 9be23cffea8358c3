"""Tasks that pokes reported, kept in a lane's state: there any controller's tick finds them, until the gauge shows them.

And whether they are worth a tick of their own. A worker is billed for a minute at least, so a lane that was just launched waits until a
quarter of its time to drain is over, unless far more came than that launch was for: a steady stream must not pay for a worker every two
seconds.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import floor

from batch.services.ports import ObjectStore
from controller.act.intents import Intent, PartState, new_decision_id
from controller.act.state import POKES_KEPT, LaneState, StateConflict, load, save
from controller.service.pokes import Poke
from controller.tick.outside import Memory

MOST_ACCEPTED = 10_000_000
"""Maximum tasks in all marks of a lane: more are counted by the gauge alone."""
TRIES = 5
LONGEST_PAUSE_S = 60.0
"""Scheduler ticks every minute."""
PAUSES_IN_DRAIN = 4
"""A lane is ticked again after this fraction (1 / 4) of the time that it may take to drain."""
BURST = 4
"""This many times the messages of the last launch do not wait. So the launches for a stream are few, and grow."""


@dataclass(frozen=True, slots=True)
class Marked:
    """What became of pokes: tasks counted, pokes that had been counted before, pokes left out because there are too many."""

    accepted_count: int = 0
    repeated_count: int = 0
    left_out_count: int = 0


def marked(state: LaneState, pokes: Sequence[Poke]) -> tuple[LaneState, Marked]:
    """The state with the tasks of `pokes` that it does not count yet. Pure."""
    done = Marked()
    total_count = sum(count for _, count in state.accepted)
    for poke in pokes:
        if poke.poke_id in state.pokes:
            done = replace(done, repeated_count=done.repeated_count + 1)
        elif poke.accepted_count and total_count + poke.accepted_count <= MOST_ACCEPTED:
            state = state.with_accepted(poke.at, poke.accepted_count, poke.poke_id)
            total_count += poke.accepted_count
            done = replace(done, accepted_count=done.accepted_count + poke.accepted_count)
        elif poke.accepted_count:
            done = replace(done, left_out_count=done.left_out_count + 1)
    return state, done


def pause_s(drain_within_s: float, least_s: float) -> float:
    """Seconds after a launch in which pokes ask for no other."""
    return min(LONGEST_PAUSE_S, max(least_s, drain_within_s / PAUSES_IN_DRAIN))


@dataclass(frozen=True, slots=True)
class Pause:
    """The accepted tasks wait until `until` (Unix seconds), when a tick of the lane is due, unless a scheduled one comes first."""

    until: float
    reason: str


def last_launch(state: LaneState) -> Intent | None:
    """The newest one of which a part took effect, as far as the state tells."""
    launches = [intent for intent in state.intents if any(part.state is PartState.LAUNCHED for part in intent.parts)]
    return max(launches, key=lambda intent: intent.saved_at, default=None)


def came_count(state: LaneState) -> int:
    """Tasks that were accepted since the last launch. Marks stand at the beginning of their second, so what came in that of the launch
    counts as after it."""
    last = last_launch(state)
    return sum(count for at, count in state.accepted if last is None or at >= floor(last.saved_at))


def pause_of(state: LaneState, now: float, pause_s: float) -> Pause | None:
    """Why the accepted tasks wait, and until when; None: they do not."""
    last = last_launch(state)
    if last is None or now - last.saved_at >= pause_s:
        return None
    assigned_count = sum(part.backlog for part in last.parts if part.state is PartState.LAUNCHED)
    came = came_count(state)
    if came > BURST * assigned_count:
        return None
    until = last.saved_at + pause_s
    follows = f"the next tick, at most {until - now:.0f} s from now, decides, or a poke for more than {BURST} times as many"
    return Pause(
        until, f"{now - last.saved_at:.0f} s ago workers were launched for {assigned_count} messages, and {came} came since: {follows}"
    )


def record(
    store: ObjectStore, memory: Memory, lane: str, pokes: Sequence[Poke], now: float, rng: random.Random
) -> tuple[Marked, LaneState]:
    """Write what is new into the lane's state; if another controller writes at the same time, it is read again. Raises StateConflict if
    that goes on, StateUnreadable, DependencyError."""
    pokes = pokes[-POKES_KEPT:]
    for _ in range(TRIES):
        found = load(store, lane)
        state, done = marked(found.state.pruned(now), pokes)
        if not done.accepted_count:
            return done, state
        with suppress(StateConflict):
            memory.remember_state(lane, save(store, state, found.generation, f"{new_decision_id(now, rng)}/pokes"))
            return done, state
    raise StateConflict(lane)
