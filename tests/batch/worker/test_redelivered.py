"""Messages that were delivered before: no slot waits for the bucket, few starts stand in it, and quarantined tasks wait beside the line."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import suppress
from typing import Any

import pytest

from batch.handling.answer import Answer, Said
from batch.model.attempts import Attempts, Marker
from batch.model.clock import SystemClock, iso
from batch.model.delivery import Delivery
from batch.model.exit import ExitReason
from batch.model.message import Task, encode
from batch.model.names import attempts_object
from batch.worker import unstarted
from batch.worker.admission.markers import RECORDS_IN_FLIGHT, Markers
from batch.worker.admission.records import read_attempts, write_attempts
from batch.worker.attempt import Attempt
from batch.worker.executors import quarantine
from batch.worker.executors.groups import GroupExecutor
from batch.worker.executors.processes import Isolation
from batch.worker.executors.threads import ThreadExecutor
from batch.worker.life import Worker
from tests.batch.worker.plant import Plant, ended, in_thread
from tests.support import wait_until

GONE = Marker("gone-x", 3, 0, "2026-01-31T12:00:00.000000Z")


def delivered_before(plant: Plant) -> None:
    """All messages come to somebody who gives them back."""
    plant.subscription.nack([one.ack_id for one in plant.subscription.pull(1000, 0)])


def starts(plant: Plant) -> list[str]:
    """The tasks with a start of this worker on record."""
    ids = [name.removeprefix("attempts/").removesuffix(".json") for name in plant.store.names("attempts/")]
    return [one for one in ids if (start := read_attempts(plant.store, one)[0].in_progress) and start.execution == "lane-x"]


class Blocked:
    """A handler that does not return before `release`; `began` are the tasks that it was called for."""

    def __init__(self, plant: Plant) -> None:
        self.release = threading.Event()
        self.began: list[str] = []

        @plant.registry.task("blocked")
        def blocked(task: Task, ctx: Any) -> None:
            self.began.append(task.task_id)
            assert self.release.wait(60)


def slow_worker(plant: Plant, backlog: int, concurrency: int = 1) -> Worker:
    """One whose handlers have taken 10 s each, and that takes in hand what begins within a minute."""
    worker = plant.worker(BACKLOG=backlog, CONCURRENCY=concurrency, PREFETCH_S=60)
    worker.tally.ran(1, 10.0, 10.0)
    return worker


def note(plant: Plant) -> None:
    @plant.registry.task("note")
    def note(task: Task, ctx: Any) -> None:
        return None


def silent_records(plant: Plant) -> tuple[threading.Event, threading.Event]:
    """The bucket does not answer for records: whether one was asked for, and what makes it answer."""
    asked, answers = threading.Event(), threading.Event()
    original = plant.store.read_with_info

    def silent(name: str) -> Any:
        if name.startswith("attempts/"):
            asked.set()
            assert answers.wait(60)
        return original(name)

    plant.store.read_with_info = silent  # type: ignore[method-assign]
    return asked, answers


# --- records


@pytest.mark.parametrize("method", ["read_with_info", "write", "delete"])
def test_more_records_are_dealt_with_at_a_time_than_there_are_slots(method: str) -> None:
    plant = Plant()
    note(plant)
    together, met, original = threading.Barrier(RECORDS_IN_FLIGHT), threading.Event(), getattr(plant.store, method)

    def meets(name: str, *arguments: Any, **options: Any) -> Any:
        if name.startswith("attempts/") and not together.broken:
            with suppress(threading.BrokenBarrierError):
                together.wait(30)
                met.set()
                together.abort()
        return original(name, *arguments, **options)

    setattr(plant.store, method, meets)
    plant.submit(200, "note")
    delivered_before(plant)
    worker = plant.worker(BACKLOG=200, CONCURRENCY=4)
    worker.tally.ran(1, 0.001, 0.001)
    assert worker.run() is ExitReason.SHARE_DONE
    assert met.is_set()
    assert len(plant.final()) == 200
    assert plant.store.names("attempts/") == ()


def test_a_worker_ends_after_the_last_start_is_out() -> None:
    plant = Plant()
    note(plant)
    original, never = plant.store.delete, threading.Event()

    def slow(name: str, **options: Any) -> bool:
        never.wait(0.3)
        return original(name, **options)

    plant.store.delete = slow  # type: ignore[method-assign]
    plant.submit(1, "note")
    delivered_before(plant)
    assert plant.worker(BACKLOG=1).run() is ExitReason.SHARE_DONE
    assert plant.store.names("attempts/") == ()


class InStep(SystemClock):
    """Two threads of records look at it twice each, at the same moments: when they judge the record, and when they write the marker."""

    def __init__(self) -> None:
        self._both = threading.Barrier(2)
        self._looks: Counter[str] = Counter()

    def now(self) -> float:
        who = threading.current_thread().name
        if who.startswith("records") and self._looks[who] < 2:
            self._looks[who] += 1
            self._both.wait(30)
        return super().now()


def test_of_two_messages_of_one_task_the_second_waits_until_the_first_has_ended() -> None:
    plant = Plant(InStep())
    blocked = Blocked(plant)
    plant.submit(1, "blocked")
    plant.submit(1, "blocked")
    plant.deferred_count = 1
    delivered_before(plant)
    worker = plant.worker(BACKLOG=2, TASK_TIMEOUT_S=100)
    thread, reasons = in_thread(worker)
    wait_until(lambda: worker.tally.returned == 1, 30, "one of the two nacked while the other runs")
    assert (len(blocked.began), len(starts(plant))) == (1, 1)
    blocked.release.set()
    ended(thread)
    assert reasons == [ExitReason.SHARE_DONE]
    assert plant.store.names("attempts/") == ()


def test_no_start_is_written_long_before_its_task_begins() -> None:
    """Or a worker that is killed would leave many quarantined tasks."""
    plant = Plant()
    blocked = Blocked(plant)
    plant.submit(100, "blocked")
    delivered_before(plant)
    worker = slow_worker(plant, 100, concurrency=2)
    thread, reasons = in_thread(worker)
    wait_until(lambda: worker._executors.waiting_count > 5, 30, "more in hand than begin soon")
    wait_until(lambda: len(blocked.began) == 2 and len(starts(plant)) == 3, 30, "two that run and one that is next")
    blocked.release.set()
    ended(thread)
    assert reasons == [ExitReason.SHARE_DONE]
    assert plant.store.names("attempts/") == ()


def test_what_had_not_begun_at_a_stop_goes_back_after_its_start_is_out() -> None:
    plant = Plant()
    blocked = Blocked(plant)
    plant.submit(50, "blocked")
    delivered_before(plant)
    worker = slow_worker(plant, 50)
    went_back: list[bool] = []
    nack = plant.subscription.nack

    def seen(ack_ids: Any, after_s: float = 0.0) -> Any:
        went_back.append(len(starts(plant)) > 1)
        return nack(ack_ids, after_s)

    thread, reasons = in_thread(worker)
    wait_until(lambda: len(blocked.began) == 1 and len(starts(plant)) == 2, 30, "one that runs and one that is next")
    plant.subscription.nack = seen  # type: ignore[method-assign]
    worker.stop()
    wait_until(lambda: worker.tally.outstanding == 1, 30, "all but the one that runs gone back")
    assert went_back[-1] is False, "the last to go back had its start taken out first"
    blocked.release.set()
    ended(thread)
    assert reasons == [ExitReason.STOPPED]
    progress = plant.progress()
    assert (progress.acked, progress.returned) == (1, progress.taken - 1)
    assert plant.store.names("attempts/") == ()


def test_a_bucket_that_does_not_answer_keeps_no_message_from_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unstarted, "UNMARK_S", 0.05)
    plant = Plant()
    note(plant)
    asked, answers = silent_records(plant)
    plant.submit(30, "note")
    delivered_before(plant)
    worker = plant.worker(BACKLOG=30)
    thread, reasons = in_thread(worker)
    assert asked.wait(30)
    worker.stop()
    wait_until(lambda: worker.tally.outstanding == 0, 30, "everything gone back")
    assert not answers.is_set()
    answers.set()
    ended(thread)
    assert reasons == [ExitReason.STOPPED]
    progress = plant.progress()
    worker._markers.pool.shutdown(wait=True)
    assert progress.taken == progress.returned > 0
    assert worker._inbox.empty(), "each went back once"
    assert plant.subscription.leased == 0


def test_memory_is_counted_while_records_are_read() -> None:
    plant = Plant()
    blocked = Blocked(plant)
    plant.submit(20, "blocked", blob="x" * 1000)
    delivered_before(plant)
    worker = slow_worker(plant, 20)
    thread, _ = in_thread(worker)
    wait_until(lambda: worker._executors.waiting_count == worker.tally.taken - 1 > 3, 30, "all but one waiting")
    stages = worker.shutdown.stages
    assert stages is not None
    assert stages.leases.byte_count > 1000 * worker._executors.waiting_count
    blocked.release.set()
    ended(thread)
    assert (worker._executors.waiting_count, stages.leases.byte_count) == (0, 0)


# --- quarantined tasks


class Alone:
    """Stands for the children that quarantined tasks run in: none returns before `release`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.release = threading.Event()
        self.ran: list[str] = []
        monkeypatch.setattr(Isolation, "alone", lambda _isolation, attempt, *_limits: self.run(attempt.task.task_id))

    def run(self, task_id: str) -> Answer:
        self.ran.append(task_id)
        assert self.release.wait(60)
        return Answer(Said.RETURNED)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Alone:
    return Alone(monkeypatch)


