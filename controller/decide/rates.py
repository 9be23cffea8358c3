"""Learned rates: the seconds that a message and a worker of a lane take, with their spread, from workers that have ended. Pure.

`learned` adds the executions that have ended since; the result is kept in the lane's state. `Learned.rates` is what a decision uses: not
the mean but a cautious quantile, because a drain is over when its slowest worker is. Until a first execution has ended, what its workers
have done so far is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from operator import attrgetter
from typing import Any

from batch.model.exit import ExitReason
from batch.model.progress import Progress
from controller.decide.sizing import Rates
from controller.model.execution import Worked
from controller.model.plain import read
from controller.model.wording import counted

CAUTIOUS = 0.8
"""The quantile that decisions use: four of five messages, and four of five workers, took no longer."""
SAMPLES_KEPT = 100
SAMPLES_EACH = 25
"""Of one execution: a large one must not push out all others."""
EXECUTIONS_KEPT = 50
ENOUGH_ROUNDS = 20
"""Minimum messages per thread before the overhead of a worker can be estimated; with fewer, its start and end would count as overhead."""
MIN_MESSAGE_S = 0.00005
"""Seconds that a worker takes for a message whose handler does nothing."""
_IN_ORDER = (ExitReason.SHARE_DONE.value, ExitReason.DRAINED.value)


@dataclass(frozen=True, slots=True)
class Sample:
    """One worker: seconds of a thread per message, over `acked_count` messages; seconds to its start, and from its last acknowledgement to
    its end, None if not known."""

    message_s: float
    acked_count: int
    start_up_s: float | None = None
    idle_tail_s: float | None = None


_FIELDS = attrgetter(*Sample.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class Learned:
    """Samples, oldest first, and the names of the last executions that they came from, so that no execution counts twice. `running` are
    samples of workers that have not ended; they are read anew at each tick, and not kept."""

    samples: tuple[Sample, ...] = ()
    executions: tuple[str, ...] = ()
    running: tuple[Sample, ...] = field(default=(), compare=False)

    def rates(self, quantile: float = CAUTIOUS) -> Rates | None:
        """Rates at this quantile (above 0.5 is cautious); None while nothing is learned."""
        samples = self.samples or self.running
        messages = [(one.message_s, one.acked_count) for one in samples]
        if not messages:
            return None
        return Rates(
            message_s=_quantile(messages, quantile),
            start_up_s=_quantile([(one.start_up_s, 1) for one in samples if one.start_up_s is not None], quantile),
            idle_tail_s=_quantile([(one.idle_tail_s, 1) for one in samples if one.idle_tail_s is not None], quantile),
            quick_message_s=_quantile(messages, 1 - quantile),
            basis=f"{100 * quantile:.0f} % quantile of {counted(len(samples), 'worker')}{'' if self.samples else ' still at work'}",
        )


def learned(before: Learned, executions: Sequence[Worked], concurrency: int, *, is_delayed: bool = False) -> Learned:
    """`before` with the executions that have ended since; `before` itself when there is nothing new. `concurrency`: tasks that a worker of
    the lane runs at a time, unless its execution says otherwise. `is_delayed`: the hours until an execution starts are no start-up."""
    running = tuple(_spread([one for worked in executions if worked.info.live for one in _samples(worked, concurrency, is_delayed)]))
    before = replace(before, running=running) if running or before.running else before
    ended = [one for one in executions if one.info.completed_at is not None and one.info.name not in before.executions]
    in_order = sorted(ended, key=lambda one: one.info.completed_at or 0.0)
    sampled = [(one, found) for one in in_order if (found := _samples(one, concurrency, is_delayed))]
    if not sampled:
        return before
    samples = [*before.samples, *(sample for _, found in sampled for sample in _spread(found))]
    names = [*before.executions, *(one.info.name for one, _ in sampled)]
    return Learned(tuple(samples[-SAMPLES_KEPT:]), tuple(names[-EXECUTIONS_KEPT:]), running)


def _samples(worked: Worked, concurrency: int, is_delayed: bool) -> list[Sample]:
    return [sample for index in sorted(worked.tries) if (sample := _sample(worked, index, concurrency, is_delayed)) is not None]


def _sample(worked: Worked, index: int, concurrency: int, is_delayed: bool) -> Sample | None:
    """None if the worker has acknowledged nothing. Negative durations (clock skew) count as 0."""
    tries = worked.tries[index]
    acked_count = sum(one.acked for one in tries)
    if not acked_count:
        return None
    concurrency = worked.info.count_setting("CONCURRENCY") or concurrency
    handled_s = sum(one.handler_s for one in tries) / acked_count
    message_s = max(handled_s, _occupied_s(tries, concurrency), MIN_MESSAGE_S * concurrency)
    last, begun_at = tries[-1], worked.info.begun_at(is_delayed=is_delayed)
    start_up_s = None if begun_at is None else _digits(max(0.0, tries[0].started_at - begun_at))
    tail_s = last.updated_at - last.last_acked_at if last.last_acked_at and last.exit_reason in _IN_ORDER else None
    return Sample(_digits(message_s), acked_count, start_up_s, None if tail_s is None else _digits(max(0.0, tail_s)))


def _occupied_s(tries: Sequence[Progress], concurrency: int) -> float:
    """Seconds of a thread per message, overhead included, of a worker that was never out of work; 0 if it may have been."""
    (*earlier, last) = tries
    busy = last.exit_reason == ExitReason.SHARE_DONE.value and not earlier and last.acked >= ENOUGH_ROUNDS * concurrency
    return max(0.0, last.last_acked_at - last.started_at) * concurrency / last.acked if busy else 0.0


def _spread(samples: list[Sample]) -> list[Sample]:
    """At most SAMPLES_EACH of them, at equal distances from the quickest to the slowest."""
    if len(samples) <= SAMPLES_EACH:
        return samples
    ordered = sorted(samples, key=lambda one: one.message_s)
    return [ordered[at * (len(ordered) - 1) // (SAMPLES_EACH - 1)] for at in range(SAMPLES_EACH)]


def _quantile(weighted: Sequence[tuple[float, int]], quantile: float) -> float:
    """The smallest value that covers this part of the weight; 0 if there are no values."""
    if not weighted:
        return 0.0
    ordered = sorted(weighted)
    enough = quantile * sum(weight for _, weight in ordered) - 1e-9
    reached = accumulate(weight for _, weight in ordered)
    return next(value for (value, _), weight in zip(ordered, reached, strict=True) if weight >= enough)


def _digits(value: float) -> float:
    return float(f"{value:.4g}")


def to_json(value: Learned) -> dict[str, Any]:
    """Plain JSON, as it stands in the lane's state; without `running`."""
    return {"samples": list(map(_FIELDS, value.samples)), "executions": list(value.executions)}


def from_json(body: Mapping[str, Any]) -> Learned:
    """What `to_json` wrote. Raises KeyError, TypeError or ValueError on anything else."""
    found = read(Learned, {**body, "running": ()})
    if any(number is not None and number < 0 for sample in found.samples for number in _FIELDS(sample)):
        raise ValueError("a sample has less than 0 seconds")
    return found
