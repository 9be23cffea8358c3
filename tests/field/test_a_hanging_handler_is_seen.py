"""A handler that does not come back is seen: in the log with its stack, in the worker's progress, and by a lane's time limit."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any, cast

import pytest

from batch.model.attempts import Attempts, Marker
from batch.model.clock import iso
from batch.model.delivery import Delivery
from batch.model.errors import SettingsError
from batch.model.exit import ExitReason
from batch.model.message import Task
from batch.model.progress import RunningTask
from batch.settings import worker_settings
from batch.worker.admission.records import write_attempts
from batch.worker.attempt import Attempt
from batch.worker.executors.slow import LINES_EVERY_S, MAX_LINES, SlowWatch, Usual
from fanout import executions
from tests.batch.worker.isolated import plant_with, submit
from tests.batch.worker.isolated import worker as isolated_worker
from tests.batch.worker.plant import Plant, ended, in_thread
from tests.clocks import JumpingClock
from tests.controller.fakes import progress, world, write_progress
from tests.support import wait_until

SLOW_S = 60.0


class Hang:
    """Handlers wait in it until the test lets them end."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.begun = threading.Semaphore(0)

    def waiting_for_godot(self) -> None:
        self.begun.release()
        assert self.over.wait(120), "the test never let it end"

    async def waiting_for_estragon(self) -> None:
        self.begun.release()
        while not self.over.is_set():
            await asyncio.sleep(0.01)

    def has_begun(self, count: int = 1) -> None:
        for _ in range(count):
            assert self.begun.acquire(timeout=60)


@pytest.fixture
def hang() -> Iterator[Hang]:
    made = Hang()
    yield made
    made.over.set()


@pytest.fixture
def clock() -> JumpingClock:
    return JumpingClock()


@pytest.fixture
def plant(clock: JumpingClock) -> Plant:
    return Plant(clock, ack_deadline_s=600.0)


@pytest.fixture(autouse=True)
def _all_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def lines(caplog: pytest.LogCaptureFixture, event: str = "handler_slow") -> list[Any]:
    return [record for record in caplog.records if getattr(record, "event", "") == event]


def lines_come(caplog: pytest.LogCaptureFixture, count: int) -> list[Any]:
    wait_until(lambda: len(lines(caplog)) >= count, 60, f"{count} lines about slow handlers")
    return lines(caplog)


def quick(task: Task, ctx: Any) -> None:
    """Ends at once."""


def learned(watch: Any, run_count: int) -> bool:
    return len(watch._usual._runs.get("long", ())) >= run_count


def hanging(plant: Plant, hang: Hang, kind: str, **options: Any) -> None:
    """Registers a handler of this kind that hangs."""

    def plain(task: Task, ctx: Any) -> None:
        ctx.progress(3, 10, "pages")
        hang.waiting_for_godot()

    async def coroutine(task: Task, ctx: Any) -> None:
        ctx.progress(3, 10, "pages")
        await hang.waiting_for_estragon()

    def group(tasks: Any, ctxs: Any) -> list[None]:
        ctxs[0].progress(3, 10, "pages")
        hang.waiting_for_godot()
        return [None] * len(tasks)

    async def async_group(tasks: Any, ctxs: Any) -> list[None]:
        ctxs[0].progress(3, 10, "pages")
        await hang.waiting_for_estragon()
        return [None] * len(tasks)

    options |= {"group": 2, "group_wait_s": 30} if "group" in kind else {}
    handler: Any = {"plain": plain, "async": coroutine, "group": group, "async group": async_group}[kind]
    plant.registry.task("hangs", **options)(handler)


