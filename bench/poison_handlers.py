"""What the tasks of `bench.poison` do: wait for 2 ms, raise, or kill the worker that runs them."""

from __future__ import annotations

import os
import signal

from batch.handling.context import Context
from batch.handling.registry import Backoff, task
from batch.model.message import Task

RETRIES = 2


@task("good")
def good(_task: Task, ctx: Context) -> None:
    ctx.sleep(0.002)


@task("raises", retries=RETRIES, backoff=Backoff(first_s=1))
def raises(task: Task, _ctx: Context) -> None:
    """An error of its own kind: what is wrong with tasks is not the same for all. With few kinds enough in a row could fail alike on
    a busy machine, and their type was slowed."""
    number = int(task.fields["number"])
    raise type(f"Wrong{''.join(chr(ord('A') + int(digit)) for digit in str(number))}", (ValueError,), {})(f"row {number} is bad")


@task("kills", retries=RETRIES, backoff=Backoff(first_s=1))
def kills(_task: Task, _ctx: Context) -> None:
    os.kill(os.getpid(), signal.SIGKILL)
