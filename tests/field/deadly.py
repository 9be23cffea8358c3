"""Handlers that end their worker, for the tests that start real workers."""

from __future__ import annotations

import ctypes
import os
import signal
from typing import Any

from batch.handling.context import Context
from batch.handling.registry import task
from batch.model.message import Task


@task("fine")
def fine(task: Task, ctx: Context) -> None:
    """Ends at once."""


@task("deadly")
def deadly(task: Task, ctx: Context) -> Any:
    """Ends the worker once so many other tasks have an outcome that has been written."""
    while written(ctx) < int(task.fields["after"]):
        ctx.sleep(0.05)
    if task.fields["by"] == "SIGSEGV":
        return ctypes.string_at(0)
    os.kill(os.getpid(), signal.SIGKILL)
    return None


def written(ctx: Context) -> int:
    """Outcome lines in the bucket."""
    return sum(ctx.store.read(one.name).count(b"\n") for one in ctx.store.list("outcomes/"))
