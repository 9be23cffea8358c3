"""Strategies: what each wants, with its formula."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

from controller.decide.sizing import Rates, WorkerCost
from controller.decide.strategies import Demand, Wanted, wanted
from controller.model.lane import Policy, Strategy

NOTHING_RUNS = Demand(
    Policy(max_messages=10),
    unassigned_count=0,
    live_workers=0,
    within_s=600.0,
    rates=None,
    worker=WorkerCost(8, 0.00002),
)


def by(strategy: Strategy, demand: Demand) -> Wanted:
    return wanted(replace(demand, policy=replace(demand.policy, strategy=strategy)))


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
    demand = replace(NOTHING_RUNS, policy=Policy(max_messages=1000), unassigned_count=1000, within_s=600.0, worker=WorkerCost(4, 1.0))
    first = by(Strategy.DEADLINE, demand)
    assert first.workers == 5
    assert first.formula.endswith("10 s each are assumed, 60 for a thread in the 10 min left; ceil(1000 / (4 threads x 60)) = 5")
    assert by(Strategy.DEADLINE, replace(demand, unassigned_count=0)).workers == 0
    assert by(Strategy.SHARE, demand).workers == 1


def test_by_share_is_the_operator_s_share_or_the_first_one() -> None:
    demand = replace(NOTHING_RUNS, policy=Policy(first_share=50), unassigned_count=1000)
    assert by(Strategy.SHARE, demand).workers == 20
    assert by(Strategy.SHARE, replace(demand, policy=Policy(first_share=50, max_messages=200))).workers == 5
    assert by(Strategy.SHARE, replace(demand, policy=Policy(max_messages=1))).workers == 1000
