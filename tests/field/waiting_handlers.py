"""Isolated handlers that a child can import: one snoozes so often as its task asks for, one never ends."""

from __future__ import annotations

import threading
from collections import Counter

from batch.handling.context import Context
from batch.handling.registry import task
from batch.model.errors import Snooze
from batch.model.message import Task

_RUNS: Counter[str] = Counter()


@task("field-snoozes", isolation="process")
def snoozes(task: Task, ctx: Context) -> None:
    _RUNS[task.task_id] += 1
    if _RUNS[task.task_id] <= task.fields["snoozes"]:
        raise Snooze(float(task.fields.get("after_s", 0)))
    ctx.write(str(task.fields["name"]), b"done")


@task("field-hangs", isolation="process", retries=1)
def hangs(task: Task, ctx: Context) -> None:
    threading.Event().wait(600)
