"""Learned rates: the seconds that a message and a worker of a lane take, with their spread. Pure.

`learned` adds the executions that have ended since; the result is kept in the lane's state. `Learned.rates` is what a decision uses.

What counts is handler seconds per message, as a mean within a worker and a cautious quantile over workers. A mean, for a thread works off
many messages one after the other: how long that takes is their sum, and the middle of a skewed distribution would promise too little. A
quantile over workers, for a drain is over when its slowest worker is; and it is the usual remedy for a mean that a few outliers spoil.
Within a worker its longest message counts at most 2 * sqrt(n) times the mean of its others: of n messages that spread as those of most
queues do, hardly any takes longer; what does is one of a kind, and says little of the next ones. The slowest message of all that is known
counts for nothing in a cautious quantile.

Seconds in which a worker had messages and no handler ran (pulls, acknowledgements, results) count beside that, from workers that were
never out of work; for messages of milliseconds they are most of it. Their median counts for all: it depends on machines, not on messages.
And so does the time by which a worker's threads end apart, where single messages are long.

A sample weighs half after HALF_LIFE_S: a queue's messages differ from hour to hour, and a lane that is used once a day still has
yesterday's. And what works now, or has ended lately, counts alone as soon as it is clearly slower or quicker than what was learned before
(`_clearly`), whatever there is of that.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, groupby
from math import ceil, inf, sqrt
from operator import attrgetter
from typing import Any

from batch.model.exit import ExitReason
from batch.model.progress import Progress
from batch.prices import WORKER_FLOOR_S
from controller.decide.sizing import Rates
from controller.model.execution import Worked
from controller.model.plain import read
from controller.model.wording import brief, counted, spoken

CAUTIOUS = 0.8
"""The quantile that decisions use: four of five messages, and four of five workers, took no longer."""
SAMPLES_KEPT = 100
SAMPLES_EACH = 25
"""Of one execution: a large one must not push out all others."""
EXECUTIONS_KEPT = 50
HALF_LIFE_S = 2 * 3600.0
LATELY_S = (0.0, 300.0, 900.0)
"""What works now, or has ended within so many seconds, is compared with what was learned before, the newest first."""
FEW = 3
"""Messages that show, at the least, that others take longer now: one or two may be stragglers."""
ENOUGH = 20
"""Messages after which a worker's mean is known well enough: more of them do not weigh more."""
ENOUGH_ROUNDS = 20
"""Minimum messages per thread before the overhead of a worker can be estimated: with fewer, its start and end would count as overhead. And
before others can show that messages are quicker now: the first to be done are always the quick ones."""
MIN_MESSAGE_S = 0.00005
"""Seconds that a worker takes for a message whose handler does nothing."""
START_ONCE_S = 90.0
"""The most that a start counts while only one execution has shown any: a slow one is not typical before it was seen twice."""
_IN_ORDER = (ExitReason.SHARE_DONE.value, ExitReason.DRAINED.value)


@dataclass(frozen=True, slots=True)
class Sample:
    """One worker: handler seconds per message, over `acked_count` messages and those `unfinished_count` that its handlers run; seconds to
    its start, and from its last acknowledgement to its end, None if not known. `ended_at` (Unix seconds) is its end, of one that is kept
    that of its execution; None while it works. `overhead_s`: seconds of a thread per message beside the handler's; `uneven_s`: how many
    seconds the worker took longer than an even split of its messages over its threads would; None if not known."""

    message_s: float
    acked_count: int
    start_up_s: float | None = None
    idle_tail_s: float | None = None
    ended_at: float | None = 0.0
    overhead_s: float | None = None
    uneven_s: float | None = None
    unfinished_count: int = 0


