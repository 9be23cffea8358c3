"""A first launch of a large backlog is a small one, which shows how long a message takes; and once that is known, nothing but the work, the
deadline and the timeout say how many workers there are."""

from __future__ import annotations

from math import ceil
from pathlib import Path

import pytest

from controller.decide.decision import Decision, Kind
from controller.decide.explanation import explained_decision
from controller.decide.ledger import Entry, Ledger
from controller.decide.policy import decision_for
from controller.decide.sizing import Rates, cost_usd, worker_cost
from controller.lanes.lanes import lane_of
from controller.lanes.manifests import read_manifests
from controller.model.lane import Lane, Strategy
from controller.model.reading import Value
from tests.controller.fakes import lane

NOW = 10_000.0
HUGE = 100_000
LANES = {one.lane: lane_of(one.job) for one in read_manifests((Path(__file__).parents[2] / "jobs.yaml").read_text()) if one.lane}


def first(
    of: Lane, count: int = HUGE, *, age_s: float = 60.0, live: int = 0, pending: int = 0, late_s: float = 0.0, **more: float
) -> Decision:
    """The first decision of a lane, or one `late_s` later beside workers that have shown nothing yet."""
    now = NOW + late_s
    alive = (Entry("default-abcde", "", True, live, live, 0, pending_worker_count=pending),) if live else ()
    return decision_for(of, Value(count, NOW - age_s), Ledger(NOW - 90, alive), now=now, waiting_since=NOW - age_s, **more)  # type: ignore[arg-type]


def unbounded(**of: object) -> Lane:
    return lane(**{"max_messages": None, "task_timeout_s": 3600.0, **of})


def test_a_large_backlog_of_messages_of_which_nothing_is_known_is_begun_by_a_scout() -> None:
    decision = first(unbounded())
    assert (decision.workers, decision.backlog) == (4, 4 * 6 * 8)  # 6 messages of 10 s in each of 8 threads until the next tick
    assert decision.reason == "4 workers for 192 of 100000 unassigned messages, to learn how long a message takes before the rest is sized"
    assert "  " + SCOUT in explained_decision(decision)


SCOUT = (
    "  scout: at most 4 (nothing is learned yet of how long a message takes: a few workers show it, with small shares, before the rest is "
    "sized): 232 -> 4"
)


def test_a_scout_has_work_until_the_next_tick_and_there_must_be_time_for_some_of_them() -> None:
    seldom = first(unbounded(drain_within_s=7200.0), tick_every_s=300.0)
    assert (seldom.workers, seldom.backlog) == (4, 4 * 30 * 8)
    assert first(unbounded(drain_within_s=900.0), tick_every_s=300.0).workers > 100, "what it shows is known too late"
    assert first(unbounded(), tick_every_s=5.0).backlog == 4 * 6 * 8, "a worker has not begun by the next tick"


def test_a_small_backlog_needs_none() -> None:
    assert (first(unbounded(), 1700).workers, first(unbounded(), 1700).backlog) == (4, 1700)
    assert (first(unbounded(first_share=100), 250).workers, first(unbounded(first_share=100), 250).backlog) == (3, 250)


def test_beside_a_scout_that_has_shown_nothing_no_more_are_launched_until_half_of_the_time_is_over() -> None:
    waiting = first(unbounded(), live=4, pending=4, late_s=60.0)
    assert (waiting.kind, waiting.workers) == (Kind.NOTHING_TO_DO, 0)
    assert "100000 messages wait, but scout leaves no worker: nothing is learned yet" in waiting.reason
    assert first(unbounded(), live=1, late_s=60.0).workers == 3
    assert first(unbounded(max_messages=100), 200, live=4, late_s=60.0).workers == 2  # asked for however long messages take
    assert first(unbounded(), live=4, late_s=240.0).kind is Kind.NOTHING_TO_DO
    assert first(unbounded(), live=4, late_s=241.0).workers > 100


@pytest.mark.parametrize(
    "of",
    [
        {"drain_within_s": 120.0},  # no tick can be spared
        {"max_messages": 1000},  # a hundred are asked for however short messages are
        {"min_workers": 20},
        {"strategy": Strategy.SHARE},
        {"strategy": Strategy.FIXED, "fixed_workers": 50},
        {"is_delayed": True, "drain_within_s": 86_400.0},  # a scout may start in twelve hours
    ],
)
def test_no_scout_where_time_is_short_or_the_operator_says_how_many(of: dict[str, object]) -> None:
    assert first(unbounded(**of), age_s=0.0).workers >= 20


def test_what_is_late_in_any_case_is_begun_by_a_scout_too() -> None:
    assert first(unbounded(drain_within_s=120.0), age_s=121.0).workers == 4
    assert first(unbounded(drain_within_s=120.0), age_s=121.0, live=4, late_s=60.0).workers > 100


def test_a_job_for_each_message_is_what_it_says() -> None:
    for rates in (None, Rates(0.005, 8.0)):
        each = decision_for(unbounded(max_messages=1), Value(300, NOW), Ledger(NOW), now=NOW, rates=rates)
        assert (each.workers, each.backlog) == (300, 300)


@pytest.mark.parametrize("name", ["default", "bulk"])
@pytest.mark.parametrize("message_s", [0.005, 60.0])
def test_from_the_second_tick_on_a_huge_backlog_costs_what_it_must(name: str, message_s: float) -> None:
    """Ticks of a minute over the lane as it is shipped; each launch does its share and is gone, and costs what its messages take."""
    of, rates = LANES[name], Rates(message_s, 10.0, 5.0, message_s)
    worker = worker_cost(of)
    scout = decision_for(of, Value(HUGE, NOW), Ledger(NOW), now=NOW)
    assert scout.workers * worker.usd(0) <= 4 * worker.usd(60)
    left, paid, now, busy = HUGE - scout.backlog, 0.0, NOW, 0
    while left:
        now += 60.0
        decision = decision_for(of, Value(left, now), Ledger(now), now=now, rates=rates, waiting_since=NOW)
        if decision.kind is Kind.LAUNCH:
            paid += cost_usd(decision.backlog, decision.workers, rates, worker)
            left, busy = left - decision.backlog, max(busy, decision.workers)
    fewest = ceil((HUGE - scout.backlog) / (of.task_timeout_s / message_s * of.concurrency))
    optimum = min(cost_usd(HUGE - scout.backlog, workers, rates, worker) for workers in range(fewest, of.policy.max_workers + fewest))
    assert paid <= 1.3 * optimum
    assert busy <= of.policy.max_workers


def test_the_shipped_lanes_bound_no_share_but_the_first() -> None:
    found = {name: one.policy for name, one in LANES.items()}
    assert {name: one.max_messages for name, one in found.items()} == {"urgent": None, "default": None, "bulk": None}
    assert (found["urgent"].first_share, found["urgent"].max_wait_s) == (100, 0.0)
    quick = decision_for(LANES["urgent"], Value(HUGE, NOW), Ledger(NOW), now=NOW, rates=Rates(0.005, 8.0, 2.0))
    assert quick.workers == 1
