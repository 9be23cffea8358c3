"""Caps: their order, and each of them by hand."""

from __future__ import annotations

import pytest

from controller.decide.caps import Bound, Limits, bounds_of, capped
from controller.decide.decision import Cap
from controller.decide.sizing import Rates, worker_cost
from controller.model.lane import Lane
from tests.controller.fakes import lane

FULL = lane(max_messages=100, min_workers=2, max_workers=50, max_in_flight=200, rate=30.0, concurrency=4, vcpu=2.0)
OUTSIDE = Limits(cpu_quota_vcpu=100.0, live_vcpu=40.0, run_calls_left=3, budget_workers=9)
RATES = Rates(2.0, 5.0, quick_message_s=0.5)


def bounds(of: Lane, count: int = 1000, live: int = 0, rates: Rates | None = RATES, limits: Limits = OUTSIDE) -> dict[str, Bound]:
    return {one.name: one for one in bounds_of(of, count, live, rates, worker_cost(of), limits)}


def test_the_order_is_stated_and_what_lowers_comes_last() -> None:
    found = bounds(FULL)
    assert list(found) == [
        "task-timeout",
        "max-messages",
        "min-workers",
        "messages",
        "max-workers",
        "max-in-flight",
        "rate",
        "cpu-quota",
        "run-calls",
        "budget",
    ]
    lowers = [one.lowers for one in found.values()]
    assert lowers == sorted(lowers)


def test_each_by_hand() -> None:
    found = bounds(FULL, live=6)
    assert {name: one.limit for name, one in found.items()} == {
        "task-timeout": 2,  # 480 s are 240 messages of 2 s in each of 4 threads: 960 a worker
        "max-messages": 10,
        "min-workers": 2,
        "messages": 1000,
        "max-workers": 44,
        "max-in-flight": 44,  # 200 / 4 threads = 50
        "rate": 0,  # a worker does 4 / 0.5 s = 8 a second, so 3 may live
        "cpu-quota": 30,
        "run-calls": 30_000,
        "budget": 9,
    }


def test_one_message_a_worker_is_one_message() -> None:
    assert bounds(lane(max_messages=1))["max-messages"].why == "1 message a worker"
    assert bounds(lane(first_share=1, max_messages=None), rates=None)["first-share"].why.startswith("1 message a worker until")


def test_what_is_not_set_is_no_cap() -> None:
    assert list(bounds(lane(), rates=None, limits=Limits())) == ["max-messages", "min-workers", "messages", "max-workers"]


@pytest.mark.parametrize(("live", "most"), [(0, 1), (1, 0)])
def test_a_rate_lets_one_worker_work_until_its_pace_is_known(live: int, most: int) -> None:
    unknown = bounds(FULL, live=live, rates=None)["rate"]
    assert (unknown.limit, "until it is known" in unknown.why) == (most, True)
    assert bounds(FULL, live=2)["rate"].limit == 1  # a rate of 30 is 3.75 workers of 8 a second


def test_a_worker_that_is_faster_than_the_rate_is_said_to_be() -> None:
    fast = bounds(lane(rate=5.0, concurrency=4))["rate"]
    assert fast.limit == 1
    assert "lower its CONCURRENCY" in fast.why
    assert "CONCURRENCY" not in bounds(lane(rate=8.0, concurrency=4))["rate"].why


def test_limits_beyond_all_numbers_are_no_fault() -> None:
    found = bounds(lane(rate=1e308, vcpu=1e-3), limits=Limits(cpu_quota_vcpu=1e308), rates=Rates(1e6))
    assert found["rate"].limit == found["cpu-quota"].limit == 10**9


def test_a_cap_that_changes_nothing_is_listed_too() -> None:
    workers, caps = capped(7, [Bound("low", 3, lowers=False), Bound("high", 5), Bound("higher", 9, why="so")])
    assert workers == 5
    assert caps == (Cap("low", 3, 7, 7, False), Cap("high", 5, 7, 5), Cap("higher", 9, 5, 5, True, "so"))
