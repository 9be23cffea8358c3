"""A topic: its settings and the subscriptions that get a copy of what is published.

A message is stamped once and shared by all subscriptions; the topic itself keeps none.
"""

from __future__ import annotations

import threading

from local_cloud.pubsub.message import Message
from local_cloud.pubsub.subscription import Subscription


class Topic:
    """Safe to use from any thread. `settings` is a serialized google.pubsub.v1.Topic."""

    def __init__(self, name: str, settings: bytes) -> None:
        self.name = name
        self.settings = settings
        self._lock = threading.Lock()
        self._subscriptions: dict[str, Subscription] = {}

    def attach(self, subscription: Subscription) -> None:
        with self._lock:
            self._subscriptions[subscription.name] = subscription

    def detach(self, name: str) -> None:
        with self._lock:
            self._subscriptions.pop(name, None)

    def subscriptions(self) -> list[Subscription]:
        with self._lock:
            return list(self._subscriptions.values())

    def fan_out(self, messages: list[Message]) -> None:
        """Give messages to every subscription, in the same order to all (hence the lock)."""
        with self._lock:
            for subscription in self._subscriptions.values():
                subscription.offer(messages)