def with_suspects(count: int, healthy: int) -> Plant:
    """The first `count` tasks were running in a worker that is gone."""
    plant = Plant()
    note(plant)
    for task_id in plant.submit(count + healthy, "note")[:count]:
        write_attempts(plant.store, task_id, Attempts(in_progress=GONE), 0)
    delivered_before(plant)
    return plant


def test_suspects_wait_beside_the_line_and_keep_no_slot(alone: Alone) -> None:
    plant = with_suspects(3, healthy=30)
    worker = plant.worker(BACKLOG=33, CONCURRENCY=1)
    thread, reasons = in_thread(worker)
    wait_until(lambda: sum(worker.tally.outcomes.values()) == 30, 30, "the healthy ones, while a quarantined task runs and two wait")
    assert len(alone.ran) == 1
    waiting = {f"task-{number}" for number in range(3)} - set(alone.ran)
    for task_id in waiting:
        known = read_attempts(plant.store, task_id)[0]
        assert (known.in_progress, known.lost) == (GONE, ()), "nothing is said against one that only waits"
    alone.release.set()
    ended(thread)
    assert reasons == [ExitReason.SHARE_DONE]
    assert len(alone.ran) == 3
    assert set(plant.final().values()) == {"succeeded"}
    assert plant.store.names("attempts/") == ()


