"""Handlers of every kind that do the same: call their bucket as the task says. A child process can import them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from batch.handling.context import AsyncContext, Context
from batch.handling.registry import Backoff, default_registry, task
from batch.model.message import Task

KINDS = ("bucket-thread", "bucket-async", "bucket-group", "bucket-async-group", "bucket-isolated")

CALLS: dict[str, Callable[[Any], Any]] = {
    "dict": lambda ctx: ctx.write("out/dict", {"a": 1}),
    "list": lambda ctx: ctx.write("out/list", [1, 2]),
    "text": lambda ctx: ctx.write("out/text", "text"),
    "none": lambda ctx: ctx.write("out/none", None),
    "number": lambda ctx: ctx.write("out/number", 5),
    "no name": lambda ctx: ctx.write("", b"x"),
    "name of bytes": lambda ctx: ctx.write(b"name", b"x"),
    "half a character": lambda ctx: ctx.write("out/half \ud83d", b"x"),
    "two lines": lambda ctx: ctx.write("out/a\nb", b"x"),
    "long": lambda ctx: ctx.write("x" * 1025, b"x"),
    "dots": lambda ctx: ctx.write("..", b"x"),
    "type": lambda ctx: ctx.write("out/type", b"x", None),
    "type of other letters": lambda ctx: ctx.write("out/type", b"x", "text/plain; by=\u65e5\u672c"),
    "type of two lines": lambda ctx: ctx.write("out/type", b"x", "text/plain\r\nx: y"),
    "read nothing": lambda ctx: ctx.read(""),
    "read none": lambda ctx: ctx.read(None),
    "read a number": lambda ctx: ctx.read(5),
    "read half": lambda ctx: ctx.read("half \ud83d"),
    "exists nothing": lambda ctx: ctx.exists(""),
    "exists none": lambda ctx: ctx.exists(None),
    "download nothing": lambda ctx: ctx.download("", "file"),
    "download to bytes": lambda ctx: ctx.download("in", b"file"),
    "download to a zero": lambda ctx: ctx.download("in", "a\0b"),
    "at most a text": lambda ctx: ctx.download("in", "file", "1 MB"),
    "at most less than nothing": lambda ctx: ctx.download("in", "file", -1),
    "upload to none": lambda ctx: ctx.upload(None, "file"),
    "upload nothing": lambda ctx: ctx.upload("out/file", ""),
    "upload none": lambda ctx: ctx.upload("out/file", None),
    "upload what is missing": lambda ctx: ctx.upload("out/file", "/no/such/file"),
    "upload a folder": lambda ctx: ctx.upload("out/file", "/"),
    "upload as none": lambda ctx: ctx.upload("out/file", "file", None),
    "bytes": lambda ctx: ctx.write("out/bytes", b"same"),
    "bytearray": lambda ctx: ctx.write("out/bytearray", bytearray(b"same")),
    "memoryview": lambda ctx: ctx.write("out/memoryview", memoryview(b"xsame")[1:]),
    "read in": lambda ctx: ctx.read("in"),
    "download": lambda ctx: ctx.download("in", ctx.task.fields["path"], max_bytes=4),
    "upload": lambda ctx: ctx.upload("out/upload", ctx.task.fields["path"], "text/csv"),
    "fail": lambda ctx: ctx.store.nothing,
}
"""By the field `call` of a task."""


def known(*task_types: str) -> dict[str, Any]:
    """Their handlers, by task type."""
    return {task_type: default_registry[task_type] for task_type in task_types}


def result_of(done: Any) -> Any:
    return len(done) if isinstance(done, bytes) else getattr(done, "name", done)


@task("bucket-thread", retries=0)
@task("bucket-isolated", retries=0, isolation="process")
@task("bucket-patient", retries=3, backoff=Backoff(0.0, 1.0, 0.0))
def bucket(task: Task, ctx: Context) -> Any:
    return result_of(CALLS[str(task.fields["call"])](ctx))


@task("bucket-async", retries=0)
async def bucket_async(task: Task, ctx: AsyncContext) -> Any:
    done = CALLS[str(task.fields["call"])](ctx)
    return result_of(await done if inspect.isawaitable(done) else done)


@task("bucket-group", retries=0, group=10)
def bucket_group(tasks: Sequence[Task], ctxs: Sequence[Context]) -> list[Any]:
    results: list[Any] = []
    for one, ctx in zip(tasks, ctxs, strict=True):
        try:
            results.append(bucket(one, ctx))
        except Exception as error:  # noqa: BLE001 - a group tells of each task
            results.append(error)
    return results


@task("bucket-async-group", retries=0, group=10)
async def bucket_async_group(tasks: Sequence[Task], ctxs: Sequence[AsyncContext]) -> list[Any]:
    results: list[Any] = []
    for one, ctx in zip(tasks, ctxs, strict=True):
        try:
            results.append(await bucket_async(one, ctx))
        except Exception as error:  # noqa: BLE001 - a group tells of each task
            results.append(error)
    return results
