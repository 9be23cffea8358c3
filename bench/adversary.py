"""An adversary: searches for arrivals, lags, start-ups and message times at which Fanout's sizing is worst.

    python -m bench.adversary                  # 400 examples for each search; a few minutes
    python -m bench.adversary --examples 2000

Each example runs the real ticks in a simulated world and is compared with the clairvoyant bound; hypothesis climbs to where that is worst.
Nothing runs but arithmetic, and the same command finds the same. It prints the worst ten of each search as lines of JSON, each of which
`case_of` reads and `outcome_of` repeats. Costs are billed worker-seconds, at least 60 a worker, as a multiple of the bound.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings, target
from hypothesis import strategies as st

from controller.simulation.given.arrivals import Arrivals, by_second, total
from controller.simulation.given.delays import Lag, StartUp
from controller.simulation.given.durations import Durations, Fixed, HeavyTail, LogNormal
from controller.simulation.given.scenario import Load, Scenario
from controller.simulation.running import run_fanout
from controller.simulation.trials import least_cost_s

MOST_MESSAGES = 3000
LONGEST_S = 7200.0
"""From the first arrival to the last."""
KEPT = 10
ALIKE = 3
PART_FOR_ONE = 1 / 3
"""One worker is enough where it is busy for no larger part of any `drain-within`."""
TICK_S = SAMPLE_S = 60.0


@dataclass(frozen=True, slots=True)
class Burst:
    """`times` times, `every_s` seconds apart, `count` messages come at once, the first time `after_s` seconds after what came before."""

    after_s: int
    count: int
    times: int = 1
    every_s: int = 0


@dataclass(frozen=True, slots=True)
class Case:
    """One example; times in seconds. A message takes `message_s`; with `sigma`, that is the median of a log-normal distribution; with
    `tail_share`, so many take about `tail_s`. `max_wait_s` of None is the default."""

    bursts: tuple[Burst, ...]
    drain_within_s: int
    max_wait_s: int | None
    message_s: float
    lag_s: int
    jitter_s: int = 0
    gap_share: float = 0.0
    start_low_s: int = 4
    start_high_s: int = 12
    sigma: float = 0.0
    tail_share: float = 0.0
    tail_s: float = 0.0
    concurrency: int = 4
    seed: int = 1

    @property
    def arrivals(self) -> Arrivals:
        """As a scenario has them."""
        found, at = [], 0
        for burst in self.bursts:
            at += burst.after_s
            found += [(float(at + number * burst.every_s), burst.count) for number in range(burst.times)]
            at += (burst.times - 1) * burst.every_s
        return by_second(found)

    @property
    def durations(self) -> Durations:
        """How long messages take."""
        if self.tail_share:
            return HeavyTail(self.message_s, self.tail_share, self.tail_s)
        return LogNormal(self.message_s, self.sigma) if self.sigma else Fixed(self.message_s)

    @property
    def is_in_reach(self) -> bool:
        """Whether a message may wait for a sample, its lag, a tick and a start, and still be in time."""
        known_s = self.lag_s + self.jitter_s + SAMPLE_S + TICK_S
        return not (self.gap_share or self.tail_share) and self.drain_within_s >= known_s + self.start_high_s + self._longest_s

    @property
    def _longest_s(self) -> float:
        return self.message_s * (1 + 9 * self.sigma)

    @property
    def is_for_one(self) -> bool:
        """Whether one worker is enough for what comes within any `drain-within`."""
        arrivals, mean_s = self.arrivals, self.durations.mean(0.0)
        first = sum_count = 0
        for at_s, count in arrivals:
            sum_count += count
            while at_s - arrivals[first][0] > self.drain_within_s:
                sum_count -= arrivals[first][1]
                first += 1
            if max(sum_count * mean_s / self.concurrency, self._longest_s) > PART_FOR_ONE * self.drain_within_s:
                return False
        return True

    @property
    def is_bounded(self) -> bool:
        """Whether it takes a moment to run."""
        arrivals = self.arrivals
        return 0 < total(arrivals) <= MOST_MESSAGES and arrivals[-1][0] <= LONGEST_S

    @property
    def scenario(self) -> Scenario:
        """The lane has learned how long its messages take."""
        annotations = {"fanout/drain-within": f"{self.drain_within_s}s", "fanout/max-workers": "3000"}
        annotations |= {} if self.max_wait_s is None else {"fanout/max-wait": f"{self.max_wait_s}s"}
        load = Load(self.arrivals, self.durations, annotations, concurrency=self.concurrency)
        lag, start_up = Lag(self.lag_s, self.jitter_s, self.gap_share), StartUp(self.start_low_s, self.start_high_s)
        horizon_s = load.arrivals[-1][0] + 2 * self.drain_within_s + self.lag_s + 600.0
        return Scenario("adversary", (load,), lag, start_up, horizon_s, self.seed)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one: its cost beside the bound, the share of messages in time, workers in all and those that found nothing."""

    ratio: float
    in_time: float
    waste_count: int
    worker_count: int


@cache
def outcome_of(case: Case) -> Outcome:
    """Runs it."""
    run = run_fanout(case.scenario)
    worker_count = sum(one.worker_count for one in run.counts.values())
    return Outcome(run.cost_s / least_cost_s(run, case.start_low_s), run.in_time_share, run.waste_count, worker_count)


def case_of(fields: Mapping[str, Any]) -> Case:
    """From a line that was printed."""
    return Case(**{**fields, "bursts": tuple(Burst(**one) for one in fields["bursts"])})


