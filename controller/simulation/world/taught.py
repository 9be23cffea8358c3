"""What a lane has learned before a simulation begins: an execution that ended a minute ago, as the real one would have told of it."""

from __future__ import annotations

import random

from batch.model.exit import ExitReason
from batch.model.progress import MARK_EVERY_S, MARKS_KEPT, Progress
from controller.act.state import LaneState, save
from controller.decide.rates import Learned, learned
from controller.model.execution import ExecutionInfo, Worked
from controller.simulation.given.scenario import Load, Scenario
from controller.tick.outside import Outside

WORKERS = 8
LONG_S = 300.0
TAIL_S = 2.0
FEW = 2000


def teach(outside: Outside, load: Load, scenario: Scenario) -> None:
    """Write it into the lane's state."""
    save(outside.store, LaneState(load.name, learned=_learned(load, scenario, outside.clock.now())), 0, "taught")


def _learned(load: Load, scenario: Scenario, now: float) -> Learned:
    """Its workers took messages for five minutes, or three a thread if those are long; they began together, but for their start-ups."""
    rng = random.Random(scenario.seed + 3)
    mean_s = load.durations.mean(0.0)
    count = load.concurrency * (max(3, int(LONG_S / mean_s)) if mean_s > 0 else 1000)
    parts = [_parts_of(load, rng, count) for _ in range(WORKERS)]
    starts_s = [0.0 if load.is_delayed else scenario.start_up.draw(rng) for _ in range(WORKERS)]
    created_at = now - 60.0 - TAIL_S - max(start_s + sum(one) / load.concurrency for start_s, one in zip(starts_s, parts, strict=True))
    tries = {}
    for index, (start_s, seconds) in enumerate(zip(starts_s, parts, strict=True)):
        lived_s = sum(seconds) / load.concurrency
        began_at = created_at + start_s
        ended_at = began_at + lived_s
        first = int(began_at // MARK_EVERY_S + 1) * MARK_EVERY_S
        grid = range(first, int(ended_at) + 1, MARK_EVERY_S) if lived_s else ()
        marks = tuple((at, int(count * (at - began_at) / lived_s)) for at in grid)
        tries[index] = (
            Progress(
                share=count,
                started_at=began_at,
                updated_at=ended_at + TAIL_S,
                taken=count,
                acked=count,
                succeeded=count,
                handler_s=sum(seconds),
                longest_s=max(seconds) if len(seconds) == count else 0.0,
                marks=marks[-MARKS_KEPT:],
                exit_reason=ExitReason.SHARE_DONE.value,
                last_acked_at=ended_at,
            ),
        )
    info = ExecutionInfo("projects/simulated/executions/taught", WORKERS, created_at, created_at, now - 60.0, succeeded_count=WORKERS)
    return learned(Learned(), [Worked(info, tries)], load.concurrency)


def _parts_of(load: Load, rng: random.Random, count: int) -> list[float]:
    """Handler seconds of so many messages, one by one if they are not many."""
    return [load.durations.draw_sum(rng, 1, 0.0) for _ in range(count)] if count <= FEW else [load.durations.draw_sum(rng, count, 0.0)]
