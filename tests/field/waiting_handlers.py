"""Handlers that a process of its own can import: one of each kind that snoozes as often as its task asks for, and one that never ends."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from batch.handling.context import AsyncContext, Context
from batch.handling.registry import task
from batch.model.errors import Snooze
from batch.model.message import Task

SNOOZERS = {kind: f"field-snoozes-{kind}" for kind in ("plain", "async", "grouped", "isolated")}
_runs: Counter[str] = Counter()


def _wait(task: Task) -> None:
    _runs[task.task_id] += 1
    if _runs[task.task_id] <= task.fields["snoozes"]:
        raise Snooze(float(task.fields.get("after_s", 0)))
    _runs[task.task_id] = 0


@task(SNOOZERS["plain"])
def snoozes(task: Task, ctx: Context) -> None:
    _wait(task)
    ctx.write(f"out/{task.task_id}", b"done")


@task(SNOOZERS["async"])
async def snoozes_async(task: Task, ctx: AsyncContext) -> None:
    _wait(task)
    await ctx.write(f"out/{task.task_id}", b"done")


@task(SNOOZERS["grouped"], group=4, group_wait_s=0.01)
def snoozes_grouped(tasks: Sequence[Task], ctxs: Sequence[Context]) -> list[Any]:
    return [_answered(snoozes, task, ctx) for task, ctx in zip(tasks, ctxs, strict=True)]


@task(SNOOZERS["isolated"], isolation="process")
def snoozes_isolated(task: Task, ctx: Context) -> None:
    snoozes(task, ctx)


@task("field-hangs", isolation="process", retries=1)
def hangs(task: Task, ctx: Context) -> None:
    threading.Event().wait(600)


def _answered(function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except Snooze as error:
        return error
