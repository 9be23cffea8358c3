"""A call to a slow service, on the event loop."""

from __future__ import annotations

import asyncio

from batch.handling.registry import task
from bench.worker.handlers import WAIT_S


@task("async_wait")
async def async_wait(_task: object, _ctx: object) -> None:
    """WAIT_S seconds."""
    await asyncio.sleep(WAIT_S)
