"""Handlers that do not end in time, in a module that a child can import."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from batch.handling.registry import Registry, default_registry, task

LIMIT_S = 0.2
NEVER = threading.Event()


@task("hanging-isolated", isolation="process", timeout_s=LIMIT_S, retries=0)
def isolated(task: Any, ctx: Any) -> Any:
    NEVER.wait(60)


def registry() -> Registry:
    """One for each kind of handler, all with the same limit."""
    made = Registry()
    made._handlers["isolated"] = made._handlers["hanging-isolated"] = default_registry["hanging-isolated"]

    @made.task("plain", timeout_s=LIMIT_S, retries=0)
    def plain(task: Any, ctx: Any) -> Any:
        NEVER.wait(60)

    @made.task("async", timeout_s=LIMIT_S, retries=0)
    async def later(task: Any, ctx: Any) -> Any:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "nobody may know that it was cancelled"

    @made.task("group", timeout_s=LIMIT_S, retries=0, group=2, group_wait_s=0)
    def grouped(tasks: Any, ctxs: Any) -> Any:
        NEVER.wait(60)

    return made
