"""KEDA's formulas, row by row as its ScaledJob executor has them; and what each strategy sees."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.decide.sizing import Rates, WorkerCost
from controller.decide.strategies import Demand, Wanted, wanted
from controller.model.lane import Policy, Strategy

NOTHING_RUNS = Demand(
    Policy(share=10),
    known_count=0,
    unassigned_count=0,
    live_workers=0,
    pending_workers=0,
    within_s=600.0,
    rates=None,
    worker=WorkerCost(8, 0.00002),
)


def workers(strategy: Strategy, queue: int, running: int, pending: int, most: int, *, least: int = 0, target: int = 1) -> int:
    policy = Policy(share=target, min_workers=least, max_workers=most)
    demand = replace(NOTHING_RUNS, policy=policy, known_count=queue, unassigned_count=queue, live_workers=running, pending_workers=pending)
    return by(strategy, demand).workers


def by(strategy: Strategy, demand: Demand) -> Wanted:
    return wanted(replace(demand, policy=replace(demand.policy, strategy=strategy)))


@pytest.mark.parametrize(
    ("strategy", "queue", "running", "pending", "most", "expected"),
    [
        (Strategy.KEDA_DEFAULT, 3, 2, 0, 100, 1),
        (Strategy.KEDA_DEFAULT, 2, 0, 0, 5, 2),
        (Strategy.KEDA_DEFAULT, 2, 3, 0, 5, 0),
        (Strategy.KEDA_DEFAULT, 50, 0, 0, 5, 5),
        (Strategy.KEDA_ACCURATE, 3, 2, 0, 5, 3),
        (Strategy.KEDA_ACCURATE, 5, 2, 0, 5, 3),
        (Strategy.KEDA_ACCURATE, 3, 2, 2, 10, 1),
        (Strategy.KEDA_ACCURATE, 5, 4, 2, 10, 3),
        (Strategy.KEDA_EAGER, 4, 3, 0, 10, 4),
        (Strategy.KEDA_EAGER, 10, 3, 2, 10, 5),
        (Strategy.KEDA_EAGER, 4, 9, 3, 10, 0),
        (Strategy.KEDA_EAGER, 0, 0, 0, 10, 0),
    ],
)
def test_rows_of_the_table(strategy: Strategy, queue: int, running: int, pending: int, most: int, expected: int) -> None:
    assert workers(strategy, queue, running, pending, most) == expected


def test_a_poll_that_finds_fewer_than_the_minimum_makes_up_for_that_only() -> None:
    assert workers(Strategy.KEDA_DEFAULT, 500, 2, 0, 20, least=5) == 3
    assert workers(Strategy.KEDA_DEFAULT, 500, 5, 0, 20, least=5) == 15  # the maximum is reduced by the minimum, and so is what runs


@given(
    st.sampled_from([Strategy.KEDA_DEFAULT, Strategy.KEDA_ACCURATE, Strategy.KEDA_EAGER]),
    st.integers(0, 5000),
    st.integers(0, 300),
    st.integers(0, 300),
    st.integers(1, 300),
    st.integers(1, 100),
)
def test_the_table_by_its_words(strategy: Strategy, queue: int, running: int, pending: int, most: int, target: int) -> None:
    max_scale = ceil(min(queue / target, most))
    if strategy is Strategy.KEDA_DEFAULT:
        effective, scale_to = max_scale - running, queue
    elif strategy is Strategy.KEDA_EAGER:
        effective, scale_to = min(most - running - pending, max_scale), most
    else:
        effective, scale_to = (most - running if max_scale + running - pending > most else max_scale - pending), queue
    created = 0 if effective <= 0 or queue == 0 else min(scale_to, effective)
    assert workers(strategy, queue, running, pending, most, target=target) == created


def test_a_fixed_number_is_kept_alive_while_there_is_work() -> None:
    demand = replace(NOTHING_RUNS, policy=Policy(fixed_workers=7), unassigned_count=5000)
    assert by(Strategy.FIXED, demand).workers == 7
    assert by(Strategy.FIXED, replace(demand, live_workers=5)).workers == 2
    assert by(Strategy.FIXED, replace(demand, live_workers=9)).workers == 0


def test_a_deadline_is_by_share_until_something_is_learned() -> None:
    demand = replace(NOTHING_RUNS, unassigned_count=95)
    by_share = by(Strategy.DEADLINE, demand)
    assert by_share.workers == by(Strategy.SHARE, demand).workers == 10
    assert "nothing is learned yet" in by_share.formula
    learned = by(Strategy.DEADLINE, replace(demand, rates=Rates(50.0, 10.0)))
    assert learned.workers == ceil(95 / (8 * 11))
    assert "ceil(95 / (8 threads x 11)) = 2" in learned.formula


def test_while_nothing_is_learned_messages_may_be_slow_however_many_fit_into_a_share() -> None:
    demand = replace(NOTHING_RUNS, policy=Policy(share=1000), unassigned_count=1000, within_s=600.0, worker=WorkerCost(4, 1.0))
    first = by(Strategy.DEADLINE, demand)
    assert first.workers == 5
    assert first.formula.endswith("10 s each are assumed, 60 for a thread in the 10 min left; ceil(1000 / (4 threads x 60)) = 5")
    assert by(Strategy.DEADLINE, replace(demand, unassigned_count=0)).workers == 0
    assert by(Strategy.SHARE, demand).workers == 1
