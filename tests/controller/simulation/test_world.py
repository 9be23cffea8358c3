"""The simulated world: what it does with messages, workers, the gauge and money, and that the real policy is what drives it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch.worker.life import BILLING_RESERVE_S
from controller.decide import sizing
from controller.model.reading import Idle, Value
from controller.simulation.given.delays import Lag, StartUp
from controller.simulation.given.durations import Fixed, LogNormal
from controller.simulation.given.scenario import Failures, Load, Scenario
from controller.simulation.running import run_fanout
from controller.simulation.world.fleet import Execution
from controller.simulation.world.seams import reading_of
from controller.simulation.world.world import LaneWorld, World

START_UP_S = 8.0
LAG_S = 120.0
MANY = "10000"


def always(seconds: float) -> StartUp:
    """The same seconds each time."""
    return StartUp(seconds, seconds)


def load(*arrivals: tuple[float, int], message_s: float = 1.0, **more: object) -> Load:
    return Load(**{"arrivals": arrivals, "durations": Fixed(message_s), "concurrency": 1, **more})  # type: ignore[arg-type]


def scenario(*loads: Load, **more: object) -> Scenario:
    known = {"lag": Lag(LAG_S), "start_up": always(START_UP_S), "horizon_s": 600.0, "floor_s": 0.0, "idle_tail_s": 3.0}
    return Scenario(**{"name": "here", "loads": loads, **known, **more})  # type: ignore[arg-type]


def world(one: Load, drain_within_s: float = 600.0, **more: Any) -> tuple[World, LaneWorld]:
    made = World(scenario(one, **more), {one.name: drain_within_s})
    return made, made.lanes[one.name]


def launched_at(
    one: Load, at_s: float, workers: int, backlog: int | None, limit: int | None = None, **more: Any
) -> tuple[LaneWorld, Execution]:
    """The lane after a run in which one execution is launched."""
    made, lane = world(one, **more)
    made_here: list[Execution] = []
    made.at(made.start_at + at_s, lambda: made_here.append(made.launch(lane, workers, {}, backlog=backlog, limit=limit)))
    made.run()
    return lane, made_here[0]


def test_hours_of_a_delayed_start_are_not_paid_for() -> None:
    costs = [
        launched_at(load((0.0, 20), is_delayed=is_delayed), 0.0, 1, 20, start_up=always(500.0))[0].count.cost_s
        for is_delayed in (False, True)
    ]
    assert costs == [500.0 + 20.0, 20.0]


def _launched(made: World, lane: LaneWorld, workers: int) -> None:
    made.launch(lane, workers, {})


# --- messages


@dataclass(frozen=True)
class Crowd:
    """What is published, and workers that are launched every 30 s, whatever the gauge says."""

    arrivals: tuple[tuple[float, int], ...]
    message_s: float
    failed_share: float
    timeout_s: float
    workers: int
    threads: int


CROWDS = st.builds(
    Crowd,
    arrivals=st.lists(st.tuples(st.floats(0, 300), st.integers(1, 60)), min_size=1, max_size=5).map(lambda found: tuple(sorted(found))),
    message_s=st.sampled_from([0.001, 0.4, 7.0]),
    failed_share=st.sampled_from([0.0, 0.3, 1.0]),
    timeout_s=st.sampled_from([20.0, 600.0]),
    workers=st.integers(1, 5),
    threads=st.integers(1, 4),
)


@settings(max_examples=25)
@given(CROWDS)
def test_every_message_is_done_once_or_dead(crowd: Crowd) -> None:
    failures = Failures(crowd.failed_share, after_s=50.0, attempts=3)
    one = load(*crowd.arrivals, message_s=crowd.message_s, failures=failures, task_timeout_s=crowd.timeout_s, concurrency=crowd.threads)
    made, lane = world(one, horizon_s=5000.0)
    for number in range(200):
        made.at(made.start_at + 30.0 * number, lambda: _launched(made, lane, crowd.workers))
    made.run()
    sent_count = sum(count for _, count in crowd.arrivals)
    assert lane.count.done_count == sent_count
    assert lane.queue.unacked_count == lane.queue.waiting_count == 0
    assert lane.count.dead_count == (sent_count if crowd.failed_share == 1.0 else 0 if not crowd.failed_share else lane.count.dead_count)
    workers = [worker for execution in lane.executions for worker in execution.workers]
    assert sum(worker.acked for worker in workers) == sent_count
    assert all(worker.taken == worker.acked + worker.returned for worker in workers)


def test_messages_that_fail_come_again_later_and_die_with_their_last_run() -> None:
    made, lane = world(load((0, 10), failures=Failures(1.0, after_s=100.0, attempts=3)))
    for at_s in (0.0, 110.0, 220.0):
        made.at(made.start_at + at_s, lambda: _launched(made, lane, 1))
    made.run()
    assert lane.availabilities[0] == (0.0, 10)
    assert [round(at_s) for at_s, _ in lane.availabilities[1:11]] == [109 + number for number in range(10)]
    assert len(lane.availabilities) == 1 + 20
    assert (lane.count.done_count, lane.count.dead_count, lane.queue.unacked_count) == (10, 10, 0)
    first = lane.executions[0].workers[0]
    assert (first.progress(made.clock.now()).handled, first.acked) == (10, 0)  # type: ignore[union-attr]
    assert first.deferred == [(int(made.start_at) + 109 + number, 1) for number in range(10)]


def test_a_producer_publishes_again_what_is_not_done_in_time_but_never_for_its_copies() -> None:
    lane, _ = launched_at(load((0, 31), republish_after_s=20.5), 0.0, 1, None)
    assert lane.queue.arrived_count == 31 + 19  # 12 are done 20.5 s after the start, all 31 after 39 s
    assert lane.count.done_count == 50
    calm, _ = launched_at(load((0, 31), republish_after_s=50.0), 0.0, 1, None)
    assert calm.queue.arrived_count == 31
    slow, _ = launched_at(load((0, 1), message_s=30.0, republish_after_s=9.5), 0.0, 1, None)
    assert slow.queue.arrived_count == 1 + 3  # it is done after 38 s


def test_a_message_is_late_from_its_deadline_on() -> None:
    """Ten messages, one after the other, 8 s after the launch: six are done within 14 s."""
    made, lane = world(load((0, 10)), drain_within_s=14.0)
    made.launch(lane, 1, {})
    made.run()
    assert lane.count.late_count == 4


# --- workers


@pytest.mark.parametrize(("backlog", "workers"), [(7, 1), (7, 2), (6, 3)])
def test_a_worker_takes_its_share_and_no_more_once_its_minute_is_over(backlog: int, workers: int) -> None:
    lane, execution = launched_at(load((0, 100), concurrency=3), 0.0, workers, backlog, floor_s=0.0, horizon_s=60.0)
    assert [worker.taken for worker in execution.workers] == [backlog // workers + (index < backlog % workers) for index in range(workers)]
    assert lane.queue.waiting_count == 100 - backlog
    assert execution.completed_at is not None


def test_within_its_paid_minute_a_worker_goes_on_after_its_share() -> None:
    lane, execution = launched_at(load((0, 100)), 0.0, 1, 7, floor_s=60.0, horizon_s=60.0)
    (worker,) = execution.workers
    assert worker.taken == 52  # its minute began a second before it did; of 1 s each, the last ends 7 s before that is over
    assert lane.queue.unacked_count == 100 - 52
    assert worker.ended_at == worker.begun_at - 1.0 + 60.0 - BILLING_RESERVE_S - 2.0


def test_after_its_share_a_worker_goes_on_until_a_pull_finds_nothing() -> None:
    late, execution = launched_at(load((0, 7), (19, 2), (26.5, 3)), 0.0, 1, 7, floor_s=60.0)
    assert execution.workers[0].taken == 9  # it has had its share at 15 s, the next two at 21 s, and is gone at 26 s
    assert execution.completed_at is not None
    assert execution.completed_at - execution.created_at == 26.0
    assert late.queue.unacked_count == 3


def test_a_pull_that_finds_nothing_is_the_last_although_a_thread_is_still_busy() -> None:
    """Two threads, three messages of 12 s: the second thread finds nothing from 20 s on, and the worker asks no more after 25 s."""
    one = load((0, 3), (27, 1), message_s=12.0, concurrency=2)
    lane, execution = launched_at(one, 0.0, 1, 3, floor_s=90.0)
    assert execution.workers[0].taken == 3
    assert execution.completed_at is not None
    assert execution.completed_at - execution.created_at == 32.0
    assert lane.queue.unacked_count == 1


def test_a_worker_whose_minute_is_over_ends_with_its_last_message_although_a_thread_waits() -> None:
    """Two threads wait for the last of three messages, which takes one of them beyond the minute."""
    _, execution = launched_at(load((0, 2), (20, 1), message_s=5.0, concurrency=2), 0.0, 1, 3, floor_s=20.0)
    assert execution.completed_at is not None
    assert execution.completed_at - execution.created_at == 25.0


def test_a_worker_that_has_not_had_its_share_waits_for_it_while_its_minute_lasts() -> None:
    _, execution = launched_at(load((0, 7), (50, 1)), 0.0, 1, 8, floor_s=60.0)
    assert execution.workers[0].taken == 8


@pytest.mark.parametrize(("limit", "taken_count"), [(7, 7), (20, 20), (3, 7)])
def test_a_limit_bounds_what_is_taken_in_the_paid_minute(limit: int, taken_count: int) -> None:
    _, execution = launched_at(load((0, 100), concurrency=4), 0.0, 1, 7, limit, floor_s=60.0, horizon_s=60.0)
    assert execution.workers[0].taken == taken_count


def test_at_its_task_timeout_a_worker_gives_back_what_it_holds() -> None:
    one = load((0, 40), message_s=7.0, concurrency=2, task_timeout_s=30.0)
    lane, execution = launched_at(one, 0.0, 1, 40, horizon_s=60.0)
    (worker,) = execution.workers
    assert worker.ended_at == worker.begun_at + 30.0
    assert (worker.acked, worker.returned, worker.taken) == (8, 2, 10)
    assert lane.queue.waiting_count == lane.queue.unacked_count == 32
    assert worker.progress(worker.ended_at).exit_reason == "out_of_time"  # type: ignore[union-attr]


def test_a_worker_is_paid_for_from_its_launch_on_and_for_the_floor_at_least() -> None:
    short, _ = launched_at(load((0, 4)), 5.0, 2, 4, floor_s=60.0)
    assert short.count.cost_s == pytest.approx(2 * 60.0)
    long, _ = launched_at(load((0, 100)), 5.0, 1, 100, floor_s=60.0)
    assert long.count.cost_s == pytest.approx(START_UP_S + 100.0)


def test_a_worker_without_anything_to_do_is_counted() -> None:
    lane, _ = launched_at(load((0, 2)), 0.0, 3, None)
    assert (lane.count.worker_count, lane.count.waste_count) == (3, 1)


def test_a_worker_that_is_stopped_before_it_began_never_begins() -> None:
    made, lane = world(load((0, 5)))
    execution = made.launch(lane, 1, {})
    made.at(made.start_at + 1.0, lambda: made.stop(lane, execution.workers[0]))
    made.run()
    assert lane.count.done_count == 0
    assert execution.info.running_count == 0
    assert execution.workers[0].ended_at == made.start_at + 1.0


def test_progress_is_as_old_as_the_last_write_and_its_marks_are_on_the_grid() -> None:
    made, lane = world(load((0, 100)), start_up=always(8.5))
    worker = made.launch(lane, 1, {}, backlog=100).workers[0]
    seen: list[tuple[float, int]] = []

    def look() -> None:
        found = worker.progress(made.clock.now())
        assert found is not None
        seen.append((found.updated_at - made.start_at, found.acked))

    for at_s in (14.0, 19.0, 28.0, 32.0):
        made.at(made.start_at + at_s, look)
    made.run()
    assert seen[0] == (8.5, 0)
    assert seen[1] == seen[2] == (14.5, 5)  # the first outcomes were there at 9.5 s, and flushed 5 s later
    assert 28.0 <= seen[3][0] <= 31.0
    assert 20 <= seen[3][1] <= 22
    last = worker.progress(made.clock.now())
    assert last is not None
    assert [(at - made.start_at, acked) for at, acked in last.marks[:3]] == [(15, 6), (30, 21), (45, 36)]


# --- the gauge


def test_the_gauge_shows_only_what_is_visible() -> None:
    made, lane = world(load((0, 5), (70, 3)), gauge_phase_s=10.0)
    shown: list[object] = []
    for at_s in (129.0, 131.0, 191.0):
        made.at(made.start_at + at_s, lambda: shown.append(reading_of(lane, made.clock.now())))
    made.run()
    assert isinstance(shown[0], Idle)
    assert shown[1] == Value(5, made.start_at + 10.0, 10.0)
    assert shown[2] == Value(8, made.start_at + 70.0, 70.0)


def test_the_gauge_counts_what_is_on_a_lease_or_deferred() -> None:
    one = load((0, 5), message_s=30.0, failures=Failures(1.0, after_s=500.0, attempts=2))
    made, lane = world(one, gauge_phase_s=55.0, lag=Lag(0.0))
    made.launch(lane, 1, {})
    made.run()
    assert [sample.undelivered_count for sample in lane.samples[:3]] == [5, 5, 5]


def test_a_sample_that_is_lost_is_never_seen() -> None:
    made, lane = world(load((0, 5)), lag=Lag(LAG_S, gap_share=1.0))
    made.run()
    assert not lane.samples
    assert isinstance(reading_of(lane, made.clock.now()), Idle)


# --- runs with the real policy

POLICY: Mapping[str, str] = {"fanout/drain-within": "10m", "fanout/max-workers": MANY}


def fanout_scenario(**more: object) -> Scenario:
    one = load((0, 400), (900, 3000), durations=LogNormal(1.0, 0.3), concurrency=4, annotations=POLICY, task_timeout_s=300.0)
    return scenario(one, **{"horizon_s": 1800.0, "floor_s": 60.0, **more})


def outcome(one: Scenario) -> list[object]:
    run = run_fanout(one)
    return [run.counts, run.courses, [(each.decided_at, each.workers, each.reason) for each in run.decisions]]


def test_the_same_seed_gives_the_same_run_and_another_one_another() -> None:
    assert outcome(fanout_scenario()) == outcome(fanout_scenario())
    assert outcome(fanout_scenario()) != outcome(replace(fanout_scenario(), seed=2))


def test_the_real_policy_is_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a share may fill of the task timeout decides how many workers the second wave gets, and nothing that is simulated knows it."""
    before = run_fanout(fanout_scenario()).counts["default"].worker_count
    monkeypatch.setattr(sizing, "TIMEOUT_PART", 0.1)
    assert run_fanout(fanout_scenario()).counts["default"].worker_count > before


