"""What monitoring is told of a lane at each tick: its condition, how late it is, what it cost, and launches that fail."""

from __future__ import annotations

from dataclasses import replace

import pytest

from batch.events import EVENTS
from batch.model.errors import DependencyForbidden, DependencyUnavailable
from batch.prices import worker_usd_per_s
from controller.act.state import DAY_S, HOUR_S, LaneState
from controller.decide.decision import OpenLaunch, has_failed
from controller.model.execution import ExecutionInfo, Worked
from controller.model.reading import Idle, Unknown, Value
from controller.tick.health import Condition, Health
from tests.controller.fakes import JOB, World, lane, progress, tick, world, write_progress

T = 100_000.0
LANE = lane(max_messages=None)
WORKER_USD = worker_usd_per_s(LANE.vcpu, LANE.memory_gib)


@pytest.fixture
def here() -> World:
    return world()


def health(here: World, *, dry_run: bool = False, **changes: object) -> Health:
    found = tick(lane(**changes), here.outside, dry_run=dry_run).health
    assert found is not None
    return found


def launched(here: World, count: int = 250, **changes: object) -> str:
    """The name of the execution that a tick launched for as many messages."""
    here.backlog_is(count)
    (name,) = tick(lane(**changes), here.outside).launched
    return name


def ended(name: str = "e", *, acked: int = 0, failed: int = 0, cancelled: int = 0, reason: str = "share_done", at: float = T) -> Worked:
    info = ExecutionInfo(
        f"{JOB}/executions/{name}", 1, at - 100, completed_at=at, failed_count=failed, cancelled_count=cancelled, env={"DECISION_ID": "d.0"}
    )
    return Worked(info, {0: [progress(100, at - 90, updated_at=at, taken=50, acked=acked, exit_reason=reason)]})


# --- condition


def test_a_lane_that_drains_is_ok(here: World) -> None:
    found = health(here)
    assert (found.condition, found.late_ratio, found.backlog_count, found.day_usd) == (Condition.OK, 0.0, None, 0.0)
    here.backlog_is(250)
    assert health(here).unassigned_count == 250


def test_conditions_by_what_holds_it(here: World) -> None:
    here.backlog_is(250)
    assert health(here, paused=True).condition is Condition.PAUSED
    assert health(here, problems=("no such setting",)).condition is Condition.HELD
    here.runner.add(1, {})
    here.runner.list_errors = [DependencyUnavailable("no answer")]
    assert health(here).condition is Condition.UNKNOWN
    here.backlog.reading = Unknown("no answer")
    assert health(here).condition is Condition.UNKNOWN


def test_a_launch_that_cloud_run_refuses_holds_the_lane(here: World) -> None:
    here.backlog_is(250)
    here.runner.run_errors = [DependencyForbidden("403")]
    assert health(here).condition is Condition.HELD


def test_a_broken_lane_stays_broken_while_one_worker_tries(here: World) -> None:
    name = launched(here)
    for index in range(3):
        write_progress(here.store, name, index, progress(83, here.clock.now(), exit_reason="broken"))
    here.runner.fail(name, here.clock.now() + 1)
    here.clock.advance(30)
    here.backlog_is(250)
    assert health(here).condition is Condition.BROKEN
    here.clock.advance(90)
    here.backlog_is(250)
    found = tick(lane(), here.outside)
    assert found.launched
    assert found.health is not None
    assert (found.health.condition, found.health.late_ratio) == (Condition.BROKEN, None)


def test_what_launches_nothing_is_not_late(here: World) -> None:
    here.backlog_is(250)
    health(here, paused=True)
    here.clock.advance(3600)
    here.backlog_is(250)
    assert health(here, paused=True).late_ratio is None


# --- lateness


def test_lateness_is_the_longest_wait_as_a_part_of_the_target(here: World) -> None:
    here.backlog_is(250)
    tick(lane(drain_within_s=100.0), here.outside, dry_run=True)
    here.backlog.reading = Value(250, here.clock.now(), 80.0)
    assert health(here, drain_within_s=100.0).late_ratio == pytest.approx(0.8)
    assert health(here, drain_within_s=40.0).late_ratio == pytest.approx(2.0)


