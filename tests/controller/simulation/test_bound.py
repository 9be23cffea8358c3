"""The bound: below every schedule that there is, and no further below than it must be."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from math import ceil
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from controller.simulation.bound import MOST_ATOMS, Bound, Terms, bound, bound_total
from controller.simulation.given.arrivals import Arrivals, by_second, total
from controller.simulation.given.patterns import PATTERNS

Worker = tuple[int, int]
"""Launched at, billed for this long, on a grid of whole seconds; a message is one second of work."""


def drains(workers: list[Worker], arrivals: Arrivals, start_up: int, within: int) -> bool:
    """Whether the workers process all in time, the earliest message first, which is the best that they can do."""
    waiting: list[int] = []
    coming = {int(at_s): count for at_s, count in arrivals}
    for now in range(max([*coming, 0]) + within + 1):
        waiting += [now] * coming.get(now, 0)
        if waiting and waiting[0] + within <= now:
            return False
        able = sum(launched + start_up <= now < launched + length for launched, length in workers)
        del waiting[:able]
    return not waiting


def cheaper_schedules(arrivals: Arrivals, terms: Terms, below_s: float) -> Iterator[list[Worker]]:
    """Every set of workers on the grid that costs less; one that is billed for the floor stays for the floor."""
    start_up, last = int(terms.start_up_s), int(arrivals[-1][0]) + int(terms.within_s)
    shortest = max(start_up + 1, int(terms.floor_s))
    kinds = [(launched, length) for length in range(shortest, last + start_up + 1) for launched in range(-start_up, last)]

    def more(chosen: list[Worker], first: int, left_s: float) -> Iterator[list[Worker]]:
        for number in range(first, len(kinds)):
            if kinds[number][1] >= left_s - 1e-6:
                return  # the kinds are in order of length
            yield [*chosen, kinds[number]]
            yield from more([*chosen, kinds[number]], number, left_s - kinds[number][1])

    return more([], 0, below_s)


SMALL = st.lists(st.tuples(st.integers(0, 9), st.integers(1, 2)), min_size=2, max_size=4).map(
    lambda pairs: by_second((float(at_s), count) for at_s, count in pairs)
)


@settings(max_examples=25, deadline=None)
@given(SMALL, st.integers(0, 1), st.integers(1, 3), st.integers(1, 2), st.sampled_from([2, 3, 4, MOST_ATOMS]))
@example(((0.0, 1), (1.0, 1), (4.0, 1), (7.0, 1)), 0, 1, 2, MOST_ATOMS)
def test_no_schedule_is_cheaper(arrivals: Arrivals, start_up: int, floor_s: int, within: int, most_atoms: int) -> None:
    terms = Terms(work_s=1.0, start_up_s=float(start_up), floor_s=float(floor_s), within_s=float(within), message_s=0.0)
    found = bound(arrivals, terms, most_atoms)
    for workers in islice(cheaper_schedules(arrivals, terms, found.seconds), 2000):
        assert not drains(workers, arrivals, start_up, within), f"{workers} cost less than {found}"


def by_definition(arrivals: Arrivals, terms: Terms) -> float:
    """The cheapest sum over all ways to cut the messages into groups."""
    messages = [at_s for at_s, count in arrivals for _ in range(count)]
    best = [0.0]
    for j in range(len(messages)):
        costs = []
        for i in range(j + 1):
            alive_s = max((j - i + 1) * terms.work_s, messages[j] - messages[i] - terms.deadline_s)
            costs.append(best[i] + max(terms.floor_s, terms.start_up_s + alive_s))
        best.append(min(costs))
    return best[-1]


ANY_TERMS = st.builds(
    Terms, *(st.floats(0.01, 20.0), st.floats(0.1, 30.0), st.floats(0.0, 60.0), st.floats(0.0, 60.0), st.floats(1.0, 300.0))
)
ANY_ARRIVALS = st.lists(st.tuples(st.integers(0, 900), st.integers(1, 4)), min_size=1, max_size=15).map(
    lambda pairs: by_second((float(at_s), count) for at_s, count in pairs)
)


@settings(max_examples=50, deadline=None)
@given(ANY_ARRIVALS, ANY_TERMS)
def test_the_trees_find_the_minimum_of_the_definition(arrivals: Arrivals, terms: Terms) -> None:
    found = bound(arrivals, terms).seconds
    assert found >= by_definition(arrivals, terms) - 1e-6
    work_s = total(arrivals) * terms.work_s
    if work_s <= terms.deadline_s:  # one worker is enough at any time
        assert found == pytest.approx(by_definition(arrivals, terms))


@settings(max_examples=60, deadline=None)
@given(ANY_ARRIVALS, ANY_TERMS, st.integers(2, 30))
@example(((0.0, 5), (150.0, 80), (300.0, 5)), Terms(1.0, 1.0, 10.0, 60.0, 100.0), 6)  # a cut goes through the largest atom
@example(tuple((5.0 * number, 1) for number in range(60)), Terms(0.1, 1.0, 20.0, 0.0, 30.0), 16)  # a bucket has several times
def test_fewer_atoms_only_make_it_lower(arrivals: Arrivals, terms: Terms, most_atoms: int) -> None:
    assert bound(arrivals, terms, most_atoms).seconds <= bound(arrivals, terms).seconds + 1e-6


TEN_MINUTES = Terms(work_s=0.5, message_s=2.0, start_up_s=8.0, floor_s=60.0, within_s=600.0)


@pytest.mark.parametrize("count", [1, 90, 1200, 1201, 50_000, 3_000_000])
def test_a_batch_needs_its_work_and_the_start_ups_of_its_workers(count: int) -> None:
    workers = ceil(count * 0.5 / 600.0)
    assert bound(((0.0, count),), TEN_MINUTES).seconds == pytest.approx(max(60.0, count * 0.5 + 8.0 * workers))


def test_a_steady_flow_needs_its_work_and_a_start_up_each_time_the_deadlines_force_one() -> None:
    arrivals = tuple((float(at_s), 1) for at_s in range(8000))  # half a worker
    found = bound(arrivals, Terms(0.5, 2.0, 10.0, 60.0, 600.0))
    assert found.seconds == pytest.approx(4000 + 10 * found.periods, abs=10)
    assert found.periods == pytest.approx(8000 / 1200, abs=1.1)


def test_a_steady_flow_reaches_it() -> None:
    arrivals = tuple((float(2 * number), 1) for number in range(200))
    terms = Terms(1.0, 1.0, 5.0, 20.0, 100.0)
    workers = [(launched, min(100, 400 - launched + 5) + 5) for launched in range(95, 400, 200)]
    assert drains(workers, arrivals, 5, 105)
    assert sum(length for _, length in workers) <= 1.05 * bound(arrivals, terms).seconds


def test_a_trickle_reaches_it() -> None:
    arrivals = tuple((float(45 * number), 1) for number in range(160))
    found = bound(arrivals, Terms(1.0, 1.0, 8.0, 60.0, 600.0))
    workers = [(launched, 60) for launched in range(590, 7900, 650)]
    assert drains(workers, arrivals, 8, 600)
    assert found.seconds <= 60 * len(workers) <= 1.1 * found.seconds


def test_a_burst_is_shared_by_the_periods_before_and_after_it() -> None:
    arrivals = ((0.0, 5), (150.0, 80), (300.0, 5))  # one period: 210; the burst left whole: 60 + 95
    assert bound(arrivals, Terms(1.0, 1.0, 10.0, 60.0, 100.0)).seconds == pytest.approx(120.0)


def test_bursts_that_are_far_apart_add_up() -> None:
    once = bound(((0.0, 5000), (20.0, 5000)), TEN_MINUTES)
    thrice = tuple((start_s + at_s, 5000) for start_s in (0.0, 3600.0, 7200.0) for at_s in (0.0, 20.0))
    assert bound(thrice, TEN_MINUTES).seconds == pytest.approx(3 * once.seconds)
    assert bound_total([(thrice, TEN_MINUTES), (((0.0, 5000), (20.0, 5000)), TEN_MINUTES), ((), TEN_MINUTES)]).seconds == pytest.approx(
        4 * once.seconds
    )
    assert bound((), TEN_MINUTES) == Bound(0.0, 0)


def test_a_deadline_that_no_worker_can_meet_is_what_one_needs() -> None:
    arrivals = tuple((float(at_s), 1) for at_s in range(0, 1000, 10))
    hopeless = Terms(5.0, 30.0, 40.0, 60.0, 10.0)
    assert hopeless.deadline_s == 70.0
    assert bound(arrivals, hopeless) == bound(arrivals, Terms(5.0, 30.0, 40.0, 60.0, 70.0))


@settings(max_examples=40, deadline=None)
@given(ANY_ARRIVALS, ANY_TERMS)
def test_more_time_and_fewer_messages_cost_no_more(arrivals: Arrivals, terms: Terms) -> None:
    longer = Terms(terms.work_s, terms.message_s, terms.start_up_s, terms.floor_s, terms.within_s + 40.0)
    assert bound(arrivals, longer).seconds <= bound(arrivals, terms).seconds + 1e-6
    assert bound(arrivals[:-1], terms).seconds <= bound(arrivals, terms).seconds + 1e-6


@pytest.mark.parametrize("name", PATTERNS)
def test_every_pattern_is_bounded_quickly_and_between_its_work_and_a_worker_each(name: str) -> None:
    pattern = PATTERNS[name]
    horizon_s = min(pattern.horizon_s, 7200.0)
    arrivals = pattern.arrivals(Random(1), horizon_s, 1.0)
    found = bound(arrivals, TEN_MINUTES, 3000)
    work_s = total(arrivals) * 0.5
    assert work_s <= found.seconds <= work_s + 60.0 * len(arrivals) + 8.0 * work_s / 600.0 + 8.0
