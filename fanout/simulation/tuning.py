"""The search for the cheapest settings of a lane that meet a target, in few simulated runs. Pure: a run comes in as a function.

Two settings are looked for: how long messages may wait for more (`fanout/max-wait`), and how many workers there may be. A longer wait and
fewer workers cost less until the target is missed, so each is tried from the easy side on, with one seed; what looks best is run with all.
Where no wait is in time, more workers are tried.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from fanout.simulation.comparing import NO_CHANGES, Outcome, in_time_of

DRAIN_WITHIN, MAX_WAIT, MAX_WORKERS = "fanout/drain-within", "fanout/max-wait", "fanout/max-workers"
WAITS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Parts of the target's time."""
MORE = (2, 5)
"""So many times the workers are tried where none of the waits meets the target."""
FINALISTS = 4
Changes = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Target:
    """`share` (0 to 1) of the messages within `within_s` seconds of when they could first be taken."""

    share: float
    within_s: float


@dataclass(frozen=True, slots=True)
class Tried:
    """Settings, and what came of them with some seeds."""

    changes: Changes
    outcomes: tuple[Outcome, ...]

    @property
    def cost_usd(self) -> float:
        """Of one run, in the mean."""
        return mean(one.cost_usd for one in self.outcomes)

    @property
    def ratio(self) -> float:
        """The cost as a multiple of the bound, in the mean."""
        return mean(one.ratio for one in self.outcomes)

    @property
    def in_time(self) -> float:
        """Over all runs."""
        return in_time_of(self.outcomes)


@dataclass(frozen=True, slots=True)
class Tuning:
    """`after` meets the target, unless `is_met` is false: then it is what comes nearest. `is_complete`: there was time for the whole
    search."""

    before: Tried
    after: Tried
    is_met: bool
    run_count: int
    is_complete: bool


class _Search:
    """Runs, counted; no new one once the time is used up."""

    def __init__(self, run: Callable[[Changes, int], Outcome], seeds: Sequence[int], is_over: Callable[[], bool]) -> None:
        self._run, self.seeds, self._is_over = run, seeds, is_over
        self.run_count, self.is_complete = 0, True

    def first(self, changes: Changes) -> Tried | None:
        """With one seed; None when there is no time."""
        if self._is_over():
            self.is_complete = False
            return None
        self.run_count += 1
        return Tried(changes, (self._run(changes, self.seeds[0]),))

    def full(self, one: Tried) -> Tried:
        """With all seeds."""
        self.run_count += len(self.seeds) - 1
        return Tried(one.changes, (*one.outcomes, *(self._run(one.changes, seed) for seed in self.seeds[1:])))


def tuned(
    run: Callable[[Changes, int], Outcome],
    target: Target,
    workers: tuple[int, int],
    seeds: Sequence[int],
    is_over: Callable[[], bool],
    *,
    may_not_wait: bool = True,
) -> Tuning:
    """`run` simulates the lane with changes and a seed, in time by the target; `workers` are the fewest and most that the lane may have.
    `is_over` says that no time is left. Where a lane's messages wait for others, one that never waits cannot be (`may_not_wait`)."""
    search = _Search(run, seeds, is_over)
    before = search.full(Tried(NO_CHANGES, (run(NO_CHANGES, seeds[0]),)))
    search.run_count += 1
    found = [
        one
        for part in WAITS
        if (part or may_not_wait) and (one := search.first(_settings(target, part * target.within_s, workers[1]))) is not None
    ]
    for number in _numbers(workers, may_be_fewer=any(one.in_time >= target.share for one in found)):
        one = search.first(_settings(target, _wait_s(_ranked(found, target)[0].changes), number)) if found else None
        found += [one] if one is not None else []
        if one is None or (one.in_time >= target.share) == (number > workers[1]):
            break
    finalists = []
    for one in _ranked(found, target)[:FINALISTS]:
        finalists.append(search.full(one))
        if finalists[-1].in_time >= target.share:
            break
    after = _ranked([*finalists, before], target)[0]
    return Tuning(before, after, after.in_time >= target.share, search.run_count, search.is_complete)


def _numbers(workers: tuple[int, int], *, may_be_fewer: bool) -> list[int]:
    """Of workers, the next to be tried first: half and half again down to the fewest, or more."""
    least, most = max(1, workers[0]), workers[1]
    if not may_be_fewer:
        return [most * times for times in MORE]
    halves = (most >> times for times in range(1, most.bit_length()))
    return [number for number in halves if number >= least]


def _settings(target: Target, wait_s: float, workers: int) -> Changes:
    return {DRAIN_WITHIN: f"{target.within_s:g}s", MAX_WAIT: f"{wait_s:g}s", MAX_WORKERS: str(workers)}


def _wait_s(changes: Changes) -> float:
    return float(changes[MAX_WAIT].removesuffix("s"))


def _ranked(tried: Sequence[Tried], target: Target) -> list[Tried]:
    """What meets the target first, the cheapest of it first; then what comes nearest to it."""
    return sorted(tried, key=lambda one: (0.0, one.cost_usd) if one.in_time >= target.share else (1 - one.in_time, one.cost_usd))
