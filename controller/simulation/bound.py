"""The clairvoyant bound: worker-seconds that any schedule is billed for which does every message within D of its arrival, whatever it
knows. A true lower bound, and near what can be reached.

**What is counted.** A worker that is alive for l seconds, the first s (start-up) of them without work, is billed max(F, l). A message is w
seconds of a worker's work (seconds of a thread ÷ threads; the same for all), done by D after its arrival. Several workers may share a
message's work, they may be launched before the first arrival, and they have no idle tail: all this only makes schedules cheaper.

**Why it is a bound.** Take any schedule, and the intervals in which its workers can work. Those that touch or overlap make one *period*;
periods follow each other in time. If a later period does a message that arrived before one that an earlier period does, exchange the two:
both are still done after their arrivals and by their deadlines. So periods may be taken to do consecutive messages. A period that does the
messages i to j, of work W, can work at some time up to a_i + D and at some time from a_j on, without a break between: its workers can
work for at least max(W, a_j − a_i − D) seconds together, and they start up at least once. It is billed at least

    cost(i, j) = max(F, s + max(W, a_j − a_i − D)),

and the schedule at least the cheapest sum of such costs over all ways to cut the messages into consecutive groups: best(j) = min over i of
best(i − 1) + cost(i, j). Which i are short enough for F is a sliding window; which of the others cost their work and which their time is
decided by one number a message. So a window's minimum and two trees of minima give best exactly, in n log n.

**Workers side by side.** All that arrives from x to y is done within y + D − x seconds, so by K = ceil(W(x, y) / (y + D − x)) workers at
least, and the schedule is billed at least W + s·K, and at least F·K. The larger of this and of the sum above is taken for each *segment*:
where no message comes for D + s + 2·F, each worker that lives on is replaced, at no more cost, by one that ends with the deadlines before
and one that is launched for what comes after; so the segments' bounds add up.

**Many messages.** An atom is up to q messages that arrive in one bucket of time, as few as keep the atoms to a given number. For the first
message of a group the end of its bucket stands, for the last one the start. A cut through an atom is moved before it: the later period
then seems to have up to (q − 1)·w more work than it has, which is taken off.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import ceil, inf

from controller.simulation.given.arrivals import Arrivals, total

MOST_ATOMS = 100_000
_FEWEST_ATOMS = 500
_EPSILON = 1e-9
_WINDOWS = (0.0, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 16.0)
"""Lengths, in deadlines, of the windows in which workers side by side are counted."""


@dataclass(frozen=True, slots=True)
class Terms:
    """A message is `work_s` seconds of a worker (w) and takes `message_s` from its start to its end; a worker needs `start_up_s` before its
    first (s) and is billed for `floor_s` at least (F); each message is to be done within `within_s` of its arrival. Where even a worker
    that is launched for it is too late, the deadline is what that worker needs."""

    work_s: float
    message_s: float
    start_up_s: float
    floor_s: float
    within_s: float

    @property
    def deadline_s(self) -> float:
        """D: `within_s`, or what one message needs."""
        return max(self.within_s, self.start_up_s + self.message_s)


@dataclass(frozen=True, slots=True)
class Bound:
    """Billed worker-seconds, and how many periods or workers they were computed with."""

    seconds: float
    periods: int

    def __add__(self, other: Bound) -> Bound:
        return Bound(self.seconds + other.seconds, self.periods + other.periods)


def bound_total(lanes: Iterable[tuple[Arrivals, Terms]]) -> Bound:
    """For several lanes: a worker works for one of them only."""
    return sum((bound(arrivals, terms) for arrivals, terms in lanes), Bound(0.0, 0))


def bound(arrivals: Arrivals, terms: Terms, most_atoms: int = MOST_ATOMS) -> Bound:
    """For one lane; 0 for one without messages. Fewer atoms are quicker, and the bound is lower."""
    found, messages = Bound(0.0, 0), total(arrivals)
    for segment in _segments(arrivals, terms):
        least = _side_by_side(segment, terms)
        if segment[-1][0] - segment[0][0] > terms.deadline_s + max(0.0, terms.floor_s - terms.start_up_s):  # else one period does it
            atoms = max(_FEWEST_ATOMS, most_atoms * total(segment) // messages)
            least = max(_in_periods(_atoms(segment, min(atoms, most_atoms)), terms), least, key=lambda one: one.seconds)
        found += least
    return found


def _segments(arrivals: Arrivals, terms: Terms) -> Iterator[Arrivals]:
    """Cut where so long nothing comes that no worker is worth keeping."""
    break_s = terms.deadline_s + terms.start_up_s + 2 * terms.floor_s
    first = 0
    for number in range(1, len(arrivals) + 1):
        if number == len(arrivals) or arrivals[number][0] - arrivals[number - 1][0] >= break_s:
            yield arrivals[first:number]
            first = number


def _side_by_side(arrivals: Arrivals, terms: Terms) -> Bound:
    times = [at_s for at_s, _ in arrivals]
    done = [0.0, *accumulate(count * terms.work_s for _, count in arrivals)]
    most = 1
    for length_s in {*(part * terms.deadline_s for part in _WINDOWS), times[-1] - times[0]}:
        last = 0
        for first, start_s in enumerate(times):
            while last < len(times) and times[last] <= start_s + length_s:
                last += 1
            within_s = times[last - 1] - start_s + terms.deadline_s
            most = max(most, ceil((done[last] - done[first]) / within_s - _EPSILON))
    return Bound(max(most * terms.floor_s, done[-1] + most * terms.start_up_s), most)


@dataclass(frozen=True, slots=True)
class _Atoms:
    """`low` and `high`: between which times an atom's messages arrive; `count`: how many they are."""

    low: Sequence[float]
    high: Sequence[float]
    count: Sequence[int]


