"""The collector: many requests, few publishes. Publishes at once, and gathers what arrives while requests are in flight.

A caller gets its message id only after the broker confirmed that very message; nothing waits in here without a bound.
"""

from __future__ import annotations

import asyncio
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from batch.events import log
from batch.model.clock import Clock, SystemClock
from batch.model.delivery import MAX_PUBLISH_BYTES, MAX_PUBLISH_MESSAGES, Outgoing
from batch.model.errors import DependencyError, FanoutError
from batch.services.calls import batches

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
        self._together: set[asyncio.Task[list[str]]] = set()
        self._together_bound = asyncio.Semaphore(max_in_flight)
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

    async def publish_together(self, messages: Sequence[Outgoing]) -> list[str]:
        """Message ids of many messages of one client, once all are confirmed. They travel in requests of their own, `max_in_flight` of all
        such clients at a time, so that single tasks do not wait behind them. Raises as `publish`; some may be published then."""
        if self._closing:
            raise CollectorFull("the service is about to end; send the request again")
        sending = [asyncio.get_running_loop().create_task(self._bounded(batch)) for batch in _requests(messages)]
        self._together.update(sending)
        for one in sending:
            one.add_done_callback(self._together.discard)
        answers = await asyncio.gather(*sending, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return [message_id for answer in answers if isinstance(answer, list) for message_id in answer]

    async def close(self) -> None:
        """Take nothing more; return when everything that was accepted is answered."""
        self._closing = True
        self._pump()
        while self._in_flight or self._together:
            await asyncio.wait({*self._in_flight, *self._together})

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

    async def _bounded(self, messages: Sequence[Outgoing]) -> list[str]:
        async with self._together_bound:
            return await self._confirmed(messages)

    async def _confirmed(self, messages: Sequence[Outgoing]) -> list[str]:
        began_at = self._clock.now()
        message_ids = await self.topic.publish(messages)
        if len(message_ids) != len(messages):
            raise DependencyError(f"topic {self.topic.name} confirmed {len(message_ids)} of {len(messages)} messages without saying which")
        if self._accepted is not None:
            self._accepted(len(messages), began_at)
        return message_ids

    async def _send(self, batch: list[tuple[Outgoing, asyncio.Future[str]]]) -> None:
        try:
            message_ids = await self._confirmed([message for message, _ in batch])
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


def _requests(messages: Sequence[Outgoing]) -> Iterator[list[Outgoing]]:
    return batches(messages, lambda one: len(one.data) + OVERHEAD_BYTES, MAX_PUBLISH_MESSAGES, MAX_PUBLISH_BYTES)


def _fail(batch: list[tuple[Outgoing, asyncio.Future[str]]], error: Exception) -> None:
    for _, confirmed in batch:
        if not confirmed.done():
            confirmed.set_exception(error)
