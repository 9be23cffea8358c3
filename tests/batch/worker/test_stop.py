"""How a worker ends early: by a signal with much in hand, or because most tasks fail with one error."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from batch.model.errors import Permanent
from batch.model.exit import ExitReason
from batch.model.message import Task
from batch.worker.admission.records import read_attempts
from batch.worker.admission.slowing import DEFAULT_LIMIT
from tests.batch.worker.plant import Plant, ended, in_thread, write
from tests.support import wait_until


@pytest.fixture
def plant() -> Iterator[Plant]:
    made = Plant()
    made.registry.task("write")(write)
    yield made
    deferred_count = sum(count for _, count in made.progress().deferred)
    assert made.subscription.leased == deferred_count, "a worker that has ended must hold nothing"


def test_thousands_in_hand_go_back_while_a_handler_still_runs(plant: Plant) -> None:
    runs: list[str] = []
    may_end, many = threading.Event(), threading.Event()

    @plant.registry.task("quick")
    def quick(task: Task, ctx: Any) -> None:
        runs.append(task.task_id)
        if task.task_id == "task-0":
            assert may_end.wait(60)
        elif len(runs) > 2000:
            many.set()
            ctx.sleep(0.01)
        else:
            ctx.sleep(0.0005)

    plant.submit(20_000, "quick")
    worker = plant.worker(MAX_MESSAGES=100_000, CONCURRENCY=4)
    thread, reasons = in_thread(worker)
    assert many.wait(60)
    worker.stop()
    wait_until(lambda: plant.subscription.leased <= 1, 60, "what has not started is free while one handler still runs")
    started_count = len(runs)
    may_end.set()
    ended(thread)
    assert reasons == [ExitReason.STOPPED]
    assert len(runs) == started_count, "something started after the stop"
    progress = plant.progress()
    assert progress.returned > 500
    assert (progress.acked, progress.returned) == (started_count, progress.taken - started_count)
    assert plant.store.names("attempts/") == ()


# --- one error for most tasks


def test_most_tasks_with_one_error_slow_their_type_and_spend_few_attempts(plant: Plant, caplog: pytest.LogCaptureFixture) -> None:
    @plant.registry.task("down")
    def down(task: Task, ctx: Any) -> None:
        raise ConnectionError(f"10.0.0.{len(task.task_id)}: refused for {task.task_id}")

    original = plant.store.write

    def as_slow_as_a_bucket(name: str, data: bytes, **options: Any) -> Any:
        plant.clock.wait(threading.Event(), 0.02)
        return original(name, data, **options)

    plant.store.write = as_slow_as_a_bucket  # type: ignore[method-assign]
    ids = plant.submit(500, "down")
    assert plant.worker(MAX_MESSAGES=1000).run() is ExitReason.DRAINED
    assert "task type down is slowed: 20 different tasks in a row failed with ConnectionError: 10.0.0." in caplog.text
    counts = [read_attempts(plant.store, one)[0].attempt_count for one in ids]
    assert DEFAULT_LIMIT <= sum(counts) < 80, "20 in a row, what four threads fail until that is known, and one now and then"
    assert max(counts) == 1
    assert plant.subscription.backlog == 500
    assert plant.letters() == []
    plant.deferred_count = 500


def test_ten_percent_of_failing_tasks_stop_nobody(plant: Plant) -> None:
    @plant.registry.task("flaky", retries=0)
    def flaky(task: Task, ctx: Any) -> None:
        if task.task_id.endswith("7"):
            raise ConnectionError("refused")

    plant.submit(1000, "flaky")
    assert plant.worker(BACKLOG=1000).run() is ExitReason.SHARE_DONE
    assert len(plant.letters()) == 100


def test_a_lane_full_of_permanent_failures_and_bad_input_is_worked_off(plant: Plant) -> None:
    @plant.registry.task("never")
    def never(task: Task, ctx: Any) -> None:
        raise Permanent("the customer is gone")

    plant.submit(60, "never")
    for _ in range(60):
        plant.publish(b"not json")
    assert plant.worker(BACKLOG=120).run() is ExitReason.SHARE_DONE
    assert len(plant.letters()) == 120


def test_a_few_failing_tasks_do_not_break_a_worker_with_a_small_share(plant: Plant) -> None:
    @plant.registry.task("fails", retries=0)
    def fails(task: Task, ctx: Any) -> None:
        raise ValueError("x")

    plant.submit(4, "fails")
    assert plant.worker(BACKLOG=4).run() is ExitReason.SHARE_DONE
    assert set(plant.final().values()) == {"dead"}
