"""A task that fits into no worker's time is not passed on from worker to worker in silence: each that it filled is a failed attempt."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from batch.handling.registry import Registry, default_registry
from batch.model.errors import DependencyUnavailable
from batch.model.exit import ExitReason
from batch.worker.admission.records import read_attempts
from batch.worker.pulling.bounds import TimeBounds
from tests.batch.worker.plant import Plant, ended, in_thread
from tests.batch.worker.test_poison import left_by
from tests.clocks import ShiftedClock
from tests.field import waiting_handlers
from tests.support import slow_but, wait_until

KINDS = ("plain", "plain with timeout_s", "async", "grouped", "async grouped", "isolated", "quarantined")
SETTINGS = {"TASK_TIMEOUT_S": 2, "PREFETCH_S": 0.05, "HANDLERS": waiting_handlers.__name__, "PROCESSES": 1, "MAX_MESSAGES": 100}


@pytest.fixture
def over() -> Iterator[threading.Event]:
    """Ends what the handlers of a test wait for."""
    event = threading.Event()
    yield event
    event.set()


def hanger(registry: Registry, kind: str, over: threading.Event) -> str:
    """A handler of this kind that does not end before the test, with one retry; returns its task type."""

    def plain(task: Any, ctx: Any) -> None:
        over.wait(600)

    async def awaited(task: Any, ctx: Any) -> None:
        await asyncio.sleep(600)

    def grouped(tasks: Sequence[Any], ctxs: Any) -> None:
        over.wait(600)

    async def awaited_group(tasks: Sequence[Any], ctxs: Any) -> None:
        await asyncio.sleep(600)

    if kind in ("isolated", "quarantined"):
        registry._handlers["field-hangs"] = default_registry["field-hangs"]
        return "field-hangs"
    function = {"plain": plain, "plain with timeout_s": plain, "async": awaited, "grouped": grouped, "async grouped": awaited_group}[kind]
    timeout_s = 3600 if kind == "plain with timeout_s" else None
    registry.task("hangs", group=4 if "grouped" in kind else 1, timeout_s=timeout_s, retries=1)(function)
    return "hangs"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_worker_that_it_filled_is_a_failed_attempt_and_the_last_one_is_its_end(
    kind: str, over: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ShiftedClock()
    plant = Plant(clock, max_delivery_attempts=5)
    task_type = hanger(plant.registry, kind, over)
    (task_id,) = plant.submit(1, task_type)
    if kind == "quarantined":
        left_by(plant, task_id)
        plant.subscription.nack([plant.subscription.pull(1, 0)[0].ack_id])
    with caplog.at_level(logging.WARNING, logger="fanout"):
        assert plant.worker(**SETTINGS).run() is ExitReason.OUT_OF_TIME
    known = read_attempts(plant.store, task_id)[0]
    (error,) = known.errors
    assert error.reason.startswith("does not fit into TASK_TIMEOUT_S=2: it had run for 1.")
    assert error.reason.endswith("s when its worker had to end; raise the lane's timeout, or split the task")
    assert (known.attempt_count, known.in_progress) == (1, None)
    assert "does not fit into TASK_TIMEOUT_S=2" in caplog.text
    first = plant.progress()
    assert (first.taken, first.acked, first.returned) == (1, 0, 1)
    assert [count for _, count in first.deferred] == [1], "it waits as long as its backoff says"
    assert plant.subscription.backlog == 1

    clock.advance(3600)
    assert plant.worker(**SETTINGS, CLOUD_RUN_EXECUTION="lane-y").run() is ExitReason.OUT_OF_TIME
    (outcome,) = plant.outcomes()
    assert (outcome.outcome, outcome.attempt_count) == ("dead", 2)
    assert "does not fit into TASK_TIMEOUT_S=2" in outcome.reason
    (letter,) = plant.letters()
    assert letter["dead_reason"] == outcome.reason
    assert (plant.subscription.backlog, plant.progress(execution="lane-y").acked) == (0, 1)


@pytest.mark.slow
def test_a_call_of_many_that_does_not_fit_is_one_failure_to_its_type(over: threading.Event, caplog: pytest.LogCaptureFixture) -> None:
    plant = Plant(ShiftedClock())

    @plant.registry.task("hangs", group=8, group_wait_s=5.0)
    def hangs(tasks: Sequence[Any], ctxs: Any) -> None:
        over.wait(600)

    ids = plant.submit(8, "hangs")
    assert plant.worker(**{**SETTINGS, "MAX_MESSAGES": 8}).run() is ExitReason.OUT_OF_TIME
    assert [len(read_attempts(plant.store, one)[0].errors) for one in ids] == [1] * 8
    assert not [record for record in caplog.records if getattr(record, "event", "") == "type_slowed"]


@pytest.mark.parametrize("kind", slow_but(["plain"], ["plain", "async", "grouped", "isolated"]))
def test_one_that_began_late_is_nacked_without_a_failed_attempt(kind: str, over: threading.Event) -> None:
    clock = ShiftedClock()
    plant = Plant(clock)
    task_type = hanger(plant.registry, kind, over)
    thread, reasons = in_thread(plant.worker(**SETTINGS, DRAIN_AFTER_S=60))
    clock.advance(0.5)
    (task_id,) = plant.submit(1, task_type)
    ended(thread)
    assert reasons == [ExitReason.OUT_OF_TIME]
    assert read_attempts(plant.store, task_id)[0].errors == ()
    assert (plant.outcomes(), plant.subscription.backlog, plant.subscription.leased) == ([], 1, 0)
    assert plant.progress().returned == 1


def test_one_that_a_signal_cut_short_has_not_failed(over: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batch.worker.shutdown.after_signal_s", lambda signal_s: signal_s + 0.1)
    plant = Plant()
    task_type = hanger(plant.registry, "plain", over)
    (task_id,) = plant.submit(1, task_type)
    worker = plant.worker(**SETTINGS)
    thread, reasons = in_thread(worker)
    wait_until(lambda: plant.subscription.leased == 1, 60, "the task to begin")
    worker.stop()
    ended(thread)
    assert reasons == [ExitReason.STOPPED]
    assert (read_attempts(plant.store, task_id)[0].errors, plant.subscription.backlog) == ((), 1)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 60])
def test_the_records_of_many_fit_into_the_time_that_is_kept(count: int, over: threading.Event) -> None:
    """Each takes two requests of 5 ms."""
    plant = Plant(ShiftedClock())
    task_type = hanger(plant.registry, "plain", over)
    ids = plant.submit(count, task_type)
    read, write = plant.store.read_with_info, plant.store.write

    def slow_read(name: str) -> Any:
        threading.Event().wait(0.005)
        return read(name)

    def slow_write(name: str, data: bytes, **options: Any) -> Any:
        threading.Event().wait(0.005)
        return write(name, data, **options)

    plant.store.read_with_info, plant.store.write = slow_read, slow_write  # type: ignore[method-assign]
    began_s = plant.clock.monotonic()
    assert plant.worker(**{**SETTINGS, "CONCURRENCY": count, "TASK_TIMEOUT_S": 3}).run() is ExitReason.OUT_OF_TIME
    assert plant.clock.monotonic() - began_s < 4
    assert [len(read_attempts(plant.store, one)[0].errors) for one in ids] == [1] * count
    progress = plant.progress()
    assert (progress.taken, progress.returned) == (count, count)


@pytest.mark.slow
def test_a_bucket_that_does_not_answer_keeps_no_worker_from_ending(over: threading.Event) -> None:
    plant = Plant()
    task_type = hanger(plant.registry, "plain", over)
    plant.submit(3, task_type)
    read = plant.store.read_with_info

    def hang(name: str) -> Any:
        if name.startswith("attempts/"):
            over.wait(60)
            raise DependencyUnavailable("503")
        return read(name)

    plant.store.read_with_info = hang  # type: ignore[method-assign]
    thread, reasons = in_thread(plant.worker(**SETTINGS))
    ended(thread, 20)
    assert reasons == [ExitReason.OUT_OF_TIME]
    assert (plant.progress().returned, plant.subscription.leased) == (3, 0)


def test_what_a_whole_worker_s_time_is() -> None:
    bounds = TimeBounds(1000.0, 13.0)
    assert bounds.end_s - 1000.0 == pytest.approx(11.7)
    assert (bounds.is_whole(9.0), bounds.is_whole(9.4)) == (False, True)
    assert bounds.end_s < bounds.record_until_s() < 1013.0