def test_a_suspect_that_is_none_any_more_when_its_turn_comes_runs_like_any_other(alone: Alone) -> None:
    plant = with_suspects(2, healthy=0)
    worker = plant.worker(BACKLOG=2, CONCURRENCY=1)
    thread, reasons = in_thread(worker)
    wait_until(lambda: worker.tally.taken == 2 and len(alone.ran) == 1, 30, "one that runs and one that waits")
    (other,) = {"task-0", "task-1"} - set(alone.ran)
    plant.store.delete(attempts_object(other))
    alone.release.set()
    ended(thread)
    assert reasons == [ExitReason.SHARE_DONE]
    assert len(alone.ran) == 1
    assert len(plant.final()) == 2
    assert plant.store.names("attempts/") == ()


def test_more_suspects_than_may_wait_go_back(alone: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantine, "MAX_WAITING", 2)
    plant = with_suspects(5, healthy=0)
    plant.deferred_count = 3
    worker = plant.worker(BACKLOG=5)
    thread, reasons = in_thread(worker)
    wait_until(lambda: worker.tally.returned == 3, 30, "three gone back")
    alone.release.set()
    ended(thread)
    assert reasons == [ExitReason.SHARE_DONE]
    progress = plant.progress()
    assert (progress.acked, progress.returned) == (2, 3)
    assert sum(count for _, count in progress.deferred) == 3, "for a while"


@pytest.mark.usefixtures("begun_late")
@pytest.mark.slow
def test_suspects_that_have_not_ended_with_their_worker_go_back(alone: Alone) -> None:
    plant = with_suspects(2, healthy=3)
    worker = plant.worker(BACKLOG=5, TASK_TIMEOUT_S=2, PREFETCH_S="0.1")
    thread, reasons = in_thread(worker)
    ended(thread)
    alone.release.set()
    assert reasons == [ExitReason.OUT_OF_TIME]
    progress = plant.progress()
    assert (progress.acked, progress.returned) == (3, 2)
    assert plant.subscription.leased == 0
    assert starts(plant) == []


# --- the end


