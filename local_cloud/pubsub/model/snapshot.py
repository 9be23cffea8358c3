"""A snapshot: what one subscription had not acknowledged at one moment, and everything that its topic got after that.

The rule: it has messages only, no leases and no attempts; a seek to it starts them anew.
https://cloud.google.com/pubsub/docs/replay-overview
"""

from __future__ import annotations

import threading
from typing import Any

from google.pubsub_v1.types import pubsub

from local_cloud.pubsub.messages.message import Message
from local_cloud.pubsub.messages.policy import DAY_S

LIFETIME_S = 7 * DAY_S
LEAST_LIFETIME_S = 3_600.0

_SNAPSHOT = pubsub.Snapshot.pb()


class Snapshot:
    """Safe to use from any thread. `topic` is the full name; `expires_s` are unix seconds."""

    def __init__(self, name: str, topic: str, expires_s: float, labels: dict[str, str]) -> None:
        self.name = name
        self.topic = topic
        self.expires_s = expires_s
        self.labels = labels
        self._lock = threading.Lock()
        self._messages: list[Message] = []

    @classmethod
    def restored(cls, name: str, topic: str, shown: bytes) -> Snapshot:
        """A snapshot without messages, from what `shown` returned once; its topic may have been deleted since."""
        raw = _SNAPSHOT.FromString(shown)
        return cls(name, topic, raw.expire_time.ToMilliseconds() / 1000, dict(raw.labels))

    def offer(self, messages: list[Message]) -> None:
        with self._lock:
            self._messages.extend(messages)

    def messages(self) -> list[Message]:
        with self._lock:
            return list(self._messages)

    def shown(self) -> Any:
        """The raw Snapshot that callers see."""
        raw = _SNAPSHOT(name=self.name, topic=self.topic, labels=self.labels)
        raw.expire_time.FromMilliseconds(int(self.expires_s * 1000))
        return raw
