"""What travels through Pub/Sub: a delivered message, a message to publish, and the limits of one request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

MAX_PULL_MESSAGES = 1000
MAX_ACK_IDS = 1000
MAX_ACK_REQUEST_BYTES = 512 * 1024
MAX_EXTENSION_S = 600
MAX_PUBLISH_MESSAGES = 1000
MAX_PUBLISH_BYTES = 9_500_000
"""Pub/Sub takes 10 MB; the rest is left for what is not counted here."""
MAX_ATTRIBUTES = 100
ORDERED = (
    "subscription {} has message ordering enabled, which Fanout does not keep: workers run messages of one key at the same time and"
    " in any order; ordering cannot be turned off: create a subscription without it, name that in jobs.yaml, then: fanout apply jobs.yaml"
)
MOST_KEPT = 20
"""Deliveries of one message that are kept for workers that end without a nack, if so many are at most half of what is allowed."""


def near_net(limit: int) -> int | None:
    """From which delivery on a message is published again rather than nacked, with a dead-letter policy of `limit` deliveries; None without
    one (0)."""
    return limit - min(MOST_KEPT, limit // 2) if limit else None


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


GOOGLE_TRACEPARENT = "googclient_traceparent"
"""Of Google's own clients, which write it themselves: the one name of theirs that Pub/Sub takes from publishers."""


def own_attributes(attributes: Mapping[str, str]) -> dict[str, str]:
    """A delivered message's attributes without those that begin with `goog`: Pub/Sub adds them, and refuses them from anybody else, but for
    the trace."""
    return {key: value for key, value in attributes.items() if not key.startswith("goog") or key == GOOGLE_TRACEPARENT}
