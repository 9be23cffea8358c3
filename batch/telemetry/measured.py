"""Subscriptions and topics that are measured: each call is one value, never each message."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from batch.model.clock import Clock
from batch.model.delivery import Delivery, Outgoing
from batch.services.ports import Subscription, SubscriptionInfo, Topic
from batch.telemetry.measures import Measures

T = TypeVar("T")


class MeasuredSubscription:
    """Implements `batch.services.ports.Subscription`."""

    def __init__(self, subscription: Subscription, measures: Measures, clock: Clock) -> None:
        self.name = subscription.name
        self._subscription, self._measures, self._clock = subscription, measures, clock

    @property
    def info(self) -> SubscriptionInfo:
        return self._subscription.info

    def pull(self, max_messages: int, timeout_s: float) -> list[Delivery]:
        deliveries, seconds, error = _timed(self._clock, lambda: self._subscription.pull(max_messages, timeout_s))
        self._measures.received(len(deliveries or ()), seconds, error)
        return _result(deliveries, error)

    def ack(self, ack_ids: Sequence[str]) -> list[str]:
        self._measures.add_up()
        return self._settled("ack", lambda: self._subscription.ack(ack_ids))

    def extend(self, ack_ids: Sequence[str], deadline_s: float) -> list[str]:
        return self._settled("extend", lambda: self._subscription.extend(ack_ids, deadline_s))

    def nack(self, ack_ids: Sequence[str], after_s: float = 0.0) -> list[str]:
        self._measures.add_up()
        return self._settled("nack", lambda: self._subscription.nack(ack_ids, after_s))

    def _settled(self, name: str, call: Callable[[], list[str]]) -> list[str]:
        refused, seconds, error = _timed(self._clock, call)
        self._measures.settled(name, seconds, error)
        return _result(refused, error)


class MeasuredTopic:
    """Implements `batch.services.ports.Topic`."""

    def __init__(self, topic: Topic, measures: Measures, clock: Clock) -> None:
        self.name = topic.name
        self._topic, self._measures, self._clock = topic, measures, clock

    def publish(self, messages: Sequence[Outgoing]) -> list[str]:
        ids, seconds, error = _timed(self._clock, lambda: self._topic.publish(messages))
        self._measures.sent(self.name, len(messages), seconds, error)
        return _result(ids, error)


class AsyncTopic(Protocol):
    """A topic for an event loop."""

    name: str

    async def publish(self, messages: Sequence[Outgoing]) -> list[str]:
        """Message ids in the order of `messages`."""


class MeasuredAsyncTopic:
    """As MeasuredTopic, for an event loop."""

    def __init__(self, topic: AsyncTopic, measures: Measures, clock: Clock) -> None:
        self.name = topic.name
        self._topic, self._measures, self._clock = topic, measures, clock

    async def publish(self, messages: Sequence[Outgoing]) -> list[str]:
        began_s, failure = self._clock.monotonic(), None
        try:
            return await self._topic.publish(messages)
        except BaseException as error:
            failure = error
            raise
        finally:
            self._measures.sent(self.name, len(messages), self._clock.monotonic() - began_s, failure)


def _timed(clock: Clock, call: Callable[[], T]) -> tuple[T | None, float, BaseException | None]:
    """What a call has returned, its seconds, and what it raised."""
    began_s = clock.monotonic()
    try:
        result = call()
    except BaseException as error:  # noqa: BLE001 - raised again by `_result`
        return None, clock.monotonic() - began_s, error
    return result, clock.monotonic() - began_s, None


def _result(result: T | None, error: BaseException | None) -> T:
    if error is not None:
        raise error
    assert result is not None, "a call returns a list or raises"
    return result
