"""A result that shows that nothing ran, or that JSON cannot hold, is a failed attempt whose reason says what to do; never a success."""

from __future__ import annotations

import asyncio
import functools
import threading
from typing import Any

import pytest

from batch.handling.registry import Handler, Kind, Registry
from batch.model.errors import SettingsError
from batch.testing import ManualClock, drain
from tests.batch.worker.isolated import plant_with, submit
from tests.batch.worker.plant import Plant
from tests.batch.worker.test_poison import delivered_before, left_by, record
from tests.field import idle, wrapping
from tests.field.kinds import KINDS, ends


@pytest.mark.parametrize("kind", KINDS)
def test_a_result_that_is_none_is_a_failed_attempt(kind: str) -> None:
    found, results = ends("idle", idle.act, kind, list(idle.CASES))
    for name, (_, (outcome, error_type, reason)) in idle.CASES.items():
        assert found[name][:2] == (outcome, error_type), name
        assert found[name][2].startswith(reason), name
    assert "at most 65536 are kept" in results.pop("too large")["left_out"]
    assert results == idle.RESULTS


@pytest.mark.parametrize("kind", ["isolated", "async", "group"])
def test_a_quarantined_task_is_judged_alike(kind: str) -> None:
    plant = plant_with(f"idle-{kind}", f"wrapping-{kind}")
    plant.deferred_count = 1
    for task_id, task_type, case in (("lazy", "idle", "a generator"), ("down", "wrapping", "a service in a group")):
        submit(plant, task_id, f"{task_type}-{kind}", case=case)
        left_by(plant, task_id)
    delivered_before(plant)
    plant.worker(BACKLOG=2, HANDLERS=f"{idle.__name__},{wrapping.__name__}").run()
    (outcome,) = plant.outcomes()
    assert (outcome.task_id, outcome.error_type) == ("lazy", "TypeError")
    assert "returned a generator, so nothing ran" in outcome.reason
    assert record(plant, "down").attempt_count == 0


def test_it_is_tried_again_as_any_failure_and_stands_on_record() -> None:
    registry = Registry()

    @registry.task("lazy", retries=2)
    def lazy(task: Any, ctx: Any) -> Any:
        ctx.write("out/a", b"1")
        return (number for number in range(3)) if ctx.attempt < 3 else "done"

    drained = drain([{"task_type": "lazy"}], registry, clock=ManualClock())
    assert (drained.outcome(), [one.attempt for one in drained.runs["task-1"]]) == ("succeeded", [1, 2, 3])
    assert drained.outcomes["task-1"].attempt_count == 3


@pytest.mark.parametrize("make", [lambda tasks: (task.task_id for task in tasks), lambda tasks: map(str, tasks), lambda _tasks: None])
def test_a_grouped_handler_that_returns_no_list_fails_for_all(make: Any) -> None:
    plant = Plant()
    plant.registry.task("embed", group=3, group_wait_s=60, retries=0)(lambda tasks, _ctxs: make(tasks))
    plant.submit(3, "embed")
    plant.worker(BACKLOG=3).run()
    assert [one.error_type for one in plant.outcomes()] == ["WrongResults"] * 3
    assert all("so nothing ran: list(...) it" in one.reason or "got a NoneType" in one.reason for one in plant.outcomes())


def test_the_others_of_a_group_keep_their_results() -> None:
    plant = Plant()

    @plant.registry.task("embed", group=3, group_wait_s=60, retries=0)
    async def embed(tasks: Any, ctxs: Any) -> Any:
        return [{1} if task.task_id == "task-1" else task.task_id for task in tasks]

    plant.submit(3, "embed")
    plant.worker(BACKLOG=3).run()
    assert plant.final() == {"task-0": "succeeded", "task-1": "dead", "task-2": "succeeded"}
    assert {one.result for one in plant.outcomes()} == {"task-0", None, "task-2"}


