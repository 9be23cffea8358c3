"""What the model tells whoever keeps its state: each change that a caller is going to be told of, just before he is told.

The rule: a witness never calls back into the model, because it is called with the locks of the model held.
"""

from __future__ import annotations

from collections.abc import Sequence

from local_cloud.pubsub.delivery import Delivery
from local_cloud.pubsub.message import Message
from local_cloud.pubsub.publication import Publication


class Fate:
    """The fate of messages in one subscription. This one keeps nothing."""

    def acknowledged(self, messages: Sequence[Message]) -> None:
        """They left for good: acknowledged, purged by a seek, forwarded as dead letters, or not matched by the filter."""

    def failed(self, deliveries: Sequence[Delivery]) -> None:
        """Their attempts were counted; `failure_count` is the new one."""

    def returned(self, messages: Sequence[Message]) -> None:
        """A seek made messages undelivered again that had been acknowledged, or that it never held."""

    def retained(self, messages: Sequence[Message]) -> None:
        """After a seek it retains these acknowledged messages, and no others."""


class Witness:
    """The state of all topics and subscriptions. This one keeps nothing. Names are full ones; settings are those of the model."""

    def topic_set(self, name: str, settings: bytes) -> None:
        """Created, or with new settings."""

    def let_go(self, now_s: float) -> None:
        """What is too old at this moment stays gone: settings are about to change, and the retention may become longer."""

    def topic_deleted(self, name: str) -> None: ...

    def subscription_set(self, name: str, topic: str, settings: bytes) -> None:
        """Created, with new settings, or detached from its topic."""

    def subscription_deleted(self, name: str) -> None: ...

    def snapshot_set(self, name: str, topic: str, subscription: str, settings: bytes) -> None:
        """Created with what the subscription holds now, or, if it is there already, with new settings."""

    def snapshot_deleted(self, name: str) -> None: ...

    def published(self, topic: str, publication: Publication) -> None:
        """About to be given to every subscription of the topic."""

    def fate(self, subscription: str) -> Fate:
        del subscription
        return Fate()
