"""`run_handler` and `run_group` say what a worker says: the same errors with the same words, in each kind of handler."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from contextvars import ContextVar
from typing import Any

import pydantic
import pytest

from batch.handling.answer import Answer, Said, WrongResults, raised
from batch.handling.context import Context
from batch.handling.registry import Registry
from batch.model.clock import SystemClock
from batch.model.errors import MessageRefused
from batch.model.message import Task
from batch.model.outcomes import Outcome
from batch.model.result import as_json
from batch.model.texts import json_bytes
from batch.testing import HandlerRun, ManualClock, MemoryObjectStore, bounded, run_group, run_handler
from tests.batch.worker.plant import Plant
from tests.field import hanging, idle, wrapping
from tests.field.kinds import KINDS, End, ends, registry_of

BY_SAID = {Said.PERMANENT: ("dead", "permanent"), Said.INVALID: ("dead", "invalid"), Said.SUPERSEDED: ("superseded", "")}


def end_of(answer: Answer) -> End:
    """What a worker makes of an answer, without retries."""
    if answer.said in (Said.DEPENDENCY, Said.SNOOZED):
        return "", "", ""
    outcome, error_type = BY_SAID.get(answer.said, ("dead", answer.error_type))
    return outcome, error_type, answer.reason


def said_by_the_kit(registry: Registry, kind: str, fields: dict[str, Any], **options: Any) -> tuple[End, Any]:
    try:
        run = run_handler(kind, fields, registry=registry, store=MemoryObjectStore(), **options)
    except BaseException as error:  # noqa: BLE001 - an exit is one of them
        return end_of(raised(error)), None
    return ("succeeded", "", ""), run.result


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("module", [wrapping, idle], ids=["signals", "results"])
def test_the_kit_says_what_a_worker_says(module: Any, kind: str) -> None:
    cases: list[str] = list(module.CASES)
    name = module.__name__.rpartition(".")[2]
    found, results = ends(name, module.act, kind, cases)
    registry = registry_of(name, module.act)
    for case in cases:
        (outcome, error_type, reason), result = said_by_the_kit(registry, kind, {"case": case})
        worker = found[case]
        # The kit raises the error as it is; that it was one of several stands in its note.
        assert (outcome, error_type, reason) == (*worker[:2], worker[2].partition(" (one of ")[0]), case
        if outcome == "succeeded" and case != "too large":
            assert json.loads(json_bytes(as_json(result))) == (results[case] if result or result is None else ""), case


def outcome_of(registry: Registry, task_type: str, **fields: Any) -> Outcome:
    """Of a real worker."""
    plant = Plant(registry=registry)
    plant.submit(1, task_type, **fields)
    plant.worker(BACKLOG=1, HANDLERS=hanging.__name__, PROCESSES=1).run()
    (outcome,) = plant.outcomes()
    return outcome


@pytest.mark.parametrize("kind", KINDS)
def test_a_handler_that_hangs_ends_at_its_limit_with_the_words_of_the_worker(kind: str) -> None:
    registry = hanging.registry()
    with pytest.raises(TimeoutError) as told:
        run_handler(kind, {}, registry=registry, clock=SystemClock())
    outcome = outcome_of(registry, "hanging-isolated" if kind == "isolated" else kind)
    assert (outcome.error_type, outcome.reason) == ("TimeoutError", str(told.value))


def sleeping() -> Registry:
    made = Registry()

    @made.task("plain", timeout_s=30)
    def plain(task: Any, ctx: Any) -> Any:
        ctx.sleep(task.fields["seconds"])
        return ctx.remaining_s()

    @made.task("async", timeout_s=30)
    async def later(task: Any, ctx: Any) -> Any:
        async with asyncio.TaskGroup() as parts:
            parts.create_task(ctx.sleep(task.fields["seconds"]))
        return ctx.remaining_s()

    @made.task("group", timeout_s=30, group=2)
    def grouped(tasks: Any, ctxs: Any) -> Any:
        ctxs[0].sleep(tasks[0].fields["seconds"])
        return [ctx.remaining_s() for ctx in ctxs]

    made.task("isolated", timeout_s=30, isolation="process")(plain)
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_sleeps_count_by_a_clock_that_stands_still(kind: str) -> None:
    clock = ManualClock()
    began_s = clock.now()
    assert run_handler(kind, {"seconds": 20}, registry=sleeping(), clock=clock).result == 10.0
    with pytest.raises(TimeoutError, match=r"of 30 s"):
        run_handler(kind, {"seconds": 3600}, registry=sleeping(), clock=clock)
    assert clock.now() - began_s == 50.0


def test_an_async_handler_is_cancelled_and_cleans_up() -> None:
    registry, cleaned = Registry(), threading.Event()

    @registry.task("later", timeout_s=0.1)
    async def later(task: Any, ctx: Any) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            await ctx.write("out/cleaned", b"1")
            cleaned.set()

    store = MemoryObjectStore()
    with pytest.raises(TimeoutError, match="and was cancelled"):
        run_handler("later", {}, registry=registry, store=store, clock=SystemClock())
    assert cleaned.is_set()
    assert store.names() == ("out/cleaned",)


def test_an_async_handler_that_blocks_its_loop_ends_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "CANCEL_LIMIT_S", 0.1)
    registry, end = Registry(), threading.Event()

    @registry.task("later", timeout_s=0.1)
    async def later(task: Any, ctx: Any) -> Any:
        end.wait(60)

    with pytest.raises(TimeoutError, match="and was cancelled"):
        run_handler("later", {}, registry=registry, clock=SystemClock())
    end.set()


class Text(pydantic.BaseModel):
    text: str


def embedding(group_wait_s: float = 60) -> Registry:
    made = Registry()

    @made.task("embed", group=4, group_wait_s=group_wait_s, payload=Text, retries=0)
    def embed(tasks: Any, ctxs: Any) -> Any:
        results: dict[str, Any] = {"bytes": b"x", "group": ExceptionGroup("several", [ConnectionError("refused")])}
        return [results.get(ctx.payload.text, len(tasks)) for ctx in ctxs]

    return made


def test_one_payload_of_a_group_that_is_wrong_spoils_no_other() -> None:
    runs = run_group("embed", [{"text": "a"}, {"txt": "b"}, {"text": "bytes"}, {"text": "group"}], registry=embedding())
    first, refused, unfit, failed = runs
    assert isinstance(first, HandlerRun)
    assert first.result == 3  # the handler was called without the one that is refused
    plant = Plant(registry=embedding())
    for number, fields in enumerate([{"text": "a"}, {"txt": "b"}, {"text": "bytes"}, {"text": "group"}], 1):
        data = {"task_id": f"task-{number}", "task_type": "embed", "submitted_at": "2026-01-01T00:00:00.000000Z", **fields}
        plant.publish(json.dumps(data).encode(), shard="s-1")
    plant.worker(BACKLOG=4).run()
    outcomes = {one.task_id: one for one in plant.outcomes()}
    assert outcomes["task-1"].result == 3
    for task_id, error in {"task-2": refused, "task-3": unfit, "task-4": failed}.items():
        assert isinstance(error, BaseException)
        answer = raised(error)
        assert outcomes[task_id].error_type == ("invalid" if isinstance(error, MessageRefused) else answer.error_type)
        assert answer.reason in outcomes[task_id].reason
    assert [type(one) for one in (refused, unfit, failed)] == [MessageRefused, TypeError, ConnectionError]


def test_a_group_of_refused_payloads_is_not_called() -> None:
    refused = run_group("embed", [{}, {"text": 1}], registry=embedding())
    assert [type(one) for one in refused] == [MessageRefused] * 2


@pytest.mark.parametrize("results", [[], None, "ab", {1: 2}, iter([1])])
def test_results_that_do_not_fit_get_the_words_of_the_worker(results: Any) -> None:
    registry = Registry()
    registry.task("embed", group=2, retries=0)(lambda _tasks, _ctxs: results)
    with pytest.raises(WrongResults) as told:
        run_group("embed", [{}], registry=registry)
    outcome = outcome_of(registry, "embed")
    assert (outcome.error_type, outcome.reason) == ("WrongResults", str(told.value))


def test_a_refused_payload_and_a_wrong_signature_get_the_words_of_the_worker() -> None:
    registry = embedding(group_wait_s=0)
    with pytest.raises(MessageRefused) as refused:
        run_handler("embed", {"txt": "b", "name": "out/task-0"}, registry=registry, task_id="task-0")
    assert outcome_of(registry, "embed", txt="b").reason == str(refused.value)
    registry.task("short", retries=0)(lambda task: task)
    with pytest.raises(TypeError) as told:
        run_handler("short", {}, registry=registry)
    assert str(told.value) in outcome_of(registry, "short").reason


def test_the_error_that_is_raised_says_where_it_stood() -> None:
    def handler(task: Any, ctx: Any) -> Any:
        raise ExceptionGroup("several", [KeyError("a"), ConnectionError("refused")])

    with pytest.raises(KeyError) as told:
        run_handler(handler, {}, registry=Registry())
    assert told.value.__notes__ == ["A worker hears this one of what the handler raised: ExceptionGroup: several (2 sub-exceptions)"]


TENANT: ContextVar[str] = ContextVar("tenant", default="none")


def test_a_run_finds_no_context_variable_of_another() -> None:
    def leaks(task: Task, ctx: Context) -> str:
        found = TENANT.get()
        TENANT.set("another")
        return found

    assert [run_handler(leaks, {}).result for _ in range(2)] == ["none", "none"]


@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
@pytest.mark.parametrize("timeout_s", [None, 30.0])
def test_a_copy_that_comes_back_from_its_handler_does_not_go_on_with_the_test(timeout_s: float | None, is_async: bool) -> None:
    parent = os.getpid()
    registry = Registry()

    def forks(task: Task, ctx: Context) -> int:
        return os.fork()

    async def forks_later(task: Task, ctx: Any) -> int:
        return os.fork()

    registry.task("forks", timeout_s=timeout_s)(forks_later if is_async else forks)

    pid = run_handler("forks", {}, registry=registry).result
    if os.getpid() != parent:
        os._exit(77)  # or the whole run of tests would go on twice
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
