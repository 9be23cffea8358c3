"""The seams to Pub/Sub: what a delivery is, what one subscription and one topic can do. Implementations translate every error.

Implementations that pass one conformance suite: `batch.google_pubsub` (real clients; against the local cloud and Google's
emulator) and `batch.testing` (in memory).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

MAX_PULL_MESSAGES = 1000
MAX_ACK_IDS = 1000
MAX_ACK_REQUEST_BYTES = 512 * 1024
MAX_EXTENSION_S = 600


@dataclass(slots=True)
class Delivery:
    """One message as the broker handed it out. `delivery_attempt` is 0 when the broker does not count."""

    ack_id: str
    message_id: str
    data: bytes
    attributes: Mapping[str, str]
    published_s: float
    delivery_attempt: int = 0


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message to publish."""

    data: bytes
    attributes: Mapping[str, str]


class Subscription(Protocol):
    """One subscription. All methods may raise DependencyError."""

    name: str
    ack_deadline_s: float

    def pull(self, max_messages: int, timeout_s: float) -> list[Delivery]:
        """At most `max_messages`; an empty list when none came in time (whether the service said so, or 504)."""

    def ack(self, ack_ids: Sequence[str]) -> list[str]:
        """Acknowledge in requests of at most 1,000 ids and 512 KiB; returns the ids that could not be acknowledged."""

    def extend(self, ack_ids: Sequence[str], deadline_s: float) -> list[str]:
        """Hold the messages for `deadline_s` more seconds from now; returns the ids that could not be extended."""

    def hand_back(self, ack_ids: Sequence[str], after_s: float = 0.0) -> list[str]:
        """Let others have the messages after `after_s` (0–600) seconds; returns the ids that failed (they come back by themselves)."""


class Topic(Protocol):
    """One topic. `publish` returns when the service has all of it; raises DependencyError when it cannot say so."""

    name: str

    def publish(self, messages: Sequence[Outgoing]) -> list[str]:
        """Message ids in the order of `messages`; split into requests of at most 1,000 messages and 9.5 MB."""