@pytest.mark.slow
def test_a_marker_is_removed_once_whatever_other_workers_have_made_of_the_task_since(alone: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    plant = with_suspects(1, healthy=0)
    settle = Markers.settle

    def after_another_worker(markers: Markers, limit_s: float) -> None:
        assert plant.store.delete(attempts_object("task-0")), "it ran the task, and its outcome is written"
        settle(markers, limit_s)

    monkeypatch.setattr(Markers, "settle", after_another_worker)
    thread, reasons = in_thread(plant.worker(BACKLOG=1, TASK_TIMEOUT_S=2, PREFETCH_S="0.1"))
    ended(thread)
    alone.release.set()
    assert reasons == [ExitReason.OUT_OF_TIME]
    assert plant.store.names("attempts/") == ()


def test_a_broken_worker_nacks_what_it_reads_the_records_of() -> None:
    plant = Plant()
    note(plant)
    asked, answers = silent_records(plant)
    plant.submit(30, "note")
    delivered_before(plant)
    worker = plant.worker(BACKLOG=30)
    thread, reasons = in_thread(worker)
    assert asked.wait(30)
    worker._breaker.trip("nothing works")
    worker._nudge()
    ended(thread)
    answers.set()
    assert reasons == [ExitReason.BROKEN]
    progress = plant.progress()
    assert progress.taken == progress.returned > 0
    assert plant.subscription.leased == 0


def test_a_group_that_fills_at_a_stop_is_nacked_after_its_markers_are_removed() -> None:
    plant = Plant()

    @plant.registry.task("together", group=5, group_wait_s=60)
    def together(tasks: list[Task], ctxs: Any) -> list[None]:
        raise AssertionError("the worker stops first")

    plant.submit(2, "together")
    delivered_before(plant)
    worker = plant.worker(BACKLOG=5)
    nack, marked_at_nack = plant.subscription.nack, []

    def seen(ack_ids: Any, after_s: float = 0.0) -> Any:
        marked_at_nack.extend(starts(plant))
        return nack(ack_ids, after_s)

    thread, reasons = in_thread(worker)
    wait_until(lambda: len(starts(plant)) == 2 and worker._executors.waiting_count == 0, 30, "two that wait for company")
    plant.subscription.nack = seen  # type: ignore[method-assign]
    worker.stop()
    ended(thread)
    assert reasons == [ExitReason.STOPPED]
    progress = plant.progress()
    assert (progress.taken, marked_at_nack) == (progress.returned, [])
    assert plant.store.names("attempts/") == ()


def test_what_a_thread_has_taken_is_nacked_at_a_stop_after_its_marker_is_removed() -> None:
    plant = Plant()
    blocked = Blocked(plant)
    worker = plant.worker()
    plant.submit(3, "blocked")
    delivered_before(plant)
    executor = worker._executors._executors[0]
    assert isinstance(executor, ThreadExecutor)
    slot = executor._slots[0]
    for delivery in plant.subscription.pull(10, 0):
        attempt = worker._runner.decoded(delivery)
        assert isinstance(attempt, Attempt)
        assert worker._runner.readmitted(attempt) is None
        slot.waiting.append(attempt)
    assert len(starts(plant)) == 3
    blocked.release.set()
    worker._runner.stopping.set()
    executor.round(slot)
    nacked: list[Any] = []
    while len(nacked) < 3:
        nacked += worker._inbox.get(timeout=30) or ()
    assert len({one.ack_id for one in nacked}) == len(nacked) == 3
    assert (blocked.began, starts(plant)) == ([], [])
    worker._markers.settle(1)


def test_a_group_that_fills_has_records_read_for_all_that_it_may_still_take() -> None:
    plant = Plant()
    sizes: list[int] = []

    @plant.registry.task("together", group=9, group_wait_s=20)
    def together(tasks: list[Task], ctxs: Any) -> list[None]:
        sizes.append(len(tasks))
        return [None for _ in tasks]

    plant.submit(8, "together")
    delivered_before(plant)
    at_once, original, met = threading.Barrier(8), plant.store.read_with_info, threading.Event()

    def meets(name: str) -> Any:
        if name.startswith("attempts/") and not met.is_set():
            with suppress(threading.BrokenBarrierError):
                at_once.wait(5)
                met.set()
        return original(name)

    plant.store.read_with_info = meets  # type: ignore[method-assign]
    worker = plant.worker(BACKLOG=9)
    executor = worker._executors._executors[0]
    fresh = Delivery("fresh", "m-fresh", *encode(Task("fresh", "together", iso(0), {}, "s-1", "lane", "s-1")), 0.0, 1)
    redelivered_ones = plant.subscription.pull(10, 0)
    assert isinstance(executor, GroupExecutor)
    filling = threading.Thread(target=lambda: sizes.append(len(executor.filled())), daemon=True)
    filling.start()
    worker._executors.put([fresh])
    wait_until(lambda: worker._executors.waiting_count == 0 and executor.queue.wanted_count < 9, 30, "a group that has its first")
    worker._executors.put(redelivered_ones)
    assert met.wait(30), "all records that the group waits for are read at a time"
    filling.join(30)
    assert sizes == [9]
