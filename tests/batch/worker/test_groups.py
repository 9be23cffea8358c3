"""Grouped handlers: one call for many tasks, and to each its own attempt, output, outcome and dead letter."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import pydantic
import pytest

from batch.handling.answer import Answer, Said, answers_of
from batch.handling.context import AsyncContext, Context
from batch.handling.registry import Backoff, Registry
from batch.model.attempts import AttemptError
from batch.model.errors import DependencyUnavailable, Permanent, Retry, Snooze, Superseded
from batch.model.exit import ExitReason
from batch.model.message import Task
from batch.testing import ManualClock, run_handler
from batch.worker.admission.records import add_failure
from batch.worker.executors.groups import GroupExecutor
from tests.batch.worker.plant import Plant, ended, in_thread
from tests.clocks import JumpingClock
from tests.support import wait_until


def group_threads() -> set[threading.Thread]:
    return {one for one in threading.enumerate() if one.name == "loop" or (one.name.startswith("group-") and "aside" not in one.name)}


@pytest.fixture
def plant() -> Iterator[Plant]:
    before, made = group_threads(), Plant()
    yield made
    assert made.subscription.leased == made.deferred_count, "a worker that has ended must hold nothing"
    wait_until(lambda: group_threads() <= before, 60, "the end of the groups' threads")


def test_a_call_takes_a_list_and_each_task_gets_its_own_result(plant: Plant) -> None:
    sizes: list[int] = []

    @plant.registry.task("embed", group=64, group_wait_s=0.05)
    def embed(tasks: list[Task], ctxs: list[Context]) -> list[Any]:
        sizes.append(len(tasks))
        assert [ctx.task for ctx in ctxs] == tasks
        for task, ctx in zip(tasks, ctxs, strict=True):
            ctx.write(f"out/{task.task_id}", task.task_id.encode())
        return [task.task_id.upper() for task in tasks]

    ids = plant.submit(200, "embed")
    assert plant.worker(BACKLOG=200).run() is ExitReason.SHARE_DONE
    assert sum(sizes) == 200
    assert max(sizes) == 64
    assert len(sizes) <= 8
    assert {one.task_id: (one.result, one.output) for one in plant.outcomes()} == {one: (one.upper(), f"out/{one}") for one in ids}


def test_each_task_of_a_call_has_its_own_end(plant: Plant) -> None:
    ends: list[Any] = [
        "fine",
        ValueError("broken"),
        Permanent("never"),
        Snooze(60),
        Superseded("newer"),
        DependencyUnavailable("down"),
        None,
    ]

    @plant.registry.task("mixed", group=10, retries=0)
    def mixed(tasks: list[Task], ctxs: list[Context]) -> list[Any]:
        return [ends[int(task.task_id.split("-")[1])] for task in tasks]

    plant.submit(len(ends), "mixed")
    plant.worker(MAX_MESSAGES=len(ends)).run()
    assert plant.final() == {"task-0": "succeeded", "task-1": "dead", "task-2": "dead", "task-4": "superseded", "task-6": "succeeded"}
    assert {one["dead_error_type"] for one in plant.letters()} == {"ValueError", "permanent"}
    assert plant.store.names("attempts/") == ("attempts/task-1.json",)
    assert plant.progress().returned == 2
    plant.deferred_count = 2


def raising(error: BaseException) -> Callable[..., Any]:
    def call(tasks: list[Task], ctxs: list[Context]) -> Any:
        raise error

    return call


def giving(make: Callable[[list[Task]], Any]) -> Callable[..., Any]:
    def call(tasks: list[Task], ctxs: list[Context]) -> Any:
        return make(tasks)

    return call


WHOLE: dict[str, tuple[Callable[..., Any], str]] = {
    "an error": (raising(ValueError("all of it")), "ValueError: all of it"),
    "Permanent": (raising(Permanent("never")), "never"),
    "SystemExit": (raising(SystemExit(3)), "SystemExit: 3"),
    "one result too few": (
        giving(lambda tasks: [None] * (len(tasks) - 1)),
        "one result, or one exception, for each of its 5 tasks, in their order; got 4 results",
    ),
    "one result too many": (giving(lambda tasks: [None] * (len(tasks) + 1)), "got 6 results"),
    "nothing": (giving(lambda _tasks: None), "got a NoneType"),
    "a dict": (giving(lambda tasks: {task.task_id: 1 for task in tasks}), "got a dict"),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_call_that_fails_fails_for_all_of_its_tasks(plant: Plant, name: str) -> None:
    function, reason = WHOLE[name]
    plant.registry.task("whole", group=5, retries=0)(function)
    plant.submit(5, "whole")
    assert plant.worker(BACKLOG=5).run() is ExitReason.SHARE_DONE
    assert set(plant.final().values()) == {"dead"}
    assert all(reason in f"{one.error_type}: {one.reason}" for one in plant.outcomes())


@pytest.mark.parametrize("error", [ValueError("one of them is bad"), DependencyUnavailable("down for a moment")])
def test_one_call_that_fails_is_one_failure(plant: Plant, error: Exception) -> None:
    calls: list[int] = []

    @plant.registry.task("embed", group=30, backoff=Backoff(first_s=60))
    def embed(tasks: list[Task], ctxs: list[Context]) -> list[Any]:
        calls.append(len(tasks))
        if len(calls) == 1:
            raise error
        return [None] * len(tasks)

    plant.submit(90, "embed")
    worker = plant.worker(BACKLOG=90, CONCURRENCY=1, PREFETCH_S="0.01")
    worker._breaker.limit = worker._runner.verdicts.slowed_types.slowing._limit = 5
    assert worker.run() is ExitReason.SHARE_DONE
    assert sum(calls) == 90
    plant.deferred_count = calls[0]


def test_a_call_that_asks_for_a_retry_gets_it_for_all(plant: Plant) -> None:
    attempts: list[list[int]] = []

    @plant.registry.task("again", group=4)
    def again(tasks: list[Task], ctxs: list[Context]) -> list[Any]:
        attempts.append([ctx.attempt for ctx in ctxs])
        if len(attempts) == 1:
            raise Retry("once more", after_s=0)
        return [None] * len(tasks)

    plant.submit(4, "again")
    assert plant.worker(MAX_MESSAGES=8).run() is ExitReason.SHARE_DONE
    assert attempts[0] == [1] * 4
    assert [one for call in attempts[1:] for one in call] == [2] * 4
    assert [one.attempt_count for one in plant.outcomes()] == [2] * 4


class Payload(pydantic.BaseModel):
    number: int


def test_what_cannot_be_in_a_group_does_not_spoil_it(plant: Plant) -> None:
    groups: list[list[str]] = []

    @plant.registry.task("strict", group=10, payload=Payload)
    def strict(tasks: list[Task], ctxs: list[Context]) -> list[Any]:
        groups.append([task.task_id for task in tasks])
        return [ctx.payload.number for ctx in ctxs]

    plant.subscription.max_delivery_attempts = None  # so that each record is looked up
    add_failure(plant.store, "task-2", AttemptError("now", "E", "x", "e", 0), 300.0, plant.clock.now())
    plant.submit(5, "strict", number=7)
    plant.publish(b'{"task_type": "strict", "task_id": "bad", "number": "seven"}')
    plant.worker(MAX_MESSAGES=6).run()
    assert sorted(one for group in groups for one in group) == ["task-0", "task-1", "task-3", "task-4"]
    assert plant.final()["bad"] == "dead"
    assert {one.result for one in plant.outcomes() if one.outcome == "succeeded"} == {7}
    assert plant.progress().returned == 1
    plant.deferred_count = 1


def test_an_async_group_runs_on_the_loop_of_all(plant: Plant) -> None:
    loops: set[int] = set()

    @plant.registry.task("embed", group=8)
    async def embed(tasks: list[Task], ctxs: list[AsyncContext]) -> list[Any]:
        loops.add(id(asyncio.get_running_loop()))
        return await asyncio.gather(*(ctx.write(f"out/{ctx.task.task_id}", b"1") for ctx in ctxs), return_exceptions=True)

    @plant.registry.task("later")
    async def later(task: Task, ctx: AsyncContext) -> None:
        loops.add(id(asyncio.get_running_loop()))

    plant.submit(20, "embed")
    plant.publish(b'{"task_type": "later", "task_id": "l"}', shard="s-1")
    assert plant.worker(BACKLOG=21).run() is ExitReason.SHARE_DONE
    assert len(loops) == 1
    assert len(plant.store.names("out/")) == 20
    assert len(plant.final()) == 21


def test_a_group_waits_for_company_by_the_clock() -> None:
    """Its first message comes when the line has one; then it waits `group_wait_s`, and not longer."""
    clock = ManualClock(waits_move=False)
    plant = Plant(clock=clock)

    @plant.registry.task("embed", group=3, group_wait_s=60)
    def embed(tasks: list[Task], ctxs: list[Context]) -> list[Any]:
        return [None] * len(tasks)

    worker = plant.worker()
    (groups,) = worker._executors._executors
    assert isinstance(groups, GroupExecutor)
    plant.submit(5, "embed")
    deliveries = plant.subscription.pull(5, 0)
    got: list[list[str]] = []

    def fill() -> None:
        got.append([one.ack_id for one in groups.filled()])

    for put, advance_s, expected in ((3, 0.0, 3), (2, 60.0, 2)):
        thread = threading.Thread(target=fill)
        thread.start()
        for _ in range(put):
            groups.queue.put([deliveries.pop(0)])
        wait_until(lambda: len(groups.queue) == 0, 60, "an empty line")
        clock.advance(advance_s)
        thread.join(60)
        assert not thread.is_alive()
        assert len(got[-1]) == expected
    thread = threading.Thread(target=fill)
    thread.start()
    groups.queue.close()
    thread.join(60)
    assert got[-1] == []


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_a_call_that_is_over_its_time_fails_for_its_tasks_and_others_go_on(plant: Plant, kind: str) -> None:
    may_end = threading.Event()
    returned: list[str] = []

    def plain(tasks: list[Task], ctxs: list[Context]) -> list[Any]:
        if any(task.task_id == "task-0" for task in tasks):
            may_end.wait(60)
            returned.append("late")
        return ["done"] * len(tasks)

    async def asynchronous(tasks: list[Task], ctxs: list[AsyncContext]) -> list[Any]:
        if any(task.task_id == "task-0" for task in tasks):
            await asyncio.Event().wait()
        return ["done"] * len(tasks)

    plant.registry.task("slow", group=4, group_wait_s=0, timeout_s=0.1, retries=0)(plain if kind == "plain" else asynchronous)
    plant.submit(20, "slow")
    assert plant.worker(BACKLOG=20).run() is ExitReason.SHARE_DONE
    final = plant.final()
    late = [one for one in plant.outcomes() if one.outcome == "dead"]
    assert final["task-0"] == "dead"
    assert 1 <= len(late) <= 4
    assert {one.error_type for one in late} == {"TimeoutError"}
    assert len(final) == 20
    may_end.set()
    if kind == "plain":
        wait_until(lambda: returned, 60, "the late return, which nobody hears of")
        assert plant.final() == final


def test_at_most_two_calls_run_at_a_time(plant: Plant) -> None:
    now = [0, 0]
    before, threads = group_threads(), [0]
    lock = threading.Lock()
    both = threading.Event()

    @plant.registry.task("count", group=10, group_wait_s=0)
    def count(tasks: list[Task], ctxs: list[Context]) -> list[Any]:
        with lock:
            now[0] += 1
            now[1] = max(now)
            if now[0] == 2:
                both.set()
        both.wait(60)
        with lock:
            now[0] -= 1
            threads.append(len(group_threads() - before))
        return [None] * len(tasks)

    plant.submit(300, "count")
    assert plant.worker(BACKLOG=300, CONCURRENCY=8).run() is ExitReason.SHARE_DONE
    assert now == [0, 2]
    assert max(threads) == 2


def test_a_stop_gives_back_a_group_that_fills(plant: Plant) -> None:
    calls: list[int] = []

    @plant.registry.task("embed", group=100, group_wait_s=600)
    def embed(tasks: list[Task], ctxs: list[Context]) -> list[Any]:
        calls.append(len(tasks))
        return [None] * len(tasks)

    plant.submit(7, "embed")
    worker = plant.worker(MAX_MESSAGES=50)
    thread, reasons = in_thread(worker)
    wait_until(lambda: worker.tally.taken == 7 and worker._executors.waiting_count == 0, 60, "seven messages in a group that fills")
    worker.stop()
    ended(thread)
    assert reasons == [ExitReason.STOPPED]
    assert calls == []
    assert plant.progress().taken == plant.progress().returned


@pytest.mark.usefixtures("begun_late")
def test_a_call_that_runs_at_the_end_is_handed_back(plant: Plant) -> None:
    @plant.registry.task("endless", group=4, group_wait_s=0)
    async def endless(tasks: list[Task], ctxs: list[AsyncContext]) -> list[Any]:
        await asyncio.Event().wait()
        return []

    plant.submit(3, "endless")
    assert plant.worker(BACKLOG=3, TASK_TIMEOUT_S=1, PREFETCH_S="0.1").run() is ExitReason.OUT_OF_TIME
    assert plant.store.names("attempts/") == ()
    assert plant.outcomes() == []
    assert plant.progress().returned == 3


def test_the_time_of_a_call_is_the_time_of_each_task_and_counts_once(plant: Plant) -> None:
    clock = ManualClock(waits_move=False)
    plant.clock = clock

    @plant.registry.task("embed", group=10, group_wait_s=0)
    def embed(tasks: list[Task], ctxs: list[Context]) -> list[Any]:
        clock.advance(2.0)
        return [None] * len(tasks)

    plant.submit(4, "embed")
    worker = plant.worker(MAX_MESSAGES=4)
    (groups,) = worker._executors._executors
    assert isinstance(groups, GroupExecutor)
    assert groups.round(plant.subscription.pull(4, 0))
    finished = worker._inbox.get_nowait()
    assert finished is not None
    assert all(b'"duration_s":2.0' in getattr(one, "line", b"") for one in finished)
    assert len(finished) == 4
    assert (worker.tally.mean_s, worker.tally.handler_s) == (2.0, 2.0)
    plant.deferred_count = 4


def test_contexts_are_a_sequence_and_each_is_made_once(plant: Plant) -> None:
    seen: list[Any] = []

    @plant.registry.task("embed", group=4, group_wait_s=60)
    def embed(tasks: list[Task], ctxs: Sequence[Context]) -> list[Any]:
        seen.append(ctxs)
        assert ctxs[-1].task is tasks[-1]
        assert [one.task for one in ctxs[1:3]] == tasks[1:3]
        assert ctxs[0] is ctxs[0]
        with pytest.raises(IndexError):
            _ = ctxs[4]
        ctxs[2].write("out/third", b"x")
        return [None] * len(tasks)

    ids = plant.submit(4, "embed")
    assert plant.worker(BACKLOG=4).run() is ExitReason.SHARE_DONE
    assert len(seen) == 1
    assert {one.task_id: one.output for one in plant.outcomes()} == dict.fromkeys(ids, "") | {ids[2]: "out/third"}


@pytest.mark.parametrize(
    "result", [None, "x" * 100_000, object(), {"a": [1, 2]}, float("nan")], ids=["none", "large", "odd", "json", "nan"]
)
def test_a_group_writes_the_lines_that_its_tasks_would_have_alone(result: Any) -> None:
    lines = []
    for options in ({"group": 3, "group_wait_s": 60.0}, {}):
        plant = Plant(JumpingClock())
        returns = (lambda tasks, _ctxs: [result] * len(tasks)) if options else (lambda _task, _ctx: result)
        plant.registry.task("embed", retries=0, **options)(returns)  # type: ignore[arg-type]
        plant.submit(3, "embed")
        assert plant.worker(BACKLOG=3, CONCURRENCY=1).run() is ExitReason.SHARE_DONE
        lines.append({(one.task_id, one.message_id): {**asdict(one), "finished_at": "", "duration_s": 0} for one in plant.outcomes()})
    assert len(lines[0]) == 3
    assert repr(lines[0]) == repr(lines[1])


def test_answers_are_one_for_each_task() -> None:
    assert [one.result for one in answers_of(Answer(Said.RETURNED, (1, None)), 2)] == [1, None]
    failed = answers_of(Answer(Said.FAILED, reason="x"), 3)
    assert [one.reason for one in failed] == ["x"] * 3


def test_a_grouped_handler_runs_by_itself_in_a_test() -> None:
    registry = Registry()

    @registry.task("embed", group=4, backoff=Backoff(first_s=0))
    def embed(tasks: list[Task], ctxs: list[Context]) -> list[Any]:
        return [Permanent("no") if task.fields["bad"] else "yes" for task in tasks]

    assert run_handler("embed", {"bad": False}, registry=registry).result == "yes"
    with pytest.raises(Permanent, match="no"):
        run_handler("embed", {"bad": True}, registry=registry)