def test_a_whole_group_of_refused_results_is_recorded_side_by_side() -> None:
    plant, together = Plant(), threading.Barrier(2)
    write = plant.store.write

    def slow(name: str, *arguments: Any, **options: Any) -> Any:
        if name.startswith("attempts/"):
            together.wait(30)  # one alone would wait in vain
        return write(name, *arguments, **options)

    plant.store.write = slow  # type: ignore[method-assign]
    plant.registry.task("embed", group=2, group_wait_s=60, retries=0)(lambda tasks, _ctxs: [{1} for _ in tasks])
    plant.submit(2, "embed")
    plant.worker(BACKLOG=2).run()
    assert plant.final() == {"task-0": "dead", "task-1": "dead"}


def test_a_refused_result_is_recorded_aside_from_the_loop() -> None:
    """The record of a failed attempt is a request, and the loop has other tasks to run."""
    plant, threads = Plant(), set[str]()
    write = plant.store.write

    def noted(name: str, *arguments: Any, **options: Any) -> Any:
        if name.startswith("attempts/"):
            threads.add(threading.current_thread().name)
        return write(name, *arguments, **options)

    plant.store.write = noted  # type: ignore[method-assign]

    @plant.registry.task("lazy", retries=0)
    async def lazy(task: Any, ctx: Any) -> Any:
        threads.add(f"not {threading.current_thread().name}")
        return object()

    plant.submit(1, "lazy")
    plant.worker(BACKLOG=1).run()
    assert plant.final() == {"task-0": "dead"}
    assert len(threads) == 2
    assert len({one.removeprefix("not ") for one in threads}) == 2


class Later:
    async def __call__(self, task: Any, ctx: Any) -> Any:
        await asyncio.sleep(0)
        return (await ctx.write("out/later", b"1")).name


class Lazy:
    def __call__(self, task: Any, ctx: Any) -> Any:
        yield 1


async def later(task: Any, ctx: Any, extra: str = "") -> Any:
    await asyncio.sleep(0)
    return f"ran{extra}"


def test_async_functions_are_found_in_partials_and_objects() -> None:
    plant = Plant()
    plant.registry.task("object")(Later())
    plant.registry.task("partial")(functools.partial(later, extra=" with more"))
    plant.registry.task("partial object")(functools.partial(Later()))
    plant.registry.task("group", group=2)(functools.partial(later))
    assert [plant.registry[one].kind for one in ("object", "partial", "partial object")] == [Kind.ASYNC] * 3
    assert plant.registry["group"].is_async
    plant.submit(1, "object")
    plant.worker(BACKLOG=1).run()
    assert plant.outcomes()[0].result == "out/later"


def test_a_decorator_that_is_not_async_hides_no_coroutine() -> None:
    plant = Plant()

    @plant.registry.task("decorated", retries=0)
    @_logged
    async def decorated(task: Any, ctx: Any) -> Any:
        return await later(task, ctx)

    plant.submit(1, "decorated")
    plant.worker(BACKLOG=1).run()
    assert plant.outcomes()[0].result == "ran"


def _logged(function: Any) -> Any:
    @functools.wraps(function)
    def run(task: Any, ctx: Any) -> Any:
        return function(task, ctx)

    return run


@pytest.mark.parametrize("function", [Lazy(), functools.partial(Lazy()), functools.partial(idle.rows), functools.partial(idle.stream)])
def test_what_is_a_generator_for_sure_is_refused_at_the_start(function: Any) -> None:
    with pytest.raises(SettingsError, match="it is a generator, which would do nothing"):
        Registry().task("lazy")(function)


def test_a_generator_that_a_decorator_turns_into_a_list_is_a_handler() -> None:
    @functools.wraps(idle.rows)
    def listed(task: Any, ctx: Any) -> Any:
        return list(idle.rows())

    drained = drain([{"task_type": "listed"}], _with("listed", listed))
    assert drained.outcomes["task-1"].result == [1]


def _with(task_type: str, function: Any) -> Registry:
    made = Registry()
    made.task(task_type)(function)
    return made


def test_a_handler_knows_whether_it_is_async() -> None:
    assert Handler("x", later).is_async
    assert not Handler("x", print).is_async
    assert not Handler("x", int).is_async
