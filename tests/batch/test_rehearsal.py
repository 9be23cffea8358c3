"""What authors test their handlers with: runs, groups, rehearsals. Good handlers pass, and each kind of bad one is caught."""

from __future__ import annotations

from contextlib import suppress
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from batch.handling.answer import WrongResults
from batch.handling.registry import Function, Registry
from batch.model.errors import DependencyUnavailable, MessageRefused, Permanent, Superseded
from batch.model.message import Task
from batch.testing import MemoryObjectStore, Rehearsal, run_group, run_handler

INPUT = {"input/n": b"hello"}
ID = "00000000-0000-4000-8000-000000000001"


def copies(task: Task, ctx: Any) -> str:
    data = ctx.read(f"input/{task.fields['name']}")
    ctx.write(f"copies/{task.fields['name']}", data, "text/plain")
    ctx.write(f"results/{task.task_id}.json", b'{"size": 5}', "application/json")
    return "done"


async def copies_async(task: Task, ctx: Any) -> str:
    data = await ctx.read(f"input/{task.fields['name']}")
    await ctx.write(f"copies/{task.fields['name']}", data, "text/plain")
    await ctx.write(f"results/{task.task_id}.json", b'{"size": 5}', "application/json")
    return "done"


def streams(task: Task, ctx: Any) -> str:
    with TemporaryDirectory() as folder:
        ctx.download(f"input/{task.fields['name']}", f"{folder}/file")
        ctx.upload(f"copies/{task.fields['name']}", f"{folder}/file", "text/plain")
    ctx.write(f"results/{task.task_id}.json", b'{"size": 5}', "application/json")
    return "done"


def grouped() -> Registry:
    made = Registry()

    @made.task("sizes", group=10)
    def sizes(tasks: list[Task], ctxs: list[Any]) -> list[Any]:
        for task, ctx in zip(tasks, ctxs, strict=True):
            if task.fields["name"]:
                ctx.write(f"sizes/{task.fields['name']}", str(len(tasks)).encode())
        return [len(tasks) if task.fields["name"] else ValueError("no name") for task in tasks]

    return made


def rehearsal(handler: Function = copies) -> Rehearsal:
    return Rehearsal(handler, {"name": "n"}, objects=INPUT, registry=Registry())


# --- runs and groups


def test_a_run_shows_what_it_wrote() -> None:
    run = run_handler(copies, {"name": "n"}, objects=INPUT, registry=Registry())
    assert (run.result, run.text("copies/n"), run.json(f"results/{ID}.json")) == ("done", "hello", {"size": 5})
    with pytest.raises(AssertionError, match="exactly one object; it wrote 'copies/n', 'results/"):
        run.data()
    with pytest.raises(AssertionError, match="did not write 'input/n'"):
        run.data("input/n")


def test_a_run_with_one_output_needs_no_name() -> None:
    run = run_handler("sizes", {"name": "a"}, registry=grouped())
    assert (run.result, run.text()) == (1, "1")


def test_a_group_gives_each_task_its_run_or_its_error() -> None:
    store = MemoryObjectStore()
    first, failed, last = run_group("sizes", [{"name": "a"}, {"name": ""}, {"name": "b"}], store=store, registry=grouped())
    assert isinstance(failed, ValueError)
    assert not isinstance(first, BaseException)
    assert not isinstance(last, BaseException)
    assert (first.result, first.text(), last.task.task_id) == (3, "3", "task-3")
    assert store.names() == ("sizes/a", "sizes/b")


def test_one_of_a_group_that_failed_raises_when_it_runs_alone() -> None:
    with pytest.raises(ValueError, match="no name"):
        run_handler("sizes", {"name": ""}, registry=grouped())


@pytest.mark.parametrize("results", [[1], None, "ab"])
def test_a_group_with_results_that_do_not_fit_is_refused(results: Any) -> None:
    with pytest.raises(WrongResults, match="for each of its 2 tasks"):
        run_group(lambda _tasks, _ctxs: results, [{}, {}], registry=Registry())


def test_an_isolated_handler_runs_here_with_its_payload_checked() -> None:
    import pydantic

    class Payload(pydantic.BaseModel):
        width: int

    made = Registry()

    @made.task("scale", isolation="process", memory_mb=128, timeout_s=5, payload=Payload)
    def scale(task: Task, ctx: Any) -> int:
        return int(ctx.payload.width) + int(ctx.remaining_s())

    assert run_handler(scale, {"width": 2}, registry=made).result == 7
    with pytest.raises(MessageRefused, match="width"):
        run_handler("scale", {"width": "wide"}, registry=made)


# --- step by step


def test_after_a_crash_the_next_run_finishes_and_nothing_is_written_twice() -> None:
    task = rehearsal()
    task.crash(after="write")
    assert list(task.outputs) == ["copies/n"]
    task.run()
    assert task.outputs == {"copies/n": b"hello", f"results/{ID}.json": b'{"size": 5}'}
    assert set(task.written.values()) == {1}


def test_a_crash_before_a_write_leaves_nothing_of_it() -> None:
    task = rehearsal()
    task.crash(before="write")
    assert task.outputs == {}
    task.crash(before="write 2")
    assert list(task.outputs) == ["copies/n"]