def test_every_message_of_a_run_is_done_in_time_without_an_empty_worker() -> None:
    run = run_fanout(fanout_scenario())
    count = run.counts["default"]
    assert (count.done_count, run.in_time_share, run.waste_count) == (3400, 1.0, 0)
    assert sum(one.workers for one in run.decisions) == count.worker_count


def test_a_lane_that_is_ticked_every_five_minutes_does_not_wait_for_a_tick_that_is_too_late() -> None:
    lane = load((5, 100), (1805, 100), message_s=2.0, concurrency=4)
    lane = replace(lane, annotations={"fanout/drain-within": "10m", "fanout/max-wait": "10m"})
    one = Scenario("rare", (lane,), Lag(120.0), StartUp(4.0, 12.0), 3600.0, tick_every_s=300.0)
    assert run_fanout(one).in_time_share == 1.0


def test_an_execution_of_a_delayed_job_starts_as_a_whole_and_is_paid_for_from_then_on() -> None:
    one = load((0, 40), message_s=10.0, is_delayed=True)
    lane, execution = launched_at(one, 1.0, 2, 40, start_up=StartUp(3600.0, 7200.0), floor_s=60.0, horizon_s=10_000.0)
    first, second = execution.workers
    assert first.begun_at == second.begun_at >= execution.created_at + 3600.0
    assert 2 * 200.0 <= lane.count.cost_s <= 2 * 210.0


def test_many_workers_and_a_large_backlog_take_few_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread takes several short messages at once: events grow with threads and time, not with messages."""
    events: list[float] = []
    at = World.at

    def counted(self: World, when: float, call: Callable[[], None]) -> None:
        events.append(when)
        at(self, when, call)

    monkeypatch.setattr(World, "at", counted)
    made, lane = world(load((0, 200_000), message_s=0.005, concurrency=2), floor_s=60.0)
    made.launch(lane, 100, {}, backlog=200_000)
    made.run()
    assert lane.count.done_count == 200_000
    assert len(events) < 200 * 40  # each of 200 threads has 5 s of work, and takes half a second of it at a time