def _atoms(arrivals: Arrivals, most_atoms: int) -> _Atoms:
    """Half of the atoms are for buckets, each of which has one at most that is not full, and half for full ones."""
    buckets = _buckets(arrivals, max(2, most_atoms // 2))
    messages = total(arrivals)
    largest = 1 if messages <= most_atoms else ceil(messages / max(1, most_atoms // 2))
    low, high, counts = [], [], []
    for first_s, last_s, count in buckets:
        for number in range(0, count, largest):
            low.append(first_s)
            high.append(last_s)
            counts.append(min(largest, count - number))
    return _Atoms(low, high, counts)


def _buckets(arrivals: Arrivals, most: int) -> list[tuple[float, float, int]]:
    """First and last arrival and count of each bucket, `most` at most: one for each arrival where these are no more."""
    if len(arrivals) <= most:
        return [(at_s, at_s, count) for at_s, count in arrivals]
    width_s = (arrivals[-1][0] - arrivals[0][0]) / (most - 1)
    buckets: list[tuple[float, float, int]] = []
    for at_s, count in arrivals:
        if buckets and at_s - buckets[-1][0] < width_s:
            first_s, _, before = buckets[-1]
            buckets[-1] = (first_s, at_s, before + count)
        else:
            buckets.append((at_s, at_s, count))
    return buckets


class _Minima:
    """Minima over the first positions: a value can be put at a position, and the least of the first `number` positions be asked for."""

    def __init__(self, size: int) -> None:
        self._values: list[tuple[float, int]] = [(inf, -1)] * (size + 1)

    def put(self, position: int, value: tuple[float, int]) -> None:
        number, values = position + 1, self._values
        while number < len(values):
            if value < values[number]:
                values[number] = value
            number += number & -number

    def least(self, number: int) -> tuple[float, int]:
        least, values = (inf, -1), self._values
        while number:
            if values[number] < least:
                least = values[number]
            number &= number - 1
        return least


def _in_periods(atoms: _Atoms, terms: Terms) -> Bound:
    """best(j) of the module's text, over atoms. A period from atom i to j is billed for the floor while i is in `short`, and else for its
    work if the key of i is small, for the time between its arrivals if it is large."""
    low, high, size = atoms.low, atoms.high, len(atoms.low)
    done = [0.0, *accumulate(count * terms.work_s for count in atoms.count)]
    before = [0.0, *(done[i] + (atoms.count[i] - 1) * terms.work_s for i in range(1, size))]  # work that is certainly done by earlier ones
    keys = sorted({before[i] - high[i] for i in range(size)})
    by_work, by_time = _Minima(len(keys)), _Minima(len(keys))
    short: deque[tuple[float, int]] = deque()
    best, periods, first_short = [0.0], [0], 0
    free_s = terms.floor_s - terms.start_up_s
    for j in range(size):
        while short and short[-1][0] >= best[j]:
            short.pop()
        short.append((best[j], j))
        latest_s, work_s = low[j] - terms.deadline_s, done[j + 1]
        while first_short <= j and max(work_s - before[first_short], latest_s - high[first_short]) > free_s:
            i, first_short = first_short, first_short + 1
            position = bisect_left(keys, before[i] - high[i])
            by_work.put(position, (best[i] - before[i], i))
            by_time.put(len(keys) - 1 - position, (best[i] - high[i], i))
            if short and short[0][1] == i:
                short.popleft()
        small = bisect_right(keys, work_s - latest_s)
        work, time = by_work.least(small), by_time.least(len(keys) - small)
        found = [(work[0] + work_s + terms.start_up_s, work[1]), (time[0] + latest_s + terms.start_up_s, time[1])]
        found += [(short[0][0] + terms.floor_s, short[0][1])] if short else []
        seconds, first = min(found)
        best.append(seconds)
        periods.append(periods[first] + 1)
    return Bound(best[-1], periods[-1])
