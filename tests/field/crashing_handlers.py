"""Handlers that end their process as a faulty C library does."""

from __future__ import annotations

import ctypes
import os
import sys

from batch.handling.context import AsyncContext, Context
from batch.handling.registry import task
from batch.model.message import Task


@task("crashes")
def touches_what_is_not_its_own(task: Task, ctx: Context) -> None:
    ctypes.string_at(0)


@task("closes-and-crashes")
def closes_its_streams_first(task: Task, ctx: Context) -> None:
    sys.stderr = sys.stdout
    ctypes.string_at(0)


@task("gives-up")
def gives_up(task: Task, ctx: Context) -> None:
    os.abort()


@task("async-crashes")
async def touches_it_on_the_loop(task: Task, ctx: AsyncContext) -> None:
    ctypes.string_at(0)


@task("group-crashes", group=2, group_wait_s=0.01)
def touches_it_for_all(tasks: list[Task], ctxs: list[Context]) -> None:
    ctypes.string_at(0)


@task("isolated-crashes", isolation="process", retries=0)
def touches_it_alone(task: Task, ctx: Context) -> None:
    ctypes.string_at(0)
