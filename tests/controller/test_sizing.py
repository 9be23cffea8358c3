"""Sizing against brute force: every number of workers is tried, and none is better than the one that was chosen."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.decide.sizing import Rates, WorkerCost, cheapest, cost_usd, drain_s, most_in_timeout, workers_in_time

BACKLOGS = st.integers(1, 20_000)
SECONDS = st.one_of(st.just(0.0), st.floats(0.001, 100.0))
RATES = st.builds(Rates, message_s=st.floats(0.001, 60.0), start_up_s=SECONDS, idle_tail_s=SECONDS)
WORKERS = st.builds(WorkerCost, concurrency=st.integers(1, 64), usd_per_s=st.floats(1e-6, 1e-3), floor_s=st.sampled_from([0.0, 1.0, 60.0]))


@given(BACKLOGS, st.floats(1.0, 3600.0), RATES, st.floats(0.0, 0.5), WORKERS, st.integers(1, 500), st.integers(1, 500))
def test_it_is_in_time_whenever_any_allowed_number_is_and_none_that_is_costs_less(
    backlog: int, within_s: float, rates: Rates, uneven: float, worker: WorkerCost, one: int, other: int
) -> None:
    rates = replace(rates, uneven_s=uneven * max(0.0, within_s - rates.start_up_s))
    least, most = min(one, other), max(one, other)
    chosen = cheapest(backlog, within_s, rates, worker, least, most)
    assert least <= chosen <= most
    # A hair on either side of the limit belongs to rounding, not to the choice.
    clearly = [number for number in range(least, most + 1) if drain_s(backlog, number, rates, worker) <= within_s * (1 - 1e-6)]
    if not clearly:
        return
    assert drain_s(backlog, chosen, rates, worker) <= within_s * (1 + 1e-6)
    best = min(cost_usd(backlog, number, rates, worker) for number in clearly)
    assert cost_usd(backlog, chosen, rates, worker) <= best * (1 + 1e-9)


@given(BACKLOGS, BACKLOGS, st.floats(1.0, 3600.0), RATES, WORKERS, st.integers(1, 500))
def test_more_backlog_never_means_fewer_workers(one: int, other: int, within_s: float, rates: Rates, worker: WorkerCost, most: int) -> None:
    fewer, more = min(one, other), max(one, other)
    assert cheapest(fewer, within_s, rates, worker, 1, most) <= cheapest(more, within_s, rates, worker, 1, most)


def test_free_workers_are_taken_when_starting_costs_nothing() -> None:
    """600 s of work in one thread cost the same with 1 worker and with 10 of a full minute each."""
    worker = WorkerCost(concurrency=1, usd_per_s=0.00002)
    assert cheapest(600, 3600.0, Rates(1.0), worker, 1, 100) == 10
    assert cheapest(600, 3600.0, Rates(1.0, start_up_s=5.0), worker, 1, 100) == 1


@pytest.mark.parametrize(
    ("backlog", "within_s", "expected"),
    [(10_000, 110.0, 100), (10_000, 60.0, 200), (10_000, 10.0, 1000), (1, 600.0, 1), (100, 10_010.0, 1)],
)
def test_the_fewest_in_time_by_hand(backlog: int, within_s: float, expected: int) -> None:
    """Messages of 1 s, one thread, 10 s to start: of 110 s 100 are left, so 100 messages a worker. Of 10 s none is left: 10 s of work."""
    assert workers_in_time(backlog, within_s, Rates(1.0, start_up_s=10.0), WorkerCost(1, 0.00002)) == expected


@pytest.mark.parametrize(("uneven_s", "expected"), [(0.0, 10), (40.0, 17), (50.0, 20), (1000.0, 20)])
def test_for_the_longest_message_half_of_the_time_is_kept_at_most(uneven_s: float, expected: int) -> None:
    """Of 110 s 100 are left after the start. More workers do not make a message of 1,000 s shorter."""
    rates = Rates(1.0, start_up_s=10.0, uneven_s=uneven_s)
    assert workers_in_time(1000, 110.0, rates, WorkerCost(1, 0.00002)) == expected


def test_a_share_fits_into_the_task_timeout() -> None:
    assert most_in_timeout(100.0, Rates(1.0), WorkerCost(1, 0.00002)) == 80  # of 1 s each, in 80 % of the timeout
    assert most_in_timeout(100.0, Rates(1.0, start_up_s=3600.0), WorkerCost(1, 0.00002)) == 80  # the timeout counts from the start
