"""What the model reports to the store: each change, just before it is confirmed to a client.

The rule: an observer never calls the model, because the model calls it under its locks.
"""

from __future__ import annotations

from collections.abc import Sequence

from local_cloud.pubsub.messages.delivery import Delivery
from local_cloud.pubsub.messages.message import Message
from local_cloud.pubsub.messages.publication import Publication


class SubscriptionObserver:
    """Of the messages of one subscription. This one does nothing."""

    def acknowledged(self, messages: Sequence[Message]) -> None:
        """They left for good: acknowledged, purged by a seek, forwarded as dead letters, or not matched by the filter."""

    def failed(self, deliveries: Sequence[Delivery]) -> None:
        """Their attempts were counted; `failure_count` is the new number."""

    def returned(self, messages: Sequence[Message]) -> None:
        """A seek made messages undelivered again that had been acknowledged, or that the subscription never had."""

    def retained(self, messages: Sequence[Message]) -> None:
        """After a seek the subscription retains these acknowledged messages, and no others."""


class Observer:
    """Of all topics and subscriptions. This one does nothing. Names are full ones; settings are those of the model."""

    def topic_set(self, name: str, settings: bytes) -> None:
        """Created, or with new settings."""

    def outdated_dropped(self, now_s: float) -> None:
        """Messages that are too old now never come back: settings are about to change, and the retention may become longer."""

    def topic_deleted(self, name: str) -> None: ...

    def subscription_set(self, name: str, topic: str, settings: bytes) -> None:
        """Created, with new settings, or detached from its topic."""

    def subscription_deleted(self, name: str) -> None: ...

    def snapshot_set(self, name: str, topic: str, subscription: str, settings: bytes) -> None:
        """Created with what the subscription has not acknowledged now, or, if it is there already, with new settings."""

    def snapshot_deleted(self, name: str) -> None: ...

    def published(self, topic: str, publication: Publication) -> None:
        """About to be given to every subscription of the topic."""

    def of_subscription(self, subscription: str) -> SubscriptionObserver:
        del subscription
        return SubscriptionObserver()