@pytest.mark.parametrize("kind", ["plain", "async", "group", "async group"])
def test_a_line_says_which_task_for_how_long_how_far_and_where(
    plant: Plant, clock: JumpingClock, hang: Hang, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    hanging(plant, hang, kind)
    plant.submit(2, "hangs")
    thread, reasons = in_thread(plant.worker(BACKLOG=2, CONCURRENCY=1))
    hang.has_begun()
    clock.advance(SLOW_S - 5)
    assert not lines(caplog)
    clock.advance(10)
    (said,) = lines_come(caplog, 1)
    assert (said.task_id, said.task_type, said.attempt) == ("task-0", "hangs", 1)
    assert SLOW_S <= said.running_s < SLOW_S + 30
    assert said.task_count == (2 if "group" in kind else 1)
    assert said.progress == "3 of 10 pages"
    assert ("waiting_for_estragon" if "async" in kind else "waiting_for_godot") in said.stack
    assert "task-0 (hangs) has been running for" in said.getMessage()
    assert "3 of 10 pages" in said.getMessage()
    clock.advance(SLOW_S + 20)
    assert [round(one.running_s / SLOW_S) for one in lines_come(caplog, 2)] == [1, 2], "again, at twice the time"
    hang.over.set()
    ended(thread)
    assert reasons == [ExitReason.SHARE_DONE]


def test_a_line_tells_where_an_isolated_handler_is(caplog: pytest.LogCaptureFixture) -> None:
    plant = plant_with("child-hangs-in-python")
    submit(plant, "stuck", "child-hangs-in-python", seconds=600)
    worker = isolated_worker(plant, BACKLOG=1, SLOW_AFTER_S="0.3")
    thread, reasons = in_thread(worker)
    try:
        # The first line may come while the child is being started.
        wait_until(lambda: any(one.progress for one in lines(caplog)), 60, "a line with what the child says")
    finally:
        worker.stop()
        ended(thread)
    said = next(one for one in lines(caplog) if one.progress)
    assert (said.task_id, said.attempt, said.progress) == ("stuck", 1, "1 of 2 halves")
    assert "hangs_in_python" in said.stack
    assert reasons == [ExitReason.STOPPED]


def test_a_quick_task_is_never_told(plant: Plant, caplog: pytest.LogCaptureFixture) -> None:
    plant.registry.task("quick")(quick)
    plant.submit(50, "quick")
    assert plant.worker(BACKLOG=50, SLOW_AFTER_S="0.1").run() is ExitReason.SHARE_DONE
    assert not lines(caplog)


@pytest.mark.slow
def test_what_takes_long_as_usual_is_told_later(plant: Plant, clock: JumpingClock, hang: Hang, caplog: pytest.LogCaptureFixture) -> None:
    """Three tasks take 40 s; the fourth is told after 400 s, not after 60."""
    turns = threading.Semaphore(0)

    @plant.registry.task("long")
    def long(task: Task, ctx: Any) -> None:
        hang.begun.release()
        assert turns.acquire(timeout=120)

    plant.submit(4, "long")
    worker = plant.worker(BACKLOG=4, CONCURRENCY=1, TASK_TIMEOUT_S=6000)
    watch = worker._executors._slow
    thread, reasons = in_thread(worker)
    for number in range(3):
        hang.has_begun()
        clock.advance(40)
        wait_until(partial(watch._seen.get, next(iter(_ack_ids(worker)))), 60, "the watch to see it")
        turns.release()
        wait_until(partial(learned, watch, number + 1), 60, "the watch to learn from it")
    hang.has_begun()
    clock.advance(300)
    looked_s = watch._next_look_s
    wait_until(lambda: watch._next_look_s > looked_s, 60, "the next look")
    assert not lines(caplog)
    clock.advance(150)
    (said,) = lines_come(caplog, 1)
    assert 30 <= said.usual_s <= 60
    assert "usually take" in said.getMessage()
    turns.release()
    ended(thread)
    assert reasons == [ExitReason.SHARE_DONE]


@pytest.mark.parametrize(
    ("usual_s", "at_latest_s", "limit_s"), [(None, 300, 60), (1.5, 300, 60), (12, 300, 120), (200, 300, 300), (12, 20, 60)]
)
def test_when_the_first_line_comes(usual_s: float | None, at_latest_s: float, limit_s: float) -> None:
    watch = SlowWatch(60.0, at_latest_s, cast(Any, None), JumpingClock())
    for _ in range(3 if usual_s else 0):
        watch._usual.note("t", usual_s or 0.0)
    task = Task("a", "t", "2026-01-01T00:00:00Z", {}, "", "lane", "s-1")
    attempt = Attempt(Delivery("ack", "1", b"", {}, 0.0), task, cast(Any, None), None, 0.0, 0.0)
    assert watch._limit_s(attempt) == limit_s


def _ack_ids(worker: Any) -> list[str]:
    return [one.first.ack_id for one in wait_until(worker._executors.running, 60, "a running task")]


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_when_all_hang_a_few_stacks_say_why(
    plant: Plant, clock: JumpingClock, hang: Hang, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    hanging(plant, hang, kind)
    plant.submit(40, "hangs")
    worker = plant.worker(BACKLOG=40, CONCURRENCY=40)
    thread, _ = in_thread(worker)
    hang.has_begun(40)
    clock.advance(SLOW_S + 5)
    found = lines_come(caplog, MAX_LINES)
    assert found[-1].slow_count == 40
    looked_s = worker._executors._slow._next_look_s
    wait_until(lambda: worker._executors._slow._next_look_s > looked_s, 60, "the next look")
    assert len(lines(caplog)) == MAX_LINES
    clock.advance(LINES_EVERY_S + SLOW_S)
    lines_come(caplog, 2 * MAX_LINES)
    hang.over.set()
    ended(thread)


@pytest.mark.parametrize("kind", ["plain", "async", "group"])
def test_progress_names_the_oldest_running_tasks(plant: Plant, clock: JumpingClock, hang: Hang, kind: str) -> None:
    hanging(plant, hang, kind)
    plant.submit(2, "hangs")
    thread, _ = in_thread(plant.worker(BACKLOG=2, CONCURRENCY=1))
    hang.has_begun()
    since = clock.now()
    clock.advance(120)
    (oldest,) = wait_until(lambda: plant.progress().running, 60, "progress with the running task")
    assert (oldest.task_id, oldest.task_type) == ("task-0", "hangs")
    assert abs(oldest.since - since) < 30
    hang.over.set()
    ended(thread)
    assert plant.progress().running == ()


def test_executions_show_the_oldest_running_task() -> None:
    here = world()
    info = here.runner.add(2, {"BACKLOG": "20"})
    now = int(here.clock.now())
    for index, age_s in ((0, 30), (1, 960)):
        running = (RunningTask(f"task-{index}", "hangs", now - age_s), RunningTask("young", "hangs", now))
        write_progress(here.store, info.name, index, progress(10, taken=10, acked=5, running=running))
    (seen,) = executions.seen(here.outside, "default", 5)
    assert executions.remarks(seen) == ["its oldest task: task-1 (hangs), 16 min"]
    assert executions.execution_json(seen)["oldest_task"] == {"task_id": "task-1", "task_type": "hangs", "since": iso(now - 960)}
    here.runner.complete(info.name, here.clock.now())
    (seen,) = executions.seen(here.outside, "default", 5)
    assert not any("oldest" in line for line in executions.remarks(seen)), "it runs no more"


def test_a_quarantined_task_that_hangs_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """It runs alone in a child, whatever its handler's kind."""
    plant = plant_with("child-hangs-in-python")
    submit(plant, "stuck", "child-hangs-in-python", seconds=600)
    before = Attempts(in_progress=Marker("gone", 0, 0, iso(plant.clock.now() - 3600)))
    write_attempts(plant.store, "stuck", before, 0)
    (delivery,) = plant.subscription.pull(1, 1.0)
    plant.subscription.nack([delivery.ack_id])
    worker = isolated_worker(plant, BACKLOG=1, SLOW_AFTER_S="0.3", CLOUD_RUN_EXECUTION="lane-y")
    thread, _ = in_thread(worker)
    try:
        wait_until(lambda: any(one.progress for one in lines(caplog)), 60, "a line with what the child says")
    finally:
        worker.stop()
        ended(thread)
    assert lines(caplog, "quarantined_task_runs")
    assert "hangs_in_python" in next(one for one in lines(caplog) if one.progress).stack


# --- a lane's time limit


@pytest.mark.parametrize("kind", ["plain", "async", "group"])
def test_a_lane_s_limit_ends_handlers_that_name_none(plant: Plant, hang: Hang, kind: str) -> None:
    hanging(plant, hang, kind, retries=0)
    plant.submit(2, "hangs")
    assert plant.worker(BACKLOG=2, CONCURRENCY=2, HANDLER_TIMEOUT_S="0.3").run() is ExitReason.SHARE_DONE
    assert [(one.outcome, one.error_type) for one in plant.outcomes()] == [("dead", "TimeoutError")] * 2
    assert "0.3 s" in plant.outcomes()[0].reason


def test_a_lane_s_limit_kills_the_child_of_an_isolated_handler() -> None:
    plant = plant_with("child-hangs-in-python")
    submit(plant, "stuck", "child-hangs-in-python", seconds=600)
    assert isolated_worker(plant, BACKLOG=1, HANDLER_TIMEOUT_S="0.5").run() is ExitReason.SHARE_DONE
    ((outcome, error_type, reason),) = [(one.outcome, one.error_type, one.reason) for one in plant.outcomes()]
    assert (outcome, error_type) == ("dead", "TimeoutError")
    assert "limit of 0.5 s" in reason


def test_a_handler_s_own_limit_stays(plant: Plant) -> None:
    plant.registry.task("own", timeout_s=7)(quick)
    plant.registry.task("none")(quick)
    limited = plant.registry.limited(30.0)
    assert (limited["own"].timeout_s, limited["none"].timeout_s) == (7, 30.0)
    assert plant.registry["none"].timeout_s is None, "the modules' own registry is as it was"


def test_a_limit_that_the_end_of_the_worker_would_cut_off_is_refused() -> None:
    given = {"GOOGLE_CLOUD_PROJECT": "p", "SUBSCRIPTION_NAME": "lane", "BUCKET_NAME": "bucket", "TASK_TIMEOUT_S": "600"}
    assert worker_settings(given).handler_timeout_s is None
    assert worker_settings({**given, "HANDLER_TIMEOUT_S": "120"}).handler_timeout_s == 120
    with pytest.raises(SettingsError, match="HANDLER_TIMEOUT_S=500: must be at most half of TASK_TIMEOUT_S=600"):
        worker_settings({**given, "HANDLER_TIMEOUT_S": "500"})


def test_what_is_usual_needs_a_few_runs_and_forgets_the_old() -> None:
    usual = Usual()
    usual.note("a", 10)
    usual.note("a", 12)
    assert usual.of("a") is None
    usual.note("a", 500)
    assert (usual.of("a"), usual.of("b")) == (12, None)
    for _ in range(20):
        usual.note("a", 3)
    assert usual.of("a") == 3