_FIELDS = attrgetter(*Sample.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class Learned:
    """Samples, oldest first, and the names of the last executions that they came from, so that no execution counts twice. `running` are
    samples of executions that have not ended; they are read anew at each tick, and not kept."""

    samples: tuple[Sample, ...] = ()
    executions: tuple[str, ...] = ()
    running: tuple[Sample, ...] = field(default=(), compare=False)

    def rates(self, now: float, quantile: float = CAUTIOUS) -> Rates | None:
        """Rates at `now` (Unix seconds), at this quantile (above 0.5 is cautious); None while nothing is learned."""
        samples, whose = self._that_count(now)
        if not samples:
            return None
        messages, kept = _weighed(samples), _aged(self.samples)
        known = _aged([*self.samples, *self.running]) if self.running else kept
        overhead_s = Spread((one.overhead_s, weight) for one, weight in known if one.overhead_s is not None).quantile(0.5)
        uneven = Spread((one.uneven_s, weight) for one, weight in known if one.uneven_s is not None)
        executions = [list(group) for _, group in groupby(kept, lambda of: of[0].ended_at)]
        executions += [[(one, 1.0) for one in self.running]] if self.running else []
        return Rates(
            message_s=_without_slowest(messages, quantile) + overhead_s,
            start_up_s=_typical(executions, attrgetter("start_up_s"), quantile, START_ONCE_S),
            idle_tail_s=_typical(executions, attrgetter("idle_tail_s"), quantile),
            quick_message_s=messages.quantile(1 - quantile) + overhead_s,
            uneven_s=_without_slowest(uneven, quantile),
            basis=f"{100 * quantile:.0f} % quantile of {counted(len(samples), 'worker')}{whose}",
        )

    def _that_count(self, now: float) -> tuple[Sequence[Sample], str]:
        """The samples that tell how long a message takes now, and which ones they are, in words."""
        if not self.samples:
            return self.running, " still at work"
        known = [*self.samples, *self.running]
        for within_s in LATELY_S:
            lately = [one for one in known if one.ended_at is None or now - one.ended_at < within_s]
            if sum(one.acked_count + one.unfinished_count for one in lately) < FEW or len(lately) == len(known):
                continue
            before = _weighed([one for one in known if one.ended_at is not None and now - one.ended_at >= within_s])
            clearly = _clearly(lately, before)
            if clearly:
                whose = f" of the last {spoken(within_s)}" if within_s else " still at work"
                return lately, f"{whose}: clearly {clearly} than the {brief(before.quantile(CAUTIOUS))} learned before"
        return self.samples, ""


class Spread:
    """Values with weights, in order."""

    __slots__ = ("_reached", "_values")

    def __init__(self, weighted: Iterable[tuple[float, float]]) -> None:
        ordered = sorted(weighted)
        self._values = [value for value, _ in ordered]
        self._reached = list(accumulate([weight for _, weight in ordered]))

    def quantile(self, part: float, left_out: float = 0.0) -> float:
        """The smallest value that covers this part (0 to 1) of the weight, and no more than leaves out so much of it; 0 if there are no
        values."""
        if len(self._values) < 2:
            return self._values[0] if self._values else 0.0
        whole = self._reached[-1]
        return self._values[bisect_left(self._reached, min(part * whole, whole - left_out) - 1e-9)]


def _typical(
    executions: Sequence[Sequence[tuple[Sample, float]]],
    seconds: Callable[[Sample], float | None],
    quantile: float,
    once_s: float = inf,
) -> float:
    """Of each execution the quantile over its workers, and of these the quantile over executions, without the longest if there are others;
    one alone counts up to `once_s`."""
    each: list[tuple[float, float]] = []
    for group in executions:
        told = [(value, weight) for one, weight in group if (value := seconds(one)) is not None]
        if told:
            each.append((Spread(told).quantile(quantile) if told[1:] else told[0][0], told[0][1]))
    found = _without_slowest(Spread(each), quantile)
    return min(found, once_s) if len(each) == 1 else found


def _clearly(lately: Sequence[Sample], before: Spread) -> str:
    """Whether those messages take clearly longer ("slower") or shorter ("quicker") than these; empty if neither. The fewer they are, the
    more so: 2.7 times as long for 3 messages, 1.8 times for 20, 1.5 times for 100. Means of so many log-normal messages (sigma 1)
    differ by that much about once in forty times."""
    acked_count, unfinished_count = sum(one.acked_count for one in lately), sum(one.unfinished_count for one in lately)
    new, times = _weighed(lately), 1.25 * (1 + 2 / sqrt(acked_count + unfinished_count))
    if new.quantile(0.5) >= times * before.quantile(CAUTIOUS):
        return "slower"
    steady = acked_count >= ENOUGH_ROUNDS * max(1, unfinished_count)
    return "quicker" if steady and times * new.quantile(CAUTIOUS) <= before.quantile(1 - CAUTIOUS) else ""


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
    """None if the worker has acknowledged nothing, and runs nothing. Negative durations (clock skew) count as 0."""
    tries = worked.tries[index]
    last, ended_at = tries[-1], worked.ended_at(index)
    works = ended_at is None and not last.exit_reason
    message_s, count = _message_s(tries, works=works)
    if not count:
        return None
    concurrency = worked.info.count_setting("CONCURRENCY") or concurrency
    begun_at = worked.info.begun_at(is_delayed=is_delayed)
    start_up_s = None if begun_at is None else _digits(max(0.0, tries[0].started_at - begun_at))
    overhead_s, uneven_s = _beside_s(tries, message_s, concurrency)
    return Sample(
        _digits(max(message_s, MIN_MESSAGE_S * concurrency)),
        sum(one.acked for one in tries),
        start_up_s,
        _idle_tail_s(tries),
        None if works else round(last.updated_at if worked.info.completed_at is None else worked.info.completed_at),
        overhead_s,
        uneven_s,
        len(last.running) if works else 0,
    )


def _message_s(tries: Sequence[Progress], *, works: bool) -> tuple[float, int]:
    """Handler seconds per message, and over how many messages. Of a worker that works, what its handlers run counts as if it ended now, if
    that is longer: what it has acknowledged so far may be but the quick part."""
    last = tries[-1]
    acked_count, handler_s = sum(one.acked for one in tries), sum(one.handler_s for one in tries)
    elapsed_s = [max(0.0, last.updated_at - one.since - 1) for one in last.running] if works else []
    longest_s = max((one.longest_s for one in tries), default=0.0)
    acked = _mean_s(handler_s, sum(max(one.acked, one.handled) for one in tries), longest_s)
    whole = (
        _mean_s(handler_s + sum(elapsed_s), acked_count + max(last.held, len(elapsed_s)), max([longest_s, *elapsed_s]))
        if elapsed_s
        else 0.0
    )
    return max(acked, whole), acked_count + len(elapsed_s)


def _mean_s(total_s: float, count: int, longest_s: float) -> float:
    """Seconds per message, of which the longest counts at most 2 * sqrt(count) times the mean of the others."""
    if count < 2:
        return total_s / max(1, count)
    others_s = max(0.0, total_s - longest_s)
    return (others_s + min(total_s - others_s, 2 * sqrt(count) * others_s / (count - 1))) / count


def _beside_s(tries: Sequence[Progress], message_s: float, concurrency: int) -> tuple[float | None, float | None]:
    """Of a worker that was never out of work (it took its share, no more, and has done it in one try): seconds of a thread per message
    beside its handler's, and how many seconds it took longer than an even split over its threads. None if not known. While its longest
    message ran, its other threads may have been out of work: that is no overhead, and uneven is only what may come again of it."""
    (*earlier, last) = tries
    if last.exit_reason != ExitReason.SHARE_DONE.value or earlier or last.taken > last.share or not last.acked:
        return None, None
    busy_s = last.last_acked_at - last.started_at
    overhead_s = None
    if last.acked >= ENOUGH_ROUNDS * concurrency:
        overhead_s = _digits(max(0.0, (busy_s - last.longest_s) * concurrency - (last.handler_s - last.longest_s)) / last.acked)
    once_s = max(0.0, last.handler_s - message_s * last.acked)
    even_s = ceil(last.acked / concurrency) * (message_s + (overhead_s or 0.0))
    return overhead_s, _digits(max(0.0, busy_s - once_s - even_s))


def _idle_tail_s(tries: Sequence[Progress]) -> float | None:
    """Seconds from the last acknowledgement to the end. Of a worker that ended within the time that is paid for anyway it is not known: it
    may have stayed because that costs nothing."""
    last = tries[-1]
    if last.exit_reason not in _IN_ORDER or not last.last_acked_at or last.updated_at - tries[0].started_at <= WORKER_FLOOR_S:
        return None
    return _digits(max(0.0, last.updated_at - last.last_acked_at))


def _spread(samples: list[Sample]) -> list[Sample]:
    """At most SAMPLES_EACH of them, at equal distances from the quickest to the slowest."""
    if len(samples) <= SAMPLES_EACH:
        return samples
    ordered = sorted(samples, key=lambda one: one.message_s)
    return [ordered[at * (len(ordered) - 1) // (SAMPLES_EACH - 1)] for at in range(SAMPLES_EACH)]


def _aged(samples: Sequence[Sample]) -> list[tuple[Sample, float]]:
    """Each with what its age leaves of its weight, compared with the newest."""
    newest = max((one.ended_at or 0.0 for one in samples), default=0.0)
    return [(one, 1.0 if one.ended_at is None else 0.5 ** ((newest - one.ended_at) / HALF_LIFE_S)) for one in samples]


def _weighed(samples: Sequence[Sample]) -> Spread:
    """Seconds per message, with their weight: by messages and by age."""
    return Spread([(one.message_s, weight * min(one.acked_count + one.unfinished_count, ENOUGH)) for one, weight in _aged(samples)])


def _without_slowest(spread: Spread, quantile: float) -> float:
    """The quantile, but never the slowest one (a message, or an execution, has weight 1) if there are others."""
    return spread.quantile(quantile, left_out=1.0)


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