BURSTS = st.builds(
    Burst,
    st.one_of(st.integers(0, 120), st.integers(0, 1800)),
    st.one_of(st.integers(1, 4), st.integers(1, 60), st.integers(1, MOST_MESSAGES)),
    st.one_of(st.just(1), st.integers(1, 60)),
    st.one_of(st.integers(1, 90), st.integers(1, 900)),
)
MESSAGES_S = st.one_of(st.sampled_from([0.01, 0.1, 1.0, 5.0, 20.0, 60.0]), st.floats(0.01, 5.0).map(lambda one: round(one, 2)))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Any case that takes a moment."""
    drain_within_s = draw(st.one_of(st.sampled_from([120, 300, 600, 1800]), st.integers(60, 1800)))
    start_low_s = draw(st.integers(0, 20))
    has_tail = draw(st.integers(0, 3)) == 0
    return Case(
        tuple(draw(st.lists(BURSTS, min_size=1, max_size=4))),
        drain_within_s,
        draw(st.one_of(st.none(), st.just(drain_within_s))),
        draw(MESSAGES_S),
        draw(st.one_of(st.sampled_from([0, 60, 120, 180]), st.integers(0, 180))),
        jitter_s=draw(st.one_of(st.just(0), st.integers(0, 60))),
        gap_share=draw(st.sampled_from([0.0, 0.0, 0.1, 0.3])),
        start_low_s=start_low_s,
        start_high_s=start_low_s + draw(st.one_of(st.integers(0, 10), st.integers(0, 70))),
        sigma=draw(st.sampled_from([0.0, 0.0, 0.5, 1.0])),
        tail_share=draw(st.sampled_from([0.01, 0.1])) if has_tail else 0.0,
        tail_s=draw(st.sampled_from([60.0, 300.0, 1800.0])) if has_tail else 0.0,
        concurrency=1 if has_tail else draw(st.sampled_from([1, 4, 16])),  # the bound knows nothing of threads that have nothing to do
        seed=draw(st.integers(1, 5)),
    )


def patient(case: Case) -> Case:
    """The same with as much patience as there may be."""
    return Case(**{**_fields(case), "max_wait_s": case.drain_within_s})


def prompt(case: Case) -> Case:
    """The same, with messages, a gauge and starts that deadlines can be asked of."""
    found = Case(**{**_fields(case), "gap_share": 0.0, "tail_share": 0.0, "tail_s": 0.0, "sigma": min(0.5, case.sigma)})
    least_s = found.lag_s + found.jitter_s + SAMPLE_S + TICK_S + found.start_high_s + found.message_s * (1 + 9 * found.sigma)
    return found if found.is_in_reach else patient_as(found, int(least_s + 1))


def patient_as(case: Case, drain_within_s: int) -> Case:
    """The same with another deadline, and as much patience."""
    max_wait_s = None if case.max_wait_s is None else drain_within_s
    return Case(**{**_fields(case), "drain_within_s": drain_within_s, "max_wait_s": max_wait_s})


def _fields(case: Case) -> dict[str, Any]:
    return {name: getattr(case, name) for name in Case.__dataclass_fields__}


@dataclass(frozen=True, slots=True)
class Search:
    """Which cases are searched, and what is worse: the larger the worse."""

    strategy: st.SearchStrategy[Case]
    badness: Callable[[Outcome], float]


ANY = cases().filter(lambda case: case.is_bounded)
SEARCHES: Mapping[str, Search] = {
    "waiting": Search(ANY.map(prompt).map(patient).filter(lambda case: case.is_for_one), lambda one: one.ratio),
    "cost": Search(ANY, lambda one: one.ratio),
    "late": Search(ANY.map(prompt), lambda one: 1 - one.in_time),
    "empty": Search(ANY.map(prompt), lambda one: one.waste_count),
}


def worst_of(search: Search, examples: int, number: int = 1) -> list[tuple[Case, Outcome]]:
    """The worst that so many examples find, worst first; `number` is the seed."""
    found: dict[Case, Outcome] = {}

    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.target],
        suppress_health_check=list(HealthCheck),
    )
    @seed(number)
    @given(search.strategy)
    def look(case: Case) -> None:
        found[case] = outcome_of(case)
        target(search.badness(found[case]))

    look()
    return sorted(found.items(), key=lambda pair: -search.badness(pair[1]))


def distinct(found: Sequence[tuple[Case, Outcome]], kept: int = KEPT) -> list[tuple[Case, Outcome]]:
    """The first so many that differ from each other in more than a field or two: a search that climbs looks at many like its best."""
    chosen: list[tuple[Case, Outcome]] = []
    for case, outcome in found:
        if len(chosen) < kept and all(_differs(case, other) for other, _ in chosen):
            chosen.append((case, outcome))
    return chosen


def _differs(case: Case, other: Case) -> bool:
    fields = [name for name in _fields(case) if name != "bursts" and getattr(case, name) != getattr(other, name)]
    mine, others = ([(one.count, one.times) for one in each.bursts] for each in (case, other))
    return len(fields) + int(mine != others) > ALIKE


def main() -> None:
    """Every search."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--examples", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--search", choices=SEARCHES, action="append")
    asked = parser.parse_args()
    for name in asked.search or SEARCHES:
        found = worst_of(SEARCHES[name], asked.examples, asked.seed)
        badness = [SEARCHES[name].badness(outcome) for _, outcome in found]
        print(f"{name}: {len(found)} cases, the worst {badness[0]:.3f}, the middle {badness[len(found) // 2]:.3f}")
        for case, outcome in distinct(found):
            print(json.dumps({"search": name, **asdict(outcome), "case": asdict(case)}))


if __name__ == "__main__":
    main()
