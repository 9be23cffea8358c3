"""Waiting: nothing is launched while one worker does all in time a tick later too, and never beyond `fanout/max-wait`."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.model.clock import iso
from batch.model.names import lane_state_object
from controller.act.state import LaneState, save
from controller.decide.broken import Broken
from controller.decide.decision import Decision, Kind, from_json, to_json
from controller.decide.explanation import explained_decision
from controller.decide.held_elsewhere import HeldElsewhere
from controller.decide.ledger import Entry, Ledger
from controller.decide.policy import decision_for
from controller.decide.rates import Learned, Sample
from controller.decide.sizing import Rates, drain_s, worker_cost
from controller.decide.waits import TICK_EVERY_S, Unassigned, margin_s, waiting_of
from controller.lanes.lanes import lane_of
from controller.model.lane import Lane, Strategy
from controller.model.reading import Idle, Value
from tests.controller.fakes import job, lane, tick, world

NOW = 10_000.0
NOTHING = Ledger(NOW - 90)
QUICK = Rates(1.0, 10.0, 5.0)
"""A worker of 8 threads does 20 such messages in 13 s, of a minute that is paid for."""


def waits(**of: object) -> Lane:
    """A lane with no bound on a share, whose messages wait half of ten minutes at most."""
    return lane(**{"max_messages": 10**6, "max_wait_s": None, "task_timeout_s": 3600.0, **of})


def decided(of: Lane, count: int, *, now: float = NOW, rates: Rates | None = QUICK, since: float | None = None, **more: object) -> Decision:
    ledger = more.pop("ledger", NOTHING)
    return decision_for(of, Value(count, now), ledger, now=now, rates=rates, waiting_since=since, **more)  # type: ignore[arg-type]


def test_what_one_worker_does_in_time_a_tick_later_waits_and_says_until_when() -> None:
    decision = decided(waits(), 20)
    assert (decision.kind, decision.workers, decision.troubled) == (Kind.NOTHING_TO_DO, 0, False)
    assert (decision.waits_until, decision.waiting_since) == (NOW + 300, NOW)
    assert decision.reason == "20 messages wait until 02:51:40Z at the latest (5 min more): one worker, in time with 4 min 45 s to spare"


def test_ticks_go_by_until_the_next_one_would_be_too_late_for_max_wait() -> None:
    at = [decided(waits(), 20, now=NOW + late_s, since=NOW) for late_s in (60, 120, 240, 241, 300)]
    assert [one.kind for one in at] == [Kind.NOTHING_TO_DO] * 3 + [Kind.LAUNCH] * 2
    assert {one.waits_until for one in at[:3]} == {NOW + 300}
    assert [one.waiting_since for one in at] == [NOW, NOW, NOW, None, None]


def test_with_max_wait_up_to_the_deadline_the_margin_is_kept() -> None:
    """40 messages may come until the next tick; 10 s to start and 5 messages of 1 s in each thread: launched 45 s before the end."""
    long = waits(max_wait_s=600.0)
    assert decided(long, 20).waits_until == NOW + 600 - margin_s(long) - 15
    assert decided(long, 20, now=NOW + 480, since=NOW).kind is Kind.NOTHING_TO_DO
    assert decided(long, 20, now=NOW + 540, since=NOW).kind is Kind.LAUNCH


@pytest.mark.parametrize(
    ("of", "rates"),
    [
        ({}, None),  # nothing is learned
        ({"max_wait_s": 0.0}, QUICK),
        ({"max_wait_s": 59.0}, QUICK),
        ({"strategy": Strategy.FIXED, "fixed_workers": 1}, QUICK),
        ({"max_messages": 39}, QUICK),  # 40 are expected by the next tick
        ({"task_timeout_s": 6.0}, QUICK),
        ({"drain_within_s": 75.0}, QUICK),
        ({}, Rates(150.0, 10.0)),  # 5 rounds of 150 s
    ],
)
def test_nothing_waits_where_one_worker_is_not_enough_or_nobody_wants_it(of: dict[str, object], rates: Rates | None) -> None:
    assert decided(waits(**of), 20, rates=rates).kind is Kind.LAUNCH


def test_what_has_come_goes_on_coming() -> None:
    """1,300 messages came in the minute before the sample, which is two minutes old: at the next tick it shows twice as many."""
    assert Unassigned(1300, NOW - 180, NOW - 120).expected_count(60.0) == 2600
    assert Unassigned(1300, NOW - 780, NOW - 120).expected_count(60.0) == 1300 + 119
    old = decision_for(waits(), Value(1300, NOW - 120, 60.0), NOTHING, now=NOW, rates=QUICK)
    assert old.kind is Kind.LAUNCH
    assert decided(waits(), 1300).kind is Kind.NOTHING_TO_DO


def test_a_launch_that_is_paid_for_nothing_but_its_work_does_not_wait() -> None:
    quick_start = Rates(1.0, 2.0, 1.0)
    assert decided(waits(drain_within_s=3600.0), 1200, rates=quick_start).kind is Kind.LAUNCH  # 3 s beside 150 s
    assert decided(waits(drain_within_s=3600.0), 1100, rates=quick_start).kind is Kind.NOTHING_TO_DO
    assert decided(waits(), 20, rates=Rates(1.0)).kind is Kind.NOTHING_TO_DO  # no start-up, but a minute is paid for


def test_messages_beside_live_workers_wait_like_others() -> None:
    busy = Ledger(NOW - 90, (Entry("default-abcde", "", True, 3, 3, 500),))
    assert decided(waits(), 520, ledger=busy).waits_until == NOW + 300


def test_a_try_a_look_and_whoever_says_now_do_not_wait() -> None:
    assert decided(waits(), 20, wait=False).kind is Kind.LAUNCH
    assert decided(waits(min_backlog=50), 20, wait=False).kind is Kind.LAUNCH
    doubted = replace(NOTHING, guard_count=20)
    assert decided(waits(), 20, ledger=doubted).workers == 0
    assert decided(waits(), 20, ledger=doubted, wait=False).backlog == 20
    broken = Broken("default-abcde", "all ended broken", 1, NOW - 4000)
    assert decided(waits(), 20, broken=broken).kind is Kind.LAUNCH
    elsewhere = HeldElsewhere("default-abcde", 0, 20, 1, 20, NOW - 4000)
    assert decided(waits(), 20, elsewhere=elsewhere).workers == 1


def test_without_rates_a_small_backlog_waits_and_max_wait_bounds_that_too() -> None:
    few = waits(min_backlog=50, max_wait_s=300.0)
    assert decided(few, 20, rates=None).waits_until == NOW + 300
    assert decided(few, 50, rates=None).kind is Kind.LAUNCH
    assert decided(few, 50).kind is Kind.NOTHING_TO_DO  # enough of them, and one worker does them a tick later too


def test_a_delayed_lane_waits_for_an_execution_that_has_yet_to_start() -> None:
    day, hour = 86_400.0, 3600.0
    late = replace(waits(is_delayed=True, drain_within_s=day), start_within_s=12 * hour)
    pending = Ledger(NOW - 90, (Entry("default-abcde", "", True, 1, 1, 500, pending_worker_count=1),))
    many = {"ledger": pending, "rates": Rates(1000.0)}
    assert decided(late, 10_500, **many).waits_until == NOW + 6 * hour  # type: ignore[arg-type]
    short = replace(late, policy=replace(late.policy, max_wait_s=hour))
    assert decided(short, 10_500, **many).waits_until == NOW + hour  # type: ignore[arg-type]
    assert decided(late, 10_000, rates=Rates(1000.0)).kind is Kind.LAUNCH
    assert decided(late, 20).waits_until == NOW + 6 * hour


def test_a_lane_that_waits_writes_nothing_between_samples_and_its_state_alone_at_a_new_one() -> None:
    own = job(max_wait="5m", max_messages="100000")
    here = world([own])
    of = lane_of(own)
    save(here.store, replace(LaneState("default"), learned=Learned((Sample(1.0, 100, 10.0, 5.0),))), 0, "learned")
    here.backlog_is(20)
    tick(of, here.outside)
    for is_new in (True, False) * 3:
        here.clock.advance(30.0)
        if is_new:
            here.backlog.reading = Value(20, here.clock.now() - 20.0, 0.0)
        before = {(info.name, info.generation) for info in here.store.list("")}
        assert tick(of, here.outside).decision.waits_until is not None
        written = {(info.name, info.generation) for info in here.store.list("")} - before
        assert {name for name, _ in written} == ({lane_state_object("default")} if is_new else set())


def test_it_is_plain_json_and_explained() -> None:
    decision = decided(waits(), 20)
    body = to_json(decision)
    assert body["waits_until"] == iso(NOW + 300)
    assert from_json(body) == decision
    lines = explained_decision(decision)
    assert lines[0].startswith("lane default: waiting: 20 messages wait until ")
    assert (
        "  waiting: by the next tick they may be 40, and one worker does so many in 15 s; the first came at 02:46:40Z, and "
        "fanout/max-wait (half of drain-within) is over at 02:51:40Z; fanout/drain-within is over at 02:56:40Z"
    ) in lines
    assert "  now: `fanout tick --now default` launches without waiting" in lines


@given(
    count=st.integers(1, 5000),
    since=st.floats(NOW - 1200, NOW),
    seen_s=st.floats(0, 180),
    rates=st.builds(Rates, st.floats(0.001, 100), st.floats(0, 90), st.floats(0, 60)),
    drain_within=st.floats(60, 7200),
    wait=st.none() | st.floats(0, 7200),
)
def test_what_waits_is_still_in_time_at_the_next_tick_with_the_margin(
    count: int, since: float, seen_s: float, rates: Rates, drain_within: float, wait: float | None
) -> None:
    of = waits(drain_within_s=drain_within, max_wait_s=wait)
    messages = Unassigned(count, since, max(since, NOW - seen_s))
    waiting = waiting_of(of, messages, rates, now=NOW)
    if waiting is None:
        return
    then = NOW + TICK_EVERY_S
    assert then <= waiting.until <= since + (drain_within / 2 if wait is None else wait)
    done_at = waiting.until + drain_s(messages.expected_count(TICK_EVERY_S), 1, rates, worker_cost(of))
    assert done_at + margin_s(of) <= since + drain_within + 1e-3
    assert waiting_of(of, messages, rates, now=waiting.until) is None
    fewer = replace(messages, count=max(1, count // 2))
    assert waiting_of(of, fewer, rates, now=NOW) is not None


def test_the_next_tick_comes_when_a_setting_says_so() -> None:
    """Messages of a minute ago wait for a tick in a minute, 4 of 10 minutes later; not for one that comes when 6 are over."""
    assert decision_for(waits(), Value(20, NOW, 60.0), NOTHING, now=NOW, rates=QUICK).kind is Kind.NOTHING_TO_DO
    assert decision_for(waits(), Value(20, NOW, 60.0), NOTHING, now=NOW, rates=QUICK, tick_every_s=300.0).kind is Kind.LAUNCH


def test_an_idle_gauge_and_accepted_tasks_wait_too() -> None:
    decision = decision_for(waits(), Idle(), NOTHING, now=NOW, rates=QUICK, accepted_since_sample_count=20)
    assert decision.waits_until == NOW + 300
