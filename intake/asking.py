"""Threads in which the bucket is asked for clients that submit. The event loop's own, a handful, are left to work that waits for nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from intake.bodies import RETRY_AFTER_S
from intake.problems import RequestRefused

THREADS = 32
WAIT_S = 10.0
"""How long a request waits for a thread: where the bucket stands still each is taken for as long as it is tried again."""
T = TypeVar("T")


class Asking:
    """Belongs to one event loop."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(THREADS)
        self._threads = ThreadPoolExecutor(THREADS, "bucket")

    async def asked(self, question: Callable[[], T]) -> T:
        """Its answer. Raises RequestRefused (503) when no thread gets free in time, and what the question raises."""
        try:
            async with asyncio.timeout(WAIT_S):
                await self._free.acquire()
        except TimeoutError as error:
            text = f"{THREADS} requests wait for the bucket, which does not answer; nothing of this one is published"
            raise RequestRefused(503, text, retry_after_s=RETRY_AFTER_S) from error
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, question)
        finally:
            self._free.release()
