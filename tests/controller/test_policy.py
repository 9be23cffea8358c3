"""The policy: how many workers, and every bound by name."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.shares import share
from controller.backlog import Idle, Reading, Unknown, Value
from controller.decision import Cap, Decision, HoldCause, Kind, to_json
from controller.intents import split
from controller.ledger import Ledger, Line
from controller.policy import decide
from tests.controller.fakes import lane

NOW = 1000.0


def ledger(assigned: int = 0, live: int = 0) -> Ledger:
    return Ledger(NOW - 90, (Line("default-abcde", "", live > 0, live, live, assigned),) if assigned or live else ())


def decided(backlog: int, *, assigned: int = 0, live: int = 0, accepted: int = 0, each_s: float | None = None, **of: object) -> Decision:
    return decide(
        lane(**of),
        Value(backlog, NOW - 60),
        ledger(assigned, live),
        now=NOW,
        seconds_per_message=each_s,
        accepted_since_sample_count=accepted,
    )


@pytest.mark.parametrize(
    ("backlog", "assigned", "accepted", "workers", "given_out"),
    [
        (1, 0, 0, 1, 1),
        (100, 0, 0, 1, 100),
        (101, 0, 0, 2, 101),
        (10_000, 0, 0, 100, 10_000),
        (10_000, 9_950, 0, 1, 50),
        (50, 50, 30, 1, 30),
        (10_000, 10_000, 0, 0, 0),
        (10, 500, 0, 0, 0),
    ],
)
def test_workers_for_what_is_unassigned(backlog: int, assigned: int, accepted: int, workers: int, given_out: int) -> None:
    decision = decided(backlog, assigned=assigned, accepted=accepted)
    assert (decision.workers, decision.backlog) == (workers, given_out)
    assert decision.kind is (Kind.LAUNCH if workers else Kind.NOTHING_TO_DO)


def test_each_cap_is_named_with_the_number_before_and_after() -> None:
    decision = decided(10_000, live=3, max_workers=20)
    assert decision.wanted_workers == 100
    assert decision.caps == (Cap("min-workers", 0, 100, 100), Cap("messages", 10_000, 100, 100), Cap("max-workers", 17, 100, 17))
    assert (decision.workers, decision.backlog) == (17, 1700)


def test_min_workers_spread_a_small_backlog_but_never_over_more_workers_than_messages() -> None:
    assert (decided(50, min_workers=10).workers, decided(50, min_workers=10).backlog) == (10, 50)
    assert decided(4, min_workers=10).workers == 4


def test_a_lane_at_its_limit_launches_nothing_and_says_why() -> None:
    decision = decided(10_000, assigned=500, live=20, max_workers=20)
    assert decision.kind is Kind.NOTHING_TO_DO
    assert "9500 messages wait" in decision.reason
    assert "20 workers are alive" in decision.reason


@pytest.mark.parametrize(
    ("reading", "error", "paused", "cause"),
    [
        (Unknown("UNAVAILABLE"), "", False, HoldCause.READING_UNKNOWN),
        (Value(500, NOW), "listing: 503", False, HoldCause.LISTING_FAILED),
        (Value(500, NOW), "", True, HoldCause.PAUSED),
    ],
)
def test_a_hold_says_its_cause_and_launches_nothing(reading: Reading, error: str, paused: bool, cause: HoldCause) -> None:
    decision = decide(lane(paused=paused), reading, None, now=NOW, listing_error=error)
    assert (decision.kind, decision.hold_cause, decision.workers) == (Kind.HOLD, cause, 0)
    assert decision.troubled is (cause is not HoldCause.PAUSED)


@pytest.mark.parametrize("reading", [Idle(), Value(0, NOW)])
def test_idle_and_zero_are_nothing_to_do(reading: Reading) -> None:
    assert decide(lane(), reading, None, now=NOW).kind is Kind.NOTHING_TO_DO


def test_a_backlog_without_a_ledger_is_a_fault_of_the_caller() -> None:
    with pytest.raises(ValueError, match="ledger"):
        decide(lane(), Value(5, NOW), None, now=NOW)


def test_the_prediction_needs_measured_seconds_and_pays_at_least_a_minute() -> None:
    assert decided(1000).predicted_cost_usd is None
    short = decided(1000, each_s=1.0, vcpu=2.0, memory_gib=4.0, concurrency=10)
    assert short.predicted_drain_s == 10.0
    assert short.predicted_cost_usd == pytest.approx(10 * 60 * (2 * 0.000018 + 4 * 0.000002))
    long = decided(1000, each_s=9.0, vcpu=1.0, memory_gib=1.0, concurrency=1)
    assert long.predicted_cost_usd == pytest.approx(10 * 900 * 0.00002)


def test_a_decision_is_plain_json() -> None:
    body = to_json(decided(250, assigned=50, live=1))
    assert body["kind"] == "launch"
    assert body["reading"].items() >= {"state": "value", "undelivered_count": 250, "sampled_at": "1970-01-01T00:15:40.000000Z"}.items()
    assert body["ledger"]["total_count"] == 50


@given(
    backlog=st.integers(0, 10**6),
    assigned=st.integers(0, 10**6),
    live=st.integers(0, 300),
    size=st.integers(1, 5000),
    low=st.integers(0, 50),
    high=st.integers(50, 30_000),
)
def test_nothing_is_assigned_twice_and_no_bound_is_broken(backlog: int, assigned: int, live: int, size: int, low: int, high: int) -> None:
    decision = decided(backlog, assigned=assigned, live=live, share=size, min_workers=low, max_workers=high)
    assert decision.backlog <= max(0, backlog - assigned)
    assert decision.workers + live <= max(high, live)
    assert decision.backlog <= decision.workers * size
    assert (decision.workers > 0) is (decision.kind is Kind.LAUNCH) is (decision.backlog > 0)
    if decision.workers:
        assert decision.backlog == min(backlog - assigned, decision.workers * size)


@given(workers=st.integers(1, 300), backlog=st.integers(0, 10_000), most=st.integers(1, 50))
def test_parts_sum_to_the_decision_and_no_share_grows(workers: int, backlog: int, most: int) -> None:
    parts = split("d", workers, backlog, most)
    assert sum(part.backlog for part in parts) == backlog
    assert sum(part.workers for part in parts) == workers
    assert all(0 < part.workers <= most for part in parts)
    assert len({part.decision_id for part in parts}) == len(parts)
    largest = max(share(part.backlog, part.workers, index) for part in parts for index in range(part.workers))
    assert largest == math.ceil(backlog / workers)
