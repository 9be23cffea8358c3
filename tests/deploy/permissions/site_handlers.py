"""What the workers of the scenario run: each way in which a task ends."""

from __future__ import annotations

from batch.handling.context import Context
from batch.handling.registry import task
from batch.model.errors import Permanent, Snooze
from batch.model.message import Task


@task("work")
def work(task: Task, ctx: Context) -> None:
    ctx.write(f"out/{task.task_id}", b"done")


@task("broken")
def broken(task: Task, ctx: Context) -> None:
    raise Permanent("it can never succeed")


@task("failing", retries=0)
def failing(task: Task, ctx: Context) -> None:
    raise KeyError("lines")


@task("later")
def later(task: Task, ctx: Context) -> None:
    raise Snooze(3600)
