"""A published message, in the form in which it is kept: its bytes on the wire, written once and shared by all subscriptions.

A message never changes after it was stamped; what happens to it in a subscription stands in `delivery.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from google.pubsub_v1.types import pubsub

_PUBSUB_MESSAGE = pubsub.PubsubMessage.pb()
_SOURCE = "CloudPubSubDeadLetterSource"


class Message:
    """`body` is a serialized PubsubMessage with its id and publish time; `published_s` are unix seconds."""

    __slots__ = ("body", "message_id", "published_s")

    def __init__(self, message_id: str, published_s: float, body: bytes) -> None:
        self.message_id = message_id
        self.published_s = published_s
        self.body = body


def stamp(raw_messages: Iterable[Any], message_ids: Iterator[int], now_s: float) -> list[Message]:
    """Messages of raw PubsubMessages, which get id and publish time, whatever the publisher wrote there."""
    time = Timestamp()
    time.FromNanoseconds(int(now_s * 1_000_000) * 1000)
    stamped = []
    for raw in raw_messages:
        message_id = raw.message_id = str(next(message_ids))
        raw.publish_time.CopyFrom(time)
        stamped.append(Message(message_id, now_s, raw.SerializeToString()))
    return stamped


def dead_letter(message: Message, delivery_count: int, subscription: str, project: str) -> Any:
    """The raw PubsubMessage that goes to the dead-letter topic: the same content, and where it comes from as attributes.

    Names of the attributes: https://cloud.google.com/pubsub/docs/handling-failures
    """
    raw = _PUBSUB_MESSAGE.FromString(message.body)
    published = datetime.fromtimestamp(message.published_s, UTC)
    raw.attributes[f"{_SOURCE}DeliveryCount"] = str(delivery_count)
    raw.attributes[f"{_SOURCE}Subscription"] = subscription
    raw.attributes[f"{_SOURCE}SubscriptionProject"] = project
    raw.attributes[f"{_SOURCE}TopicPublishTime"] = published.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return raw
