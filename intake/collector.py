"""The collector: many requests, few publishes. Publishes at once, and gathers what arrives while requests are in flight.

A caller gets its message id only after the broker confirmed that very message; nothing waits in here without a bound.
"""

from __future__ import annotations

import asyncio
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from batch.events import log
from batch.model.clock import Clock, SystemClock
from batch.model.delivery import MAX_PUBLISH_BYTES, MAX_PUBLISH_MESSAGES, Outgoing
from batch.model.errors import DependencyError, FanoutError

MAX_WAITING_BYTES = 64_000_000
OVERHEAD_BYTES = 600
"""What attributes and framing add to a message's data, at most."""

Accepted = Callable[[int, float], object]
"""Called with how many messages the broker confirmed together, and when (Unix seconds) their publishing began. Returns at once."""


class AsyncTopic(Protocol):
    """One topic, for an event loop. `publish` returns when the service has all of it; raises DependencyError when it
    cannot say so, FanoutError when the service refused them."""

    name: str

    async def publish(self, messages: Sequence[Outgoing]) -> list[str]:
        """Message ids in the order of `messages`: at most 1,000 of them, and 9.5 MB."""


class CollectorFull(FanoutError):
    """As many tasks wait for the broker as may wait, or the service is about to end: the client is to try again."""


class Collector:
    """One topic's messages on their way out. Belongs to one event loop."""

    def __init__(
        self,
        topic: AsyncTopic,
        *,
        max_waiting: int = 10_000,
        max_in_flight: int = 4,
        accepted: Accepted | None = None,
        clock: Clock | None = None,
    ) -> None:
        """`accepted` is called with what the broker has confirmed, and when by `clock`."""
        self.topic = topic
        self._accepted, self._clock = accepted, clock or SystemClock()
        self._max_waiting, self._max_in_flight = max_waiting, max_in_flight
        self._waiting: deque[tuple[Outgoing, asyncio.Future[str]]] = deque()
        self._waiting_bytes = 0
        self._in_flight: set[asyncio.Task[None]] = set()
        self._pump_due = False
        self._closing = False

    @property
    def waiting_count(self) -> int:
        return len(self._waiting)

    async def publish(self, message: Outgoing) -> str:
        """The message id that the broker gave. Raises CollectorFull, DependencyError, FanoutError."""
        if self._closing:
            raise CollectorFull("the service is about to end; send the request again")
        if len(self._waiting) >= self._max_waiting or self._waiting_bytes + len(message.data) > MAX_WAITING_BYTES:
            raise CollectorFull(f"{len(self._waiting)} tasks already wait for topic {self.topic.name}; try again later")
        loop = asyncio.get_running_loop()
        confirmed: asyncio.Future[str] = loop.create_future()
        self._waiting.append((message, confirmed))
        self._waiting_bytes += len(message.data)
        # One turn of the loop later: requests that were read in the same turn travel together.
        if not self._pump_due:
            self._pump_due = True
            loop.call_soon(self._pump)
        return await confirmed

    async def close(self) -> None:
        """Take nothing more; return when everything that was accepted is answered."""
        self._closing = True
        self._pump()
        while self._in_flight:
            await asyncio.wait(set(self._in_flight))

    def _pump(self) -> None:
        self._pump_due = False
        while self._waiting and len(self._in_flight) < self._max_in_flight:
            sending = asyncio.get_running_loop().create_task(self._send(self._batch()))
            self._in_flight.add(sending)
            sending.add_done_callback(self._sent)

    def _sent(self, sending: asyncio.Task[None]) -> None:
        self._in_flight.discard(sending)
        self._pump()

    def _batch(self) -> list[tuple[Outgoing, asyncio.Future[str]]]:
        batch: list[tuple[Outgoing, asyncio.Future[str]]] = []
        size = 0
        while self._waiting and len(batch) < MAX_PUBLISH_MESSAGES:
            size += len(self._waiting[0][0].data) + OVERHEAD_BYTES
            if batch and size > MAX_PUBLISH_BYTES:
                break
            one = self._waiting.popleft()
            self._waiting_bytes -= len(one[0].data)
            batch.append(one)
        return batch

    async def _send(self, batch: list[tuple[Outgoing, asyncio.Future[str]]]) -> None:
        began_at = self._clock.now()
        try:
            message_ids = await self.topic.publish([message for message, _ in batch])
            if len(message_ids) != len(batch):
                raise DependencyError(f"topic {self.topic.name} confirmed {len(message_ids)} of {len(batch)} messages without saying which")
        except FanoutError as error:
            _fail(batch, error)
        except Exception as error:  # noqa: BLE001 - a client that waits must hear of a fault of ours too, and would else wait for ever
            text = f"publishing to topic {self.topic.name} met a fault in Fanout itself: {type(error).__name__}: {error}"
            log("publish_crashed", text, exception=traceback.format_exc())
            _fail(batch, error)
        else:
            for (_, confirmed), message_id in zip(batch, message_ids, strict=True):
                if not confirmed.done():
                    confirmed.set_result(message_id)
            if self._accepted is not None:
                self._accepted(len(batch), began_at)


def _fail(batch: list[tuple[Outgoing, asyncio.Future[str]]], error: Exception) -> None:
    for _, confirmed in batch:
        if not confirmed.done():
            confirmed.set_exception(error)
