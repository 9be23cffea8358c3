"""A topic for tests of the front door: holds what it gets until told what becomes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from batch.model.delivery import Outgoing


class FakeTopic:
    """Confirms at once, unless `held`: then each request waits for `release` or `fail`. `requests` keeps every request's messages."""

    def __init__(self, name: str = "default", *, held: bool = False) -> None:
        self.name = name
        self.requests: list[list[Outgoing]] = []
        self.error: Exception | None = None
        self._held = held
        self._answers: list[asyncio.Future[None]] = []
        self._came = asyncio.Event()

    @property
    def messages(self) -> list[Outgoing]:
        return [message for request in self.requests for message in request]

    async def publish(self, messages: Sequence[Outgoing]) -> list[str]:
        first = len(self.messages)
        self.requests.append(list(messages))
        self._came.set()
        if self._held:
            answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._answers.append(answer)
            await answer
        if self.error is not None:
            raise self.error
        return [f"m{first + number}" for number in range(len(messages))]

    async def arrived(self, request_count: int) -> None:
        """Wait until so many requests have come."""
        while len(self.requests) < request_count:
            self._came.clear()
            await asyncio.wait_for(self._came.wait(), 5)

    def release(self) -> None:
        """Confirm the oldest request that waits."""
        self._answers.pop(0).set_result(None)

    def fail(self, error: Exception) -> None:
        self._answers.pop(0).set_exception(error)

    def open(self) -> None:
        """Confirm everything, now and later."""
        self._held = False
        while self._answers:
            self.release()
