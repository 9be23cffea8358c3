"""What the journal knows of one topic, one subscription, one snapshot: settings, and messages by id with their place in the file.

Plain state: `folded.py` says what changes it.
"""

from __future__ import annotations

from collections.abc import Iterable

from google.pubsub_v1.types import pubsub

from local_cloud.pubsub.entries import Place

_TOPIC = pubsub.Topic.pb()
_SUBSCRIPTION = pubsub.Subscription.pb()
_SNAPSHOT = pubsub.Snapshot.pb()

Places = dict[int, Place]


class Kept:
    """One topic; `retained` is what it keeps for a seek."""

    def __init__(self, settings: bytes) -> None:
        self.retained: Places = {}
        self.configure(settings)

    def configure(self, settings: bytes) -> None:
        self.settings = settings
        self.retention_s = _TOPIC.FromString(settings).message_retention_duration.ToNanoseconds() / 1e9
        if not self.retention_s:
            self.retained.clear()


class Holding:
    """One subscription. Messages in the order of their delivery."""

    def __init__(self, topic: str, settings: bytes) -> None:
        self.undelivered: Places = {}
        self.retained: Places = {}
        self.failure_counts: dict[int, int] = {}
        self.configure(topic, settings)

    def configure(self, topic: str, settings: bytes) -> None:
        raw = _SUBSCRIPTION.FromString(settings)
        self.topic, self.settings = topic, settings
        self.is_detached = bool(raw.detached)
        self.retains = bool(raw.retain_acked_messages)
        self.retention_s = raw.message_retention_duration.ToNanoseconds() / 1e9

    def acknowledge(self, message_ids: Iterable[int]) -> None:
        for message_id in message_ids:
            place = self.undelivered.pop(message_id, None)
            if self.failure_counts:
                self.failure_counts.pop(message_id, None)
            if place is not None and self.retains:
                self.retained[message_id] = place

    def take_back(self, places: Places) -> None:
        """Undelivered once more, in the order of publishing."""
        for message_id in places:
            self.retained.pop(message_id, None)
        self.undelivered = dict(sorted((self.undelivered | places).items()))

    def drop_outdated(self, horizon_s: float) -> None:
        self.undelivered = newer(self.undelivered, horizon_s)
        self.retained = newer(self.retained, horizon_s)
        self.failure_counts = {key: count for key, count in self.failure_counts.items() if key in self.undelivered}


class Image:
    """One snapshot."""

    def __init__(self, topic: str, settings: bytes, messages: Places) -> None:
        self.topic = topic
        self.settings = settings
        self.messages = messages

    @property
    def expires_s(self) -> float:
        """Unix seconds."""
        return float(_SNAPSHOT.FromString(self.settings).expire_time.ToNanoseconds()) / 1e9


def newer(places: Places, horizon_s: float) -> Places:
    """Those that were published at `horizon_s` or later."""
    return {message_id: place for message_id, place in places.items() if place[0] >= horizon_s}
