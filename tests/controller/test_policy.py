"""The policy: how many workers, within every bound, in time where that can be, and for the least money."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.model.shares import share
from controller.act.intents import parts_for
from controller.decide.caps import Limits, scout_share
from controller.decide.decision import Decision, HoldCause, Kind, from_json, to_json
from controller.decide.ledger import Entry, Ledger
from controller.decide.policy import decision_for
from controller.decide.sizing import Rates, cost_usd, drain_s, share_of, worker_cost
from controller.decide.waits import TICK_EVERY_S
from controller.model.lane import Lane, Strategy
from controller.model.reading import Idle, Reading, Unknown, Value
from tests.controller.fakes import lane

NOW = 1000.0


def ledger(assigned: int = 0, live: int = 0) -> Ledger:
    return Ledger(NOW - 90, (Entry("default-abcde", "", live > 0, live, live, assigned),) if assigned or live else ())


def decided(
    backlog: int,
    *,
    assigned: int = 0,
    live: int = 0,
    accepted: int = 0,
    rates: Rates | None = None,
    limits: Limits | None = None,
    age_s: float = 60.0,
    **of: object,
) -> Decision:
    return decision_for(
        lane(**of),
        Value(backlog, NOW - age_s),
        ledger(assigned, live),
        now=NOW,
        rates=rates,
        accepted_since_sample_count=accepted,
        limits=limits or Limits(),
    )


def changed(decision: Decision) -> list[tuple[str, int, int]]:
    """The caps that changed something."""
    return [(cap.name, cap.before, cap.after) for cap in decision.caps if cap.before != cap.after]


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


def test_the_deadline_decides_how_many_where_a_share_would_take_too_long() -> None:
    """1,000 s of work for each of 10 workers; in 290 s, less 10 s to start, a worker of 4 threads does 4 x 28 messages of 10 s."""
    decision = decided(1000, rates=Rates(10.0, 10.0), concurrency=4, drain_within_s=290.0, age_s=0.0)
    assert (decision.wanted_workers, decision.workers) == (9, 10)
    assert changed(decision) == [("max-messages", 9, 10)]
    faster = decided(1000, rates=Rates(10.0, 10.0), concurrency=4, drain_within_s=60.0, age_s=0.0)
    assert (faster.workers, faster.predicted_drain_s) == (50, 60.0)


def test_the_time_that_messages_have_waited_is_taken_from_the_deadline_but_never_more_than_half() -> None:
    def left(age_s: float, oldest_s: float | None = None, assigned: int = 0) -> float | None:
        reading = Value(1000, NOW - age_s, oldest_s)
        return decision_for(lane(drain_within_s=600.0), reading, ledger(assigned), now=NOW).within_s

    assert left(60.0) == 540.0
    assert left(60.0, oldest_s=100.0) == 440.0
    assert left(60.0, oldest_s=100.0, assigned=5) == 540.0  # the oldest may be one of the five
    assert left(60.0, oldest_s=86_400.0) == 300.0
    accepted = decision_for(lane(drain_within_s=600.0), Value(0, NOW - 60), ledger(), now=NOW, accepted_since_sample_count=9)
    assert accepted.within_s == 600.0


def test_a_share_never_outlasts_the_task_timeout() -> None:
    """80 % of 100 s, which count from the start, are 8 messages of 10 s in each of 4 threads."""
    decision = decided(1000, rates=Rates(10.0, 30.0), concurrency=4, task_timeout_s=100.0, drain_within_s=7200.0, max_workers=30)
    assert ("task-timeout", 6, 50) not in changed(decision)
    assert [name for name, _, _ in changed(decision)] == ["task-timeout", "max-workers"]
    assert (decision.workers, decision.backlog) == (30, 30 * 32)


def test_min_workers_spread_a_small_backlog_but_never_over_more_workers_than_messages() -> None:
    assert (decided(50, min_workers=10).workers, decided(50, min_workers=10).backlog) == (10, 50)
    assert decided(4, min_workers=10).workers == 4


def test_a_lane_at_its_limit_launches_nothing_and_says_why() -> None:
    decision = decided(10_000, assigned=500, live=20, max_workers=20)
    assert decision.kind is Kind.NOTHING_TO_DO
    assert "9500 messages wait" in decision.reason
    assert "20 workers are alive" in decision.reason
    assert "budget leaves no worker" in decided(10_000, limits=Limits(budget_workers=0)).reason


@pytest.mark.parametrize(
    ("reading", "error", "paused", "cause"),
    [
        (Unknown("UNAVAILABLE"), "", False, HoldCause.READING_UNKNOWN),
        (Value(500, NOW), "listing: 503", False, HoldCause.LISTING_FAILED),
        (Value(500, NOW), "", True, HoldCause.PAUSED),
    ],
)
def test_a_hold_says_its_cause_and_launches_nothing(reading: Reading, error: str, paused: bool, cause: HoldCause) -> None:
    decision = decision_for(lane(paused=paused), reading, None, now=NOW, listing_error=error)
    assert (decision.kind, decision.hold_cause, decision.workers) == (Kind.HOLD, cause, 0)
    assert decision.troubled is (cause is not HoldCause.PAUSED)


@pytest.mark.parametrize("reading", [Idle(), Value(0, NOW)])
@pytest.mark.parametrize("strategy", list(Strategy))
def test_idle_and_zero_launch_nothing_whatever_the_strategy(reading: Reading, strategy: Strategy) -> None:
    policy = {"strategy": strategy, "fixed_workers": 5, "min_workers": 3, "min_backlog": 10}
    for of_it in (None, ledger(), ledger(50, 4)):
        assert decision_for(lane(**policy), reading, of_it, now=NOW, rates=Rates(1.0)).kind is Kind.NOTHING_TO_DO


def test_an_idle_lane_starts_for_what_the_front_door_told_of() -> None:
    decision = decision_for(lane(), Idle(), ledger(), now=NOW, accepted_since_sample_count=250)
    assert (decision.kind, decision.workers, decision.backlog) == (Kind.LAUNCH, 3, 250)
    again = decision_for(lane(), Idle(), ledger(250, 3), now=NOW, accepted_since_sample_count=250)
    assert again.kind is Kind.NOTHING_TO_DO


def test_a_backlog_without_a_ledger_is_a_fault_of_the_caller() -> None:
    with pytest.raises(ValueError, match="ledger"):
        decision_for(lane(), Value(5, NOW), None, now=NOW)


def test_the_prediction_needs_learned_rates_and_pays_at_least_a_minute() -> None:
    assert decided(1000).predicted_cost_usd is None
    short = decided(1000, rates=Rates(1.0, 5.0), vcpu=2.0, memory_gib=4.0, concurrency=10)
    assert short.predicted_drain_s == 15.0
    assert short.predicted_cost_usd == pytest.approx(10 * 60 * (2 * 0.000018 + 4 * 0.000002))
    long = decided(1000, rates=Rates(9.0, 5.0, 6.0), vcpu=1.0, memory_gib=1.0, concurrency=1, drain_within_s=7200.0, task_timeout_s=3600.0)
    assert long.predicted_cost_usd == pytest.approx(10 * 911 * 0.00002)


@pytest.mark.parametrize("reading", [Value(250, NOW - 60, 12.0), Value(0, NOW), Idle(), Unknown("503")])
def test_a_decision_is_plain_json_and_can_be_read_again(reading: Reading) -> None:
    decision = decision_for(lane(), reading, ledger(50, 1), now=NOW, rates=Rates(1.0, 2.0, 3.0, 0.5, "of 3 workers"))
    body = json.loads(json.dumps(to_json(decision)))
    assert from_json(body) == decision
    assert body["ledger"] is None or body["ledger"]["total_count"] == 50
    assert from_json({name: body[name] for name in ("lane", "kind", "reason", "decided_at", "reading")}).reason == decision.reason


def test_a_few_messages_wait_for_more_but_not_for_ever() -> None:
    policy = lane(min_backlog=50, max_wait_s=300.0)

    def at(now: float, since: float | None, count: int = 20, oldest_s: float | None = None) -> Decision:
        return decision_for(policy, Value(count, now - 60, oldest_s), ledger(), now=now, waiting_since=since)

    first = at(NOW, None)
    since = first.waiting_since
    assert since == NOW - 60, "they were there at the sample"
    assert (first.kind, first.waits_until) == (Kind.NOTHING_TO_DO, since + 300)
    assert "20 messages wait to be 50" in first.reason
    assert at(since + 240, since).kind is Kind.NOTHING_TO_DO
    over = at(since + 241, since)  # the next tick would come too late
    assert (over.kind, over.workers, over.waiting_since) == (Kind.LAUNCH, 1, None)
    assert at(NOW + 60, first.waiting_since, count=50).kind is Kind.LAUNCH
    assert at(NOW, None, oldest_s=240.0).kind is Kind.LAUNCH


def test_what_can_still_be_in_time_is_planned_with_the_time_that_is_left() -> None:
    """As long as a worker can fill half of the minute that is paid for in any case, and a message ends."""

    def within_s(waited_s: float, rates: Rates | None = None, drain_within_s: float = 600.0) -> float | None:
        of = lane(drain_within_s=drain_within_s)
        return decision_for(of, Value(100, NOW - 60, None), ledger(), now=NOW, rates=rates, waiting_since=NOW - waited_s).within_s

    assert [within_s(waited_s) for waited_s in (0, 290, 570, 571, 5000)] == [600, 310, 30, 300, 300]
    assert [within_s(waited_s, Rates(1.0, 10.0)) for waited_s in (560, 561)] == [40, 300]
    assert [within_s(waited_s, Rates(200.0, 10.0)) for waited_s in (390, 391)] == [210, 300]
    assert within_s(53, Rates(7.0, 23.0), 60.0) == 53, "what is late is no reason for workers that have no time to work"


def test_unknown_is_held_and_only_after_long_one_worker_looks() -> None:
    policy = lane(probe_after_s=600.0)
    first = decision_for(policy, Unknown("503"), None, now=NOW)
    assert (first.kind, first.blind is not None) == (Kind.HOLD, True)
    assert "in 10 min" in first.reason
    soon = decision_for(policy, Unknown("503"), None, now=NOW + 599, blind=first.blind)
    assert soon.kind is Kind.HOLD
    probe = decision_for(policy, Unknown("503"), ledger(), now=NOW + 600, blind=soon.blind)
    assert (probe.kind, probe.workers, probe.backlog, probe.probe) == (Kind.LAUNCH, 1, 100, True)
    beside = decision_for(policy, Unknown("503"), ledger(0, 1), now=NOW + 600, blind=soon.blind)
    assert (beside.kind, beside.hold_cause) == (Kind.HOLD, HoldCause.READING_UNKNOWN)
    failed = decision_for(policy, Unknown("503"), None, now=NOW + 600, blind=soon.blind, listing_error="503 too")
    assert failed.hold_cause is HoldCause.LISTING_FAILED
    full = decision_for(policy, Unknown("503"), ledger(), now=NOW + 600, blind=soon.blind, limits=Limits(budget_workers=0))
    assert (full.kind, full.workers) == (Kind.HOLD, 0)
    assert decision_for(policy, Value(0, NOW), None, now=NOW, blind=probe.blind).blind is None


RATES = st.none() | st.builds(
    Rates,
    message_s=st.floats(0.0005, 100.0),
    start_up_s=st.floats(0, 60),
    idle_tail_s=st.floats(0, 60),
    quick_message_s=st.floats(0.0005, 1.0),
)
LIMITS = st.builds(
    Limits,
    cpu_quota_vcpu=st.none() | st.floats(0, 500),
    live_vcpu=st.floats(0, 300),
    run_calls_left=st.none() | st.integers(0, 3),
    budget_workers=st.none() | st.integers(0, 200),
)
LANES = st.builds(
    lambda **of: lane(**of),
    max_messages=st.none() | st.integers(1, 5000),
    first_share=st.integers(1, 5000),
    min_workers=st.integers(0, 50),
    max_workers=st.integers(50, 30_000),
    fixed_workers=st.integers(1, 40),
    drain_within_s=st.floats(10, 7200),
    max_in_flight=st.none() | st.integers(64, 5000),
    rate=st.none() | st.floats(0.1, 1e5),
    concurrency=st.integers(1, 64),
    task_timeout_s=st.floats(60, 86_400),
    vcpu=st.sampled_from([0.5, 1.0, 4.0]),
    strategy=st.sampled_from(list(Strategy)),
)
COUNTS = st.integers(0, 10**6)


@given(LANES, COUNTS, COUNTS, st.integers(0, 300), st.integers(0, 1000), RATES, LIMITS)
def test_nothing_is_assigned_twice_and_no_bound_is_broken(
    of: Lane, backlog: int, assigned: int, live: int, accepted: int, rates: Rates | None, limits: Limits
) -> None:
    decision = decision_for(
        of, Value(backlog, NOW - 60), ledger(assigned, live), now=NOW, rates=rates, accepted_since_sample_count=accepted, limits=limits
    )
    policy = of.policy
    left, workers = max(0, backlog + accepted - assigned), decision.workers
    assert (workers > 0) is (decision.kind is Kind.LAUNCH) is (decision.backlog > 0)
    scouts = any(cap.name == "scout" and cap.after < cap.before for cap in decision.caps)
    assert decision.backlog == min(left, workers * (scout_share(of, TICK_EVERY_S) if scouts else share_of(of, rates)))
    assert workers <= decision.backlog
    assert policy.max_messages is None or share_of(of, rates) <= policy.max_messages
    assert rates is not None or policy.max_messages is not None or share_of(of, rates) == policy.first_share
    for cap in decision.caps:
        assert not cap.lowers or workers <= cap.limit
    if not workers:
        return
    all_workers = workers + live
    assert all_workers <= policy.max_workers
    assert policy.max_in_flight is None or all_workers * of.concurrency <= policy.max_in_flight
    if policy.rate is not None:
        each = None if rates is None or not rates.quick_message_s else of.concurrency / rates.quick_message_s
        assert all_workers == 1 or (each is not None and all_workers * each <= policy.rate * (1 + 1e-6))
    assert limits.cpu_quota_vcpu is None or limits.live_vcpu + workers * of.vcpu <= limits.cpu_quota_vcpu + 1e-6
    assert limits.run_calls_left is None or math.ceil(workers / 10_000) <= limits.run_calls_left
    assert limits.budget_workers is None or workers <= limits.budget_workers


@given(LANES, COUNTS, COUNTS, COUNTS, st.integers(0, 300), st.integers(0, 300), RATES, LIMITS)
def test_more_backlog_never_means_fewer_workers(
    of: Lane, one: int, other: int, assigned: int, live: int, accepted: int, rates: Rates | None, limits: Limits
) -> None:
    def workers(count: int) -> int:
        reading = Value(count, NOW - 60, 100.0)
        of_it = ledger(assigned, live)
        return decision_for(of, reading, of_it, now=NOW, rates=rates, accepted_since_sample_count=accepted, limits=limits).workers

    assert workers(min(one, other)) <= workers(max(one, other))


@given(
    count=st.integers(1, 20_000),
    size=st.integers(20, 5000),
    most=st.integers(1, 500),
    least=st.integers(0, 20),
    within_s=st.floats(10.0, 3600.0),
    rates=st.builds(Rates, message_s=st.floats(0.001, 30.0), start_up_s=st.floats(0.1, 60.0), idle_tail_s=st.floats(0, 60.0)),
    concurrency=st.integers(1, 32),
)
def test_in_time_whenever_an_allowed_number_is_and_then_at_the_least_cost(
    count: int, size: int, most: int, least: int, within_s: float, rates: Rates, concurrency: int
) -> None:
    """By brute force: every number of workers that the policy allows, where that many can be given the whole backlog."""
    of = lane(
        max_messages=size,
        min_workers=min(least, most),
        max_workers=most,
        drain_within_s=within_s,
        concurrency=concurrency,
        task_timeout_s=86_400.0,
    )
    decision = decision_for(of, Value(count, NOW), ledger(), now=NOW, rates=rates)
    each, worker = share_of(of, rates), worker_cost(of)
    allowed = range(max(1, min(of.policy.min_workers, count), math.ceil(count / each)), min(most, count) + 1)
    clearly = [number for number in allowed if drain_s(count, number, rates, worker) <= within_s * (1 - 1e-6)]
    if not clearly:
        return
    assert decision.backlog == count
    assert decision.predicted_drain_s is not None
    assert decision.predicted_drain_s <= within_s * (1 + 1e-6)
    best = min(cost_usd(count, number, rates, worker) for number in clearly)
    assert decision.predicted_cost_usd == pytest.approx(best)


def test_a_short_deadline_is_kept_too() -> None:
    """20 s are less than half of a paid minute, and 7 workers are done in 19.3 s; 4 would be with 30."""
    of = lane(concurrency=1, drain_within_s=20.0, max_messages=None)
    assert decision_for(of, Value(1000, NOW), ledger(), now=NOW, rates=Rates(0.1, 5.0)).workers == 7


@given(workers=st.integers(1, 300), backlog=st.integers(0, 10_000), most=st.integers(1, 50))
def test_parts_sum_to_the_decision_and_no_share_grows(workers: int, backlog: int, most: int) -> None:
    parts = parts_for("d", workers, backlog, most)
    assert sum(part.backlog for part in parts) == backlog
    assert sum(part.workers for part in parts) == workers
    assert all(0 < part.workers <= most for part in parts)
    assert len({part.decision_id for part in parts}) == len(parts)
    largest = max(share(part.backlog, part.workers, index) for part in parts for index in range(part.workers))
    assert largest == math.ceil(backlog / workers)
