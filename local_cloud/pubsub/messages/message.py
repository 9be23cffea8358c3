"""A published message, in the form in which it is kept: its bytes on the wire, written once and shared by all subscriptions.

A message never changes after it was stamped; a `Delivery` says what happens to it in a subscription.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from google.pubsub_v1.types import pubsub

from local_cloud.pubsub.messages.wire import message_id_head, publish_time

_PUBSUB_MESSAGE = pubsub.PubsubMessage.pb()
_SOURCE = "CloudPubSubDeadLetterSource"


class Message:
    """`body` is a serialized PubsubMessage with its id and publish time; `published_s` are unix seconds."""

    __slots__ = ("body", "message_id", "published_s")

    def __init__(self, message_id: str, published_s: float, body: bytes) -> None:
        self.message_id = message_id
        self.published_s = published_s
        self.body = body

    def opened(self) -> Any:
        """The raw PubsubMessage, made anew: for attributes and ordering key, which only few subscriptions look at."""
        return _PUBSUB_MESSAGE.FromString(self.body)


def bare(raw: Any) -> bytes:
    """A raw PubsubMessage, serialized without id and publish time: values that the publisher wrote there do not count."""
    if raw.message_id or raw.HasField("publish_time"):
        raw.ClearField("message_id")
        raw.ClearField("publish_time")
    body: bytes = raw.SerializeToString()
    return body


def stamp(bodies: Iterable[bytes], message_ids: Iterable[int], now_s: float) -> list[Message]:
    """Messages of serialized PubsubMessages as `bare` makes them, with an id and the publish time each. A second stamp with the same
    values changes nothing."""
    time = publish_time(now_s)
    head, size = b"", 0
    stamped = []
    for body, message_id in zip(bodies, map(str, message_ids), strict=False):
        if len(message_id) != size:
            size = len(message_id)
            head = time + message_id_head(size)
        # A field that is appended belongs to the message as if it had been serialized with it.
        stamped.append(Message(message_id, now_s, body + (head + message_id.encode())))
    return stamped


def dead_letter(message: Message, delivery_count: int, subscription: str, project: str) -> Any:
    """The raw PubsubMessage that goes to the dead-letter topic: the same content, and where it comes from as attributes.

    Names of the attributes: https://cloud.google.com/pubsub/docs/handling-failures
    """
    raw = message.opened()
    published = datetime.fromtimestamp(message.published_s, UTC)
    raw.attributes[f"{_SOURCE}DeliveryCount"] = str(delivery_count)
    raw.attributes[f"{_SOURCE}Subscription"] = subscription
    raw.attributes[f"{_SOURCE}SubscriptionProject"] = project
    raw.attributes[f"{_SOURCE}TopicPublishTime"] = published.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return raw
