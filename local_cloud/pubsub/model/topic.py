"""A topic: its settings and the subscriptions that get a copy of what is published.

A message is stamped once and shared by all subscriptions. The topic itself has only those that its retention keeps for a seek.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable

from google.pubsub_v1.types import pubsub

from local_cloud.pubsub.messages.message import Message
from local_cloud.pubsub.messages.observer import Observer
from local_cloud.pubsub.messages.publication import Publication
from local_cloud.pubsub.model.snapshot import Snapshot
from local_cloud.pubsub.model.subscription import Subscription

_TOPIC = pubsub.Topic.pb()


class Topic:
    """Safe to use from any thread. `settings` is a serialized google.pubsub.v1.Topic."""

    def __init__(self, name: str, settings: bytes) -> None:
        self.name = name
        self.settings = settings
        self._lock = threading.Lock()
        self._subscriptions: dict[str, Subscription] = {}
        self._retention_s = _retention_s(settings)
        self._retained: deque[Message] = deque()
        self._snapshots: dict[str, Snapshot] = {}

    def attach(self, subscription: Subscription) -> None:
        with self._lock:
            self._subscriptions[subscription.name] = subscription
            subscription.retain_at_least(self._retention_s, is_new=True)

    def detach(self, name: str) -> None:
        with self._lock:
            subscription = self._subscriptions.pop(name, None)
            if subscription is not None:
                subscription.retain_at_least(0.0)

    def configure(self, settings: bytes, now_s: float) -> None:
        """New settings; messages that are too old before the change never come back, even if the retention becomes longer."""
        with self._lock:
            self._drop_outdated(now_s)
            self.settings = settings
            self._retention_s = _retention_s(settings)
            if not self._retention_s:
                self._retained.clear()
            for subscription in self._subscriptions.values():
                subscription.retain_at_least(self._retention_s)

    def retained(self, now_s: float) -> list[Message]:
        """The messages that it retains for a seek, in the order of publishing."""
        with self._lock:
            self._drop_outdated(now_s)
            return list(self._retained)

    def restore(self, retained: list[Message], snapshots: Iterable[Snapshot]) -> None:
        """Add what an earlier process retained."""
        with self._lock:
            self._retained.extend(retained)
            self._snapshots.update((snapshot.name, snapshot) for snapshot in snapshots)

    def take_snapshot(self, snapshot: Snapshot, subscription: Subscription, observer: Observer) -> None:
        """Fill the snapshot with what the subscription has not acknowledged now, and with all that is published from now on."""
        with self._lock:
            observer.snapshot_set(snapshot.name, self.name, subscription.name, snapshot.shown().SerializeToString())
            snapshot.offer(subscription.unacknowledged())
            self._snapshots[snapshot.name] = snapshot

    def drop_snapshot(self, name: str) -> None:
        with self._lock:
            self._snapshots.pop(name, None)

    def snapshots(self) -> list[Snapshot]:
        with self._lock:
            return list(self._snapshots.values())

    def subscriptions(self) -> list[Subscription]:
        with self._lock:
            return list(self._subscriptions.values())

    def publish(self, stamp: Callable[[], Publication], observer: Observer) -> Publication:
        """Give the publication that `stamp` makes to every subscription; the lock keeps the order of ids for all of them."""
        with self._lock:
            publication = stamp()
            observer.published(self.name, publication)
            for subscription in self._subscriptions.values():
                subscription.offer(publication)
            for snapshot in self._snapshots.values():
                snapshot.offer(publication.messages())
            if self._retention_s:
                self._retained.extend(publication.messages())
                self._drop_outdated(publication.published_s)
        return publication

    def _drop_outdated(self, now_s: float) -> None:
        while self._retained and self._retained[0].published_s < now_s - self._retention_s:
            self._retained.popleft()


def _retention_s(settings: bytes) -> float:
    return float(_TOPIC.FromString(settings).message_retention_duration.ToSeconds())
