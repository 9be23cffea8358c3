"""Async handlers: one loop for all of them, which no handler can end, and nothing that waits runs on it."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from batch.handling.context import AsyncContext, HowFar
from batch.handling.registry import Backoff
from batch.model.attempts import AttemptError
from batch.model.errors import DependencyUnavailable, Permanent, Retry, Snooze
from batch.model.exit import ExitReason
from batch.model.message import Task
from batch.testing import ManualClock, MemoryObjectStore, run_handler
from batch.worker.admission.records import add_failure
from batch.worker.attempt import Nack
from batch.worker.executors import async_tasks as async_slots
from batch.worker.executors import loop
from batch.worker.executors.loop import Loop
from tests.batch.worker.plant import Plant, ended, in_thread, write
from tests.support import wait_until


@pytest.fixture
def plant() -> Iterator[Plant]:
    made = Plant()
    yield made
    assert made.subscription.leased == made.deferred_count, "a worker that has ended must hold nothing"
    wait_until(lambda: not [one for one in threading.enumerate() if one.name in ("loop", "feeder")], 60, "the end of the loop's threads")


def test_tasks_run_side_by_side_on_one_loop(plant: Plant) -> None:
    together = 64
    loops: set[int] = set()
    arrived: list[str] = []
    all_there = asyncio.Event()

    @plant.registry.task("meet")
    async def meet(task: Task, ctx: AsyncContext) -> str:
        loops.add(id(asyncio.get_running_loop()))
        arrived.append(task.task_id)
        if len(arrived) == together:
            all_there.set()
        await all_there.wait()
        return (await ctx.write(f"out/{task.task_id}", b"1")).name

    plant.submit(together, "meet")
    assert plant.worker(BACKLOG=together, CONCURRENCY=together).run() is ExitReason.SHARE_DONE
    assert len(loops) == 1
    assert len(arrived) == together
    assert sorted(one.output for one in plant.outcomes()) == sorted(f"out/task-{number}" for number in range(together))
    assert plant.progress().acked == together


def test_no_more_run_at_a_time_than_there_are_places(plant: Plant) -> None:
    now: list[int] = [0, 0]

    @plant.registry.task("count")
    async def count(task: Task, ctx: AsyncContext) -> None:
        now[0] += 1
        now[1] = max(now)
        await asyncio.sleep(0)
        now[0] -= 1

    plant.submit(500, "count")
    assert plant.worker(BACKLOG=500, CONCURRENCY=7).run() is ExitReason.SHARE_DONE
    assert now == [0, 7]
    assert len(plant.final()) == 500


def raising(make: Callable[[], BaseException]) -> Callable[[], Any]:
    def call() -> Any:
        raise make()

    return call


async def stray_exit() -> None:
    sys.exit(3)


def stray() -> Any:
    return asyncio.get_running_loop().create_task(stray_exit(), name="stray")


def stop_the_loop() -> None:
    asyncio.get_running_loop().stop()


def cancel_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


WILD: dict[str, tuple[Callable[[], Any], str]] = {
    "SystemExit": (raising(lambda: SystemExit(3)), "dead"),
    "KeyboardInterrupt": (raising(KeyboardInterrupt), "dead"),
    "CancelledError": (raising(asyncio.CancelledError), "dead"),
    "GeneratorExit": (raising(GeneratorExit), "dead"),
    "StopAsyncIteration": (raising(StopAsyncIteration), "dead"),
    "its own cancellation": (cancel_itself, "dead"),
    "a loop that it stops": (stop_the_loop, "succeeded"),
    "a result that is no JSON": (object, "dead"),
}


@pytest.mark.parametrize("name", WILD)
def test_one_wild_task_never_ends_the_loop(plant: Plant, name: str) -> None:
    call, outcome = WILD[name]

    @plant.registry.task("wild", retries=0)
    async def wild(task: Task, ctx: AsyncContext) -> Any:
        value = call() if task.task_id == "task-1" else None
        await asyncio.sleep(0)
        return value

    plant.submit(3, "wild")
    assert plant.worker(BACKLOG=3).run() is ExitReason.SHARE_DONE
    assert plant.final() == {"task-0": "succeeded", "task-1": outcome, "task-2": "succeeded"}


def test_what_a_handler_leaves_running_cannot_end_the_loop(plant: Plant, caplog: pytest.LogCaptureFixture) -> None:
    left: list[Any] = []

    @plant.registry.task("leaves")
    async def leaves(task: Task, ctx: AsyncContext) -> None:
        if task.task_id == "task-0":
            left.append(stray())

    plant.submit(50, "leaves")
    assert plant.worker(BACKLOG=50, CONCURRENCY=2).run() is ExitReason.SHARE_DONE
    assert set(plant.final().values()) == {"succeeded"}
    assert [record.getMessage() for record in caplog.records if getattr(record, "event", "") == "loop_disturbed"]
    assert isinstance(left[0].exception(), SystemExit)


@pytest.mark.parametrize(
    ("make", "outcome", "attempts"),
    [
        (lambda: ValueError("x"), "dead", 1),
        (lambda: Permanent("no"), "dead", 0),
        (lambda: Retry("later", 0.0), "dead", 1),
    ],
)
def test_an_error_has_the_same_end_as_in_a_thread(plant: Plant, make: Callable[[], Exception], outcome: str, attempts: int) -> None:
    @plant.registry.task("fails", retries=0)
    async def fails(task: Task, ctx: AsyncContext) -> None:
        raise make()

    plant.submit(1, "fails")
    assert plant.worker(BACKLOG=1).run() is ExitReason.SHARE_DONE
    assert plant.final() == {"task-0": outcome}
    assert len(plant.store.names("attempts/")) == attempts


def test_a_snooze_and_a_service_that_fails_spend_no_attempt(plant: Plant) -> None:
    @plant.registry.task("waits")
    async def waits(task: Task, ctx: AsyncContext) -> None:
        raise Snooze(60) if task.task_id == "task-0" else DependencyUnavailable("down")

    plant.submit(2, "waits")
    plant.worker(MAX_MESSAGES=2).run()
    assert plant.progress().returned == 2
    assert plant.store.names("attempts/") == ()
    plant.deferred_count = 2


def test_nothing_that_waits_runs_on_the_loop(plant: Plant) -> None:
    """A message that was delivered before has its record read, and a failure is written, in other threads."""
    users: dict[str, set[str]] = {"read": set(), "write": set(), "handler": set()}
    store = plant.store

    def noted(kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(name: str, *arguments: Any, **options: Any) -> Any:
            if name.startswith("attempts/"):
                users[kind].add(threading.current_thread().name)
            return function(name, *arguments, **options)

        return call

    store.read_with_info = noted("read", store.read_with_info)  # type: ignore[method-assign]
    store.write = noted("write", store.write)  # type: ignore[method-assign]

    @plant.registry.task("fails", retries=1, backoff=Backoff(first_s=0))
    async def fails(task: Task, ctx: AsyncContext) -> None:
        users["handler"].add(threading.current_thread().name)
        raise ValueError("x")

    plant.submit(3, "fails")
    assert plant.worker(MAX_MESSAGES=6).run() is ExitReason.SHARE_DONE
    assert users["handler"] == {"loop"}
    assert users["read"]
    assert users["write"]
    assert not {name for name in users["read"] | users["write"] if name == "loop"}
    assert [one.attempt_count for one in plant.outcomes()] == [2, 2, 2]


def test_a_task_on_its_second_attempt_knows_it(plant: Plant) -> None:
    seen: list[int] = []
    add_failure(plant.store, "task-0", AttemptError("now", "E", "x", "e", 0), 0.0, 0.0)
    plant.subscription.max_delivery_attempts = None

    @plant.registry.task("again")
    async def again(task: Task, ctx: AsyncContext) -> None:
        seen.append(ctx.attempt)

    plant.submit(1, "again")
    plant.worker(BACKLOG=1).run()
    assert seen == [2]


def test_a_handler_that_is_over_its_time_is_cancelled(plant: Plant) -> None:
    cleaned: list[str] = []

    @plant.registry.task("slow", timeout_s=0.05, retries=0)
    async def slow(task: Task, ctx: AsyncContext) -> str:
        try:
            if task.task_id == "task-0":
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            cleaned.append(task.task_id)
            return "halfway"
        return "done"

    plant.submit(2, "slow")
    assert plant.worker(BACKLOG=2).run() is ExitReason.SHARE_DONE
    assert cleaned == ["task-0"]
    assert plant.final() == {"task-0": "dead", "task-1": "succeeded"}
    (dead,) = [one for one in plant.outcomes() if one.outcome == "dead"]
    assert dead.error_type == "TimeoutError"
    assert "timeout_s of 0.05 s" in dead.reason


def test_a_handler_that_cannot_be_cancelled_is_given_up(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(async_slots, "CANCEL_LIMIT_S", 0.05)
    may_end = threading.Event()

    @plant.registry.task("stubborn", timeout_s=0.05, retries=0)
    async def stubborn(task: Task, ctx: AsyncContext) -> str:
        while not may_end.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                continue
        return "too late"

    plant.submit(1, "stubborn")
    assert plant.worker(BACKLOG=1).run() is ExitReason.SHARE_DONE
    may_end.set()
    (dead,) = plant.outcomes()
    assert (dead.outcome, dead.error_type) == ("dead", "TimeoutError")


def test_a_stop_lets_go_what_has_not_started_and_waits_for_what_runs(plant: Plant) -> None:
    may_end = threading.Event()

    @plant.registry.task("long")
    async def long(task: Task, ctx: AsyncContext) -> str:
        while not may_end.is_set():
            await asyncio.sleep(0.005)
        return "whole"

    plant.submit(20, "long")
    worker = plant.worker(MAX_MESSAGES=20, CONCURRENCY=4)
    thread, reasons = in_thread(worker)
    wait_until(lambda: worker._executors.busy_count == 4, 60, "four tasks that run")
    worker.stop()
    wait_until(lambda: plant.subscription.leased == 4, 60, "what had not started to be handed back")
    may_end.set()
    ended(thread)
    assert reasons == [ExitReason.STOPPED]
    assert sorted(one.result for one in plant.outcomes()) == ["whole"] * 4
    assert plant.progress().taken == plant.progress().acked + plant.progress().returned


def test_nothing_starts_once_the_worker_is_stopping(plant: Plant) -> None:
    runs: list[str] = []

    @plant.registry.task("late")
    async def late(task: Task, ctx: AsyncContext) -> None:
        runs.append(task.task_id)

    plant.submit(5, "late")
    worker = plant.worker()
    (slots,) = worker._executors._executors
    worker._runner.stopping.set()
    slots.start()
    slots.queue.put(plant.subscription.pull(5, 0))
    back: list[Any] = []
    while len(back) < 5:
        back += worker._inbox.get(timeout=60) or []
    slots.queue.close()
    assert runs == []
    assert {type(one) for one in back} == {Nack}
    plant.deferred_count = 5


@pytest.mark.usefixtures("begun_late")
def test_what_runs_at_the_end_is_cancelled_and_spends_no_attempt(plant: Plant) -> None:
    cancelled: list[str] = []

    @plant.registry.task("endless")
    async def endless(task: Task, ctx: AsyncContext) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(task.task_id)

    plant.submit(3, "endless")
    assert plant.worker(BACKLOG=3, TASK_TIMEOUT_S=1, PREFETCH_S="0.1").run() is ExitReason.OUT_OF_TIME
    wait_until(lambda: len(cancelled) == 3, 60, "three cancelled handlers")
    assert plant.store.names("attempts/") == ()
    assert plant.outcomes() == []
    progress = plant.progress()
    assert (progress.taken, progress.acked, progress.returned) == (3, 0, 3)


def test_a_loop_that_is_blocked_is_told_once_with_its_stack(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    faults: list[BaseException] = []
    watched = Loop(1, 1, clock, faults.append)
    watched.start()
    blocked, may_go = threading.Event(), threading.Event()

    async def busy() -> None:
        blocked.set()
        may_go.wait(60)

    watched.call(lambda: watched.run(busy(), "sleepy", lambda _task: watched.leave()))
    blocked.wait(60)
    for _ in range(5):
        watched.watch()
        clock.advance(loop.BLOCKED_S / 2)
    may_go.set()
    watched._thread.join(60)
    assert not watched._thread.is_alive()
    assert faults == []
    (record,) = [one for one in caplog.records if getattr(one, "event", "") == "loop_blocked"]
    assert vars(record)["task_type"] == "sleepy"
    assert "may_go.wait(60)" in vars(record)["stack"]


def test_requests_of_contexts_are_in_flight_together(plant: Plant) -> None:
    together = 32
    barrier = threading.Barrier(together)
    original = plant.store.read

    def meeting(name: str) -> bytes:
        if name.startswith("input/"):
            barrier.wait(60)
        return original(name)

    plant.store.read = meeting  # type: ignore[method-assign]
    plant.store.write("input/a", b"a")

    @plant.registry.task("reads")
    async def reads(task: Task, ctx: AsyncContext) -> str:
        assert await ctx.exists("input/a")
        return (await ctx.read("input/a")).decode()

    plant.submit(together, "reads")
    assert plant.worker(BACKLOG=together, CONCURRENCY=together).run() is ExitReason.SHARE_DONE
    assert {one.result for one in plant.outcomes()} == {"a"}


def test_async_and_plain_handlers_share_a_worker(plant: Plant) -> None:
    plant.registry.task("write")(write)

    @plant.registry.task("later")
    async def later(task: Task, ctx: AsyncContext) -> str:
        return threading.current_thread().name

    tasks = plant.submit(5)
    plant.submit(5, "later")
    assert plant.worker(BACKLOG=10).run() is ExitReason.SHARE_DONE
    assert sorted(plant.final()) == tasks
    assert len(plant.outcomes()) == 10


def test_an_async_handler_runs_by_itself_in_a_test() -> None:
    async def shouts(task: Task, ctx: AsyncContext) -> float:
        before_s = ctx.now()
        await ctx.sleep(30)
        await ctx.write("out/a", (await ctx.read("input/a")).upper())
        return ctx.now() - before_s

    store = MemoryObjectStore()
    store.write("input/a", b"a")
    run = run_handler(shouts, {}, store=store)
    assert run.result == 30
    assert store.read("out/a") == b"A"


def test_progress_is_logged_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    how_far: dict[str, HowFar] = {}
    ctx = AsyncContext(Task("t1", "long", "now"), MemoryObjectStore(), clock, how_far=how_far)
    caplog.set_level("INFO", "fanout")
    for done in range(100):
        ctx.progress(done, 100, "rows")
        clock.advance(0.3)
    told = [vars(one)["done"] for one in caplog.records if getattr(one, "event", "") == "handler_progress"]
    assert told == [34, 68]
    assert str(how_far["t1"]) == "99 of 100 rows"
    ctx.ended()
    assert how_far == {}
    with pytest.raises(TypeError, match="put words into note"):
        ctx.progress("half")  # type: ignore[arg-type]