def test_messages_of_a_live_worker_wait_until_it_has_done_them(here: World) -> None:
    name = launched(here, 100, drain_within_s=100.0)
    here.clock.advance(150)
    sampled_at = here.clock.now()
    here.backlog.reading = Value(100, sampled_at, 162.0)
    assert health(here, dry_run=True, drain_within_s=100.0).late_ratio == pytest.approx(1.62)
    here.clock.advance(60)  # the gauge does not show yet that all is done
    marks = ((int(sampled_at), 0),)
    for index in range(2):
        done = progress(50, sampled_at, updated_at=here.clock.now(), taken=50, acked=50, marks=marks)
        write_progress(here.store, name, index, done)
    assert health(here, dry_run=True, drain_within_s=100.0).late_ratio == 0.0


def test_a_message_that_waits_for_its_backoff_is_not_late(here: World) -> None:
    name = launched(here, 100)
    here.clock.advance(150)
    now = here.clock.now()
    put_off = progress(
        100, now - 140, updated_at=now, taken=100, acked=60, returned=40, deferred=((int(now + 500), 40),), exit_reason="share_done"
    )
    write_progress(here.store, name, 0, put_off)
    here.runner.complete(name, now)
    here.clock.advance(60)
    here.backlog.reading = Value(40, here.clock.now(), 220.0)
    assert health(here, drain_within_s=100.0).late_ratio == 0.0


# --- money


def test_a_live_worker_costs_until_now_and_an_ended_launch_stays_for_a_day(here: World) -> None:
    name = launched(here, 100)
    here.clock.advance(200)
    assert health(here).day_usd == pytest.approx(200 * WORKER_USD, abs=1e-4)
    now = here.clock.now()
    write_progress(here.store, name, 0, progress(100, now - 190, updated_at=now, taken=100, acked=100, exit_reason="share_done"))
    here.runner.complete(name, now)
    here.backlog.reading = Idle()
    costs = []
    for _ in range(3):
        costs.append(health(here).day_usd)
        here.clock.advance(HOUR_S)
    assert costs == [pytest.approx(200 * WORKER_USD, abs=1e-4)] * 3  # once, though its execution is seen again
    here.clock.advance(DAY_S)
    assert health(here).day_usd == 0.0


def test_what_has_not_started_late_costs_nothing_yet(here: World) -> None:
    here.backlog_is(100)
    late = replace(lane(), is_delayed=True, start_within_s=12 * HOUR_S)
    tick(late, here.outside)
    here.clock.advance(3600)
    here.runner.all = {name: replace(one, running_count=0) for name, one in here.runner.all.items()}
    found = tick(late, here.outside).health
    assert found is not None
    assert (found.day_usd, found.worker_count) == (0.0, 1)


def test_hours_older_than_a_day_are_forgotten() -> None:
    state = LaneState("default", launches=(OpenLaunch("d", T, 1),), spent=((T - 2 * DAY_S, 5.0), (T - HOUR_S, 1.0)))
    after = state.compared([ended(acked=50)], LANE, T)
    assert [hour for hour, _ in after.spent] == [T - HOUR_S, T - T % HOUR_S]
    assert after.spent_usd(T) == pytest.approx(1.0 + 100 * WORKER_USD, abs=1e-5)


# --- launches that fail


@pytest.mark.parametrize(
    ("one", "failed"),
    [
        (ended(acked=50), False),
        (ended(), False),  # it found nothing to do
        (ended(acked=20, failed=1, reason="stuck"), True),
        (ended(failed=1, reason=""), True),  # killed, by a task or for its memory
        (ended(failed=1, reason="broken"), None),
        (ended(acked=20, cancelled=1, reason=""), None),
    ],
)
def test_what_a_launch_says_about_failing(one: Worked, failed: bool | None) -> None:
    assert has_failed("d", [one]) is failed


def test_failures_count_until_one_launch_ends_well() -> None:
    state = LaneState("default", failed_launch_count=0)
    counts = []
    for one in (ended(failed=1, reason=""), ended(acked=20, failed=1), ended(failed=1, reason="broken"), ended(acked=50)):
        state = replace(state, launches=(OpenLaunch("d", T, 1),)).compared([one], LANE, T)
        counts.append(state.failed_launch_count)
    assert counts == [1, 2, 2, 0]


# --- what is logged


def test_what_a_drain_took_is_told_by_the_tick_that_sees_its_end() -> None:
    before = LaneState("default", launches=(OpenLaunch("d", T - 100, 1, 50.0),))
    after = before.compared([ended(acked=50)], LANE, T)
    (end,) = after.ends_after(before)
    assert end["drain_error_percent"] == 100.0
    assert after.compared([ended(acked=50)], LANE, T).ends_after(after) == []


def test_the_events_are_in_the_table() -> None:
    assert {"lane_ticked", "lane_troubled", "round_ticked"} <= set(EVENTS)