def test_a_crash_after_the_handler_makes_the_next_run_find_everything() -> None:
    task = rehearsal()
    task.crash(after="handler")
    run = task.run()
    assert [one.created for one in run.outputs] == [False, False]


def test_what_a_dying_handler_still_tries_has_no_effect() -> None:
    def tidies(task: Task, ctx: Any) -> None:
        try:
            ctx.write("a", b"1")
        finally:
            ctx.write("b", b"2")

    task = rehearsal(tidies)
    task.crash(after="write")
    assert list(task.outputs) == ["a"]


def test_a_dead_handler_does_not_go_on() -> None:
    went_on: list[str] = []

    def tells(task: Task, ctx: Any) -> None:
        ctx.write("a", b"1")
        went_on.append(task.task_id)

    rehearsal(tells).crash(after="write")
    assert went_on == []


@pytest.mark.parametrize("after", ["write 3", "request 9", "delete"])
def test_a_crash_that_never_comes_fails_the_test(after: str) -> None:
    with pytest.raises(AssertionError, match=r"never came to .*; its requests were: read input/n, write copies/n"):
        rehearsal().crash(after=after)


@pytest.mark.parametrize("after", ["wirte", "write 0", "write x", ""])
def test_a_moment_that_does_not_exist_is_refused(after: str) -> None:
    with pytest.raises(ValueError, match=r"say either after or before|no such moment"):
        rehearsal().crash(after=after)


@pytest.mark.parametrize("handler", [copies, copies_async, streams])
@pytest.mark.parametrize("at", ["read", "write", "write 2"])
def test_two_workers_at_once_write_once(handler: Function, at: str) -> None:
    task = rehearsal(handler)
    task.run_while(task.run, at=at)
    assert task.written == {"copies/n": 1, f"results/{ID}.json": 1}


def test_a_newer_task_wins_whoever_comes_first() -> None:
    task = rehearsal()
    newer = task.newer()
    with pytest.raises(Superseded, match=r"belongs to the newer task .*2$"):
        task.run_while(newer.run)
    assert task.store.read_with_info("copies/n")[1].metadata["task_id"].endswith("2")
    other = rehearsal()
    other.run()
    other.newer("0").run()  # by its time, not its id
    assert other.written["copies/n"] == 2


def test_scripted_faults_meet_a_rehearsal() -> None:
    task = rehearsal()
    task.store.fail_next("write", DependencyUnavailable("down"))
    with pytest.raises(DependencyUnavailable):
        task.run()
    task.run()
    assert task.store.unmet() == []


# --- all at once


@pytest.mark.parametrize("handler", [copies, copies_async, streams])
def test_a_good_handler_passes_every_trial(handler: Function) -> None:
    tried = rehearsal(handler).check()
    assert len(tried) == 1 + 5 * 3
    assert "the process died after request 2 (write copies/n)" in tried


def test_a_grouped_handler_is_checked_as_a_group_of_one() -> None:
    assert Rehearsal("sizes", {"name": "a"}, registry=grouped()).check()


def counts(task: Task, ctx: Any) -> None:
    count = int(ctx.read("count")) if ctx.exists("count") else 0
    ctx.store.write("count", str(count + 1).encode())


def swallows(task: Task, ctx: Any) -> None:
    with suppress(Exception):
        ctx.write("out", b"1")


def marks_first(task: Task, ctx: Any) -> None:
    if not ctx.exists("marker"):
        ctx.write("marker", b"")
        ctx.write("out", b"1")


def gives_up(task: Task, ctx: Any) -> None:
    try:
        ctx.write("out", b"1")
    except DependencyUnavailable as error:
        raise Permanent("no bucket") from error


def writes_past_the_context(task: Task, ctx: Any) -> None:
    ctx.store.write("out", task.task_id.encode())


def leaves_traces(task: Task, ctx: Any) -> None:
    ctx.write(f"out-{ctx.now()}", b"1")
    ctx.sleep(1)


BAD = {
    counts: "delivered again: count holds b'2' instead of b'1'",
    swallows: r"the bucket failed at request 1 \(write out\): out is missing",
    marks_first: r"the process died after request 2 \(write marker\): out is missing",
    gives_up: r"the bucket failed at request 1 \(write out\): the handler raised Permanent \(no bucket\)",
    writes_past_the_context: r"a newer task ran at request 1 \(write out\): out is not the newer task's",
    leaves_traces: r"delivered again: out-\S+ should not be there",
}


@pytest.mark.parametrize("handler", BAD, ids=lambda one: one.__name__)
def test_each_bad_handler_is_caught(handler: Function) -> None:
    with pytest.raises(AssertionError, match=BAD[handler]):
        rehearsal(handler).check()


def test_what_counts_as_alike_is_the_authors_to_say() -> None:
    task = rehearsal(counts)
    with pytest.raises(AssertionError) as told:
        task.check(alike=lambda _name, one, other: len(one) == len(other))
    assert "holds" not in str(told.value)


def test_a_handler_that_fails_undisturbed_fails_the_check() -> None:
    def fails(task: Task, ctx: Any) -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        rehearsal(fails).check()
