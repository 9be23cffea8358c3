"""The states of an execution and the plans for it, without processes or time."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local_cloud.run.api.conditions import of_execution
from local_cloud.run.model.execution import Execution, InvalidEvent
from local_cloud.run.model.job import JobKey
from local_cloud.run.model.scheduler import Do, plan
from local_cloud.run.model.task import Event, Kind, Measured, Phase, Reason, Try, can_move
from local_cloud.run.runner.settings import StartUp
from local_cloud.run.spec.template import Container, Template

MAX_PROCESS_COUNT = 4


def execution(name: str = "lane-aaaaa", sequence: int = 1, **template: object) -> Execution:
    shape = Template(containers=(Container(image="i", command=("true",)),), **template)  # type: ignore[arg-type]
    return Execution(JobKey("p", "r", "lane"), name, "uid", "job", 1, sequence, 100.0, shape)


def reserve_and_start(subject: Execution, at_s: float = 100.0) -> int:
    index = subject.pending[0]
    subject.apply(Event(Kind.RESERVED, at_s, index))
    subject.apply(Event(Kind.STARTED, at_s, index))
    return index


def planned(subject: Execution, now_s: float, max_process_count: int = MAX_PROCESS_COUNT) -> list[tuple[Do, int]]:
    return [(action.do, action.index) for action in plan([subject], now_s, max_process_count).actions]


def test_success_failure_and_retry_are_counted_once_each() -> None:
    subject = execution(task_count=2, max_retries=1)
    first, second = reserve_and_start(subject), reserve_and_start(subject)
    assert (subject.running_count, subject.outcome) == (2, Phase.RUNNING)
    subject.apply(Event(Kind.ENDED, 101, first, exit_code=1))
    assert (subject.retried_count, subject.failed_count, subject.pending) == (1, 0, [first])
    subject.apply(Event(Kind.ENDED, 102, second, exit_code=0))
    assert not subject.is_over
    reserve_and_start(subject)
    subject.apply(Event(Kind.ENDED, 103, first, term_signal=9))
    assert (subject.succeeded_count, subject.failed_count, subject.retried_count, subject.completion_s) == (1, 1, 1, 103)
    assert subject.outcome is Phase.FAILED
    completed = of_execution(subject)[0]
    assert (completed.ok, completed.reason) == (False, "NonZeroExitCode")
    assert "signal 9" in completed.message


def test_a_timed_out_try_fails_even_if_it_ends_with_zero() -> None:
    subject = execution(max_retries=0)
    index = reserve_and_start(subject)
    subject.apply(Event(Kind.STOPPING, 700, index, reason=Reason.TIMEOUT))
    subject.apply(Event(Kind.ENDED, 701, index, exit_code=0))
    assert subject.outcome is Phase.FAILED


def test_a_cancelled_execution_starts_nothing_more() -> None:
    subject = execution(task_count=3, max_retries=5)
    index = reserve_and_start(subject)
    subject.apply(Event(Kind.STOPPING, 700, index, reason=Reason.TIMEOUT))
    subject.apply(Event(Kind.CANCEL, 701))
    assert (subject.cancelled_count, subject.pending, subject.is_over) == (2, [], False)
    subject.apply(Event(Kind.ENDED, 702, index, exit_code=0))
    assert (subject.cancelled_count, subject.outcome) == (3, Phase.CANCELLED)
    with pytest.raises(InvalidEvent):
        subject.apply(Event(Kind.CANCEL, 703))


@pytest.mark.parametrize(
    "event",
    [
        Event(Kind.RESERVED, 1, 1),
        Event(Kind.STARTED, 1, 0),
        Event(Kind.ENDED, 1, 0, exit_code=0),
        Event(Kind.STOPPING, 1, 0, reason=Reason.TIMEOUT),
        Event(Kind.KILLED, 1, 0),
    ],
)
def test_events_that_cannot_be_are_refused(event: Event) -> None:
    subject = execution(task_count=2)
    with pytest.raises(InvalidEvent, match="lane-aaaaa"):
        subject.apply(event)
    assert subject.version == 1


def test_slots_are_given_in_order_of_index_within_the_limits() -> None:
    subject = execution(task_count=10, parallelism=3)
    assert planned(subject, 100) == [(Do.RESERVE, -1)] * 3
    assert reserve_and_start(subject) == 0
    assert planned(subject, 100) == [(Do.RESERVE, -1)] * 2
    assert len(planned(execution(task_count=10), 100)) == 4, "parallelism 0: as many as the server allows"
    assert len(planned(execution(task_count=2), 100)) == 2


def test_a_large_execution_does_not_shut_out_a_later_one() -> None:
    large, small = execution("large", 1, task_count=100), execution("small", 2, task_count=2)
    assert [action.execution for action in plan([large, small], 100, MAX_PROCESS_COUNT).actions] == ["large", "small", "large", "small"]


def test_the_start_up_delay_and_the_timeout_run_from_the_slot_on() -> None:
    subject = execution(timeout_s=60)
    subject.apply(Event(Kind.RESERVED, 100, 0, delay_s=20))
    assert plan([subject], 110, MAX_PROCESS_COUNT).wake_s == 120
    assert planned(subject, 120) == [(Do.SPAWN, 0)]
    subject.apply(Event(Kind.STARTED, 120, 0))
    assert plan([subject], 130, MAX_PROCESS_COUNT).wake_s == 160
    assert planned(subject, 160) == [(Do.TERMINATE, 0)]


def test_a_try_that_never_started_expires() -> None:
    subject = execution(timeout_s=10)
    subject.apply(Event(Kind.RESERVED, 100, 0, delay_s=20))
    assert planned(subject, 110) == [(Do.EXPIRE, 0)]


def test_kill_follows_terminate_after_the_grace_and_only_once() -> None:
    subject = execution()
    reserve_and_start(subject)
    subject.apply(Event(Kind.CANCEL, 200))
    assert planned(subject, 200) == [(Do.TERMINATE, 0)]
    subject.apply(Event(Kind.STOPPING, 200, 0, reason=Reason.CANCEL))
    made = plan([subject], 201, MAX_PROCESS_COUNT)
    assert (made.actions, made.wake_s) == ([], 210)
    assert planned(subject, 210) == [(Do.KILL, 0)]
    subject.apply(Event(Kind.KILLED, 210, 0))
    assert planned(subject, 300) == []


def test_a_migration_is_three_steps_each_at_its_time() -> None:
    subject = execution(timeout_s=600)
    reserve_and_start(subject)
    subject.apply(Event(Kind.MIGRATE, 200, 0, pause_s=30))
    with pytest.raises(InvalidEvent):
        subject.apply(Event(Kind.MIGRATE, 201, 0, pause_s=30))
    for due_s in (200, 210, 240):
        made = plan([subject], due_s - 1, MAX_PROCESS_COUNT)
        assert (made.actions, made.wake_s) == ([], due_s)
        assert planned(subject, due_s) == [(Do.MOVE, 0)]
        subject.apply(Event(Kind.MOVED, due_s, 0))
    assert (planned(subject, 400), subject.tasks[0].migration) == ([], None)
    with pytest.raises(InvalidEvent):
        subject.apply(Event(Kind.MOVED, 400, 0))


def test_a_worker_that_is_ended_is_moved_no_further() -> None:
    subject = execution(timeout_s=150, max_retries=1)
    reserve_and_start(subject)
    subject.apply(Event(Kind.MIGRATE, 245, 0, pause_s=30))
    subject.apply(Event(Kind.MOVED, 245, 0))
    assert planned(subject, 250) == [(Do.TERMINATE, 0)]
    subject.apply(Event(Kind.STOPPING, 250, 0, reason=Reason.TIMEOUT))
    with pytest.raises(InvalidEvent):
        subject.apply(Event(Kind.MOVED, 255, 0))
    assert planned(subject, 256) == []
    assert planned(subject, 260) == [(Do.KILL, 0)]
    subject.apply(Event(Kind.ENDED, 256, 0, term_signal=15))
    reserve_and_start(subject, 260)
    assert planned(subject, 300) == []


def test_each_try_keeps_what_it_used() -> None:
    subject = execution(max_retries=1)
    for at_s, code in ((100.0, 1), (110.0, 0)):
        reserve_and_start(subject, at_s)
        subject.apply(Event(Kind.ENDED, at_s + 5, 0, exit_code=code, cpu_s=0.5 + code, peak_memory_bytes=1000))
    assert subject.tasks[0].tries == [
        Try(0, 100.0, 105.0, 1, None, Measured(1.5, 1000)),
        Try(1, 110.0, 115.0, 0, None, Measured(0.5, 1000)),
    ]


def test_drawn_delays_are_repeatable_and_lie_around_the_median() -> None:
    fixed = StartUp(median_s=8)
    assert {fixed.delay_s(1, index, 0) for index in range(9)} == {8}
    drawn = StartUp(median_s=8, spread=0.5, seed=3)
    delays = sorted(drawn.delay_s(1, index, 0) for index in range(1001))
    assert delays == sorted(drawn.delay_s(1, index, 0) for index in reversed(range(1001)))
    assert delays[500] == pytest.approx(8, rel=0.1)
    assert delays[841] / delays[500] == pytest.approx(1.65, rel=0.15), "one standard deviation above"
    assert len(set(delays)) == 1001
    assert drawn.delay_s(1, 0, 0) != drawn.delay_s(1, 0, 1) != StartUp(8, 0.5, 4).delay_s(1, 0, 0)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    task_count=st.integers(1, 8),
    parallelism=st.integers(0, 8),
    max_retries=st.integers(0, 2),
    cancel_at=st.integers(0, 60),
)
def test_any_course_ends_with_every_task_counted_once(
    seed: int, task_count: int, parallelism: int, max_retries: int, cancel_at: int
) -> None:
    rng = random.Random(seed)
    subject = execution(task_count=task_count, parallelism=min(parallelism, task_count), max_retries=max_retries, timeout_s=5)
    events: list[Event] = []
    for step in range(2000):
        if subject.is_over:
            break
        event = Event(Kind.CANCEL, 100 + step) if step == cancel_at else next_event(subject, rng, 100.0 + step)
        if event is not None:
            subject.apply(event)
            events.append(event)
        check(subject)
    assert subject.is_over
    assert subject.succeeded_count + subject.failed_count + subject.cancelled_count == task_count
    again = execution(task_count=task_count, parallelism=min(parallelism, task_count), max_retries=max_retries, timeout_s=5)
    for event in events:
        again.apply(event)
    assert again == subject


def next_event(subject: Execution, rng: random.Random, now_s: float) -> Event | None:
    """What the runner would report next: an end of a process, or what the plan says."""
    running = [task.index for task in subject.active.values() if task.phase is Phase.RUNNING]
    movable = [task.index for task in subject.active.values() if can_move(task)]
    if movable and rng.random() < 0.2:
        return Event(Kind.MIGRATE, now_s, rng.choice(movable), pause_s=rng.choice([0.0, 3.0]))
    if running and rng.random() < 0.4:
        return Event(Kind.ENDED, now_s, rng.choice(running), exit_code=rng.choice([0, 0, 1]))
    actions = plan([subject], now_s, MAX_PROCESS_COUNT).actions
    if not actions:
        return None
    action = rng.choice(actions)
    if action.do is Do.RESERVE:
        return Event(Kind.RESERVED, now_s, subject.pending[0])
    if action.do is Do.EXPIRE:
        return Event(Kind.ENDED, now_s, action.index, term_signal=9, reason=action.reason)
    kinds = {Do.SPAWN: Kind.STARTED, Do.TERMINATE: Kind.STOPPING, Do.KILL: Kind.KILLED, Do.MOVE: Kind.MOVED}
    return Event(kinds[action.do], now_s, action.index, reason=action.reason)


def check(subject: Execution) -> None:
    assert len(subject.active) <= min(subject.template.parallelism or 99, MAX_PROCESS_COUNT)
    assert subject.running_count == sum(task.phase is Phase.RUNNING for task in subject.tasks)
    assert subject.retried_count == sum(task.attempt > 0 for task in subject.tasks)
    assert all(task.attempt <= subject.template.max_retries for task in subject.tasks)
    assert sorted(subject.pending) == [task.index for task in subject.tasks if task.phase is Phase.PENDING]
