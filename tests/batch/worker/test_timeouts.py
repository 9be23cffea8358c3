"""Time limits of handlers in threads, and leases that last as long as the work and no longer."""

from __future__ import annotations

import json
import logging
import random
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from batch.handling.registry import Backoff
from batch.model.delivery import Outgoing
from batch.model.exit import ExitReason
from batch.model.message import Task
from batch.services.leases import LEAST_EXTENSION_S, LeaseKeeper
from batch.testing import ManualClock, MemoryBroker
from batch.worker.admission.records import read_attempts
from batch.worker.executors.overdue import LEAST_LOST, most_lost
from tests.batch.worker.plant import Leases, Plant, write
from tests.clocks import JumpingClock


@pytest.fixture
def plant() -> Plant:
    made = Plant()
    made.registry.task("write")(write)
    return made


@pytest.fixture
def never() -> Iterator[threading.Event]:
    """What a hanging handler waits for; set at the end of the test."""
    event = threading.Event()
    yield event
    event.set()


def logged(caplog: pytest.LogCaptureFixture, event: str) -> list[Any]:
    return [record for record in caplog.records if getattr(record, "event", "") == event]


# --- handlers


def test_a_handler_past_its_time_is_a_failed_attempt_and_the_others_go_on(
    plant: Plant, never: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    @plant.registry.task("hangs", timeout_s=0.2, retries=0)
    def hangs(task: Task, ctx: Any) -> None:
        if task.task_id == "task-0":
            waiting_for_godot(never)

    def waiting_for_godot(event: threading.Event) -> None:
        event.wait(20)

    plant.submit(6, "hangs")
    assert plant.worker(BACKLOG=6, CONCURRENCY=1).run() is ExitReason.SHARE_DONE
    final = plant.final()
    assert final.pop("task-0") == "dead"
    assert set(final.values()) == {"succeeded"}, "a fresh thread took its place"
    (dead,) = [one for one in plant.outcomes() if one.outcome == "dead"]
    assert (dead.error_type, dead.attempt_count) == ("TimeoutError", 1)
    assert "timeout_s of 0.2 s" in dead.reason
    (said,) = logged(caplog, "handler_timed_out")
    assert "waiting_for_godot" in said.stack
    record, _ = read_attempts(plant.store, "task-0")
    assert "waiting_for_godot" in record.errors[0].traceback
    assert plant.subscription.leased == 0


def test_a_message_past_its_time_comes_back_by_its_backoff(plant: Plant, never: threading.Event) -> None:
    runs: list[int] = []

    @plant.registry.task("hangs", timeout_s=0.2, backoff=Backoff(first_s=0))
    def hangs(task: Task, ctx: Any) -> None:
        runs.append(ctx.attempt)
        if len(runs) == 1:
            never.wait(20)

    plant.submit(1, "hangs")
    assert plant.worker(MAX_MESSAGES=2, CONCURRENCY=1).run() is ExitReason.SHARE_DONE
    assert runs == [1, 2]
    assert [(one.outcome, one.attempt_count) for one in plant.outcomes()] == [("succeeded", 2)]


def test_what_comes_back_too_late_is_ignored(plant: Plant) -> None:
    given_up, late, again = threading.Event(), threading.Event(), threading.Event()

    @plant.registry.task("late", timeout_s=0.2, backoff=Backoff(first_s=0))
    def slow(task: Task, ctx: Any) -> str:
        if ctx.attempt == 1:
            assert given_up.wait(60)
            late.set()
            return "too late"
        given_up.set()
        assert late.wait(60)
        again.wait(0.05)
        return "in time"

    plant.submit(1, "late")
    assert plant.worker(MAX_MESSAGES=2, CONCURRENCY=2).run() is ExitReason.SHARE_DONE
    assert [one.result for one in plant.outcomes()] == ["in time"]


def test_a_worker_whose_threads_all_hang_ends_stuck(plant: Plant, never: threading.Event, caplog: pytest.LogCaptureFixture) -> None:
    @plant.registry.task("hangs", timeout_s=0.1)
    def hangs(task: Task, ctx: Any) -> None:
        never.wait(20)

    plant.submit(50, "hangs")
    assert plant.worker(MAX_MESSAGES=50, CONCURRENCY=2).run() is ExitReason.STUCK
    assert LEAST_LOST <= len(logged(caplog, "handler_timed_out")) <= most_lost(2) + 2
    (told,) = logged(caplog, "handlers_hang")
    assert "'hangs'" in told.error
    assert 'isolation="process"' in told.error
    assert plant.progress().exit_reason == "stuck", "the next try of the worker goes on, and no lane is held"
    assert plant.subscription.backlog == 50, "nobody died of it"


def test_a_handler_without_a_limit_may_take_nine_deadlines_and_is_delivered_once() -> None:
    clock = JumpingClock()
    plant = Plant(clock, ack_deadline_s=20.0)
    leases = Leases(plant, clock)
    runs: list[str] = []

    @plant.registry.task("long")
    def long(task: Task, ctx: Any) -> None:
        runs.append(task.task_id)
        leases.outlive(9)

    plant.submit(1, "long")
    assert plant.worker(BACKLOG=1).run() is ExitReason.SHARE_DONE
    assert plant.final() == {"task-0": "succeeded"}
    assert runs == ["task-0"]
    assert plant.subscription.backlog == 0


# --- leases


class Held:
    """One message under a lease of 60 s, and every extension that was asked for."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        broker = MemoryBroker(self.clock)
        self.subscription = broker.subscription("lane", "lane", 60.0)
        broker.topic("lane").publish([Outgoing(json.dumps({}).encode(), {})])
        self.extensions: list[float] = []
        original = self.subscription.extend

        def extend(ack_ids: Any, deadline_s: float) -> list[str]:
            self.extensions.append(deadline_s)
            return original(ack_ids, deadline_s)

        self.subscription.extend = extend  # type: ignore[method-assign]
        self.keeper = LeaseKeeper(self.subscription, self.clock, random.Random(1), lambda _error: None)
        (delivery,) = self.subscription.pull(1, 1.0)
        self.ack_id = delivery.ack_id
        self.keeper.hold([self.ack_id], self.clock.monotonic(), [1000])

    def pass_time(self, seconds: int) -> None:
        for _ in range(seconds // 5):
            self.clock.advance(5)
            self.keeper.extend_due()


def test_a_lease_is_extended_by_the_deadline_when_nobody_knows_how_long_the_work_takes() -> None:
    held = Held()
    held.pass_time(600)
    assert set(held.extensions) == {60.0}
    assert held.subscription.leased == 1


def test_a_lease_never_outlives_work_that_has_a_limit() -> None:
    held = Held()
    held.keeper.bound(held.ack_id, held.clock.monotonic() + 45.0)
    held.pass_time(30)
    assert held.extensions == [held.extensions[0]]
    assert held.extensions[0] <= 20.0, "15 to 20 s are left of 45"
    held.clock.advance(21)
    assert held.subscription.leased == 0, "a worker that died would hold it no longer"


def test_work_that_should_be_over_keeps_its_lease_in_short_steps_until_it_is_given_back() -> None:
    held = Held()
    held.keeper.bound(held.ack_id, held.clock.monotonic() + 10.0)
    held.pass_time(120)
    assert set(held.extensions) == {LEAST_EXTENSION_S}
    assert held.subscription.leased == 1
    held.keeper.forget([held.ack_id], 0.0)
    assert (held.keeper.ack_ids(), held.keeper.byte_count) == ([], 0)


def test_a_worker_bounds_the_leases_of_handlers_with_a_limit(plant: Plant) -> None:
    bounds: dict[str, float] = {}

    @plant.registry.task("timed", timeout_s=7)
    def timed(task: Task, ctx: Any) -> None:
        bounds[task.task_id] = ctx.remaining_s()

    plant.submit(1, "timed")
    worker = plant.worker(BACKLOG=1)
    told: list[float] = []
    worker._runner.admission.timed = lambda _ack_id, deadline_s: told.append(deadline_s)
    began_s = plant.clock.monotonic()
    assert worker.run() is ExitReason.SHARE_DONE
    (deadline_s,) = told
    assert 7.0 <= deadline_s - began_s < 12.0
    assert bounds["task-0"] <= 7.0


def test_bytes_of_what_is_held_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    held = Held()
    assert held.keeper.byte_count == 1000
    held.keeper.hold(["other"], held.clock.monotonic(), [500])
    assert held.keeper.byte_count == 1500
    held.keeper.release(["other", "unknown"])
    assert held.keeper.byte_count == 1000
    with caplog.at_level(logging.WARNING):
        held.subscription.ack([held.ack_id])
        held.keeper.release([held.ack_id])
    assert held.keeper.byte_count == 0
