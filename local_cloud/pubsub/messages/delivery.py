"""One message in one subscription, from its first delivery on (before that, the subscription has the bare message).

At any moment a delivery stands in exactly one place: leased, waiting (ready or delayed), acknowledged ahead of its order, or done.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

from local_cloud.pubsub.messages.flow_control import FlowControl
from local_cloud.pubsub.messages.message import Message
from local_cloud.pubsub.messages.wire import varint

WAITING = 0
LEASED = 1
DONE = 2
ACKED = 3

# Ack id, lengths and tags around a message in a pull response.
_FRAME_BYTES = 200
# Real ack ids are about 170 characters long; clients that count the bytes of a request must meet the same here.
_ACK_ID_LENGTH = 176
_DIGITS = 16
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
# Tags of protobuf, see `wire.py`.
_RECEIVED = b"\x0a"  # PullResponse.received_messages = 1, and the same in StreamingPullResponse
_ACK_ID = b"\x0a"  # ReceivedMessage.ack_id = 1
_MESSAGE = b"\x12"  # ReceivedMessage.message = 2
_ATTEMPT = b"\x18"  # ReceivedMessage.delivery_attempt = 3


class Delivery:
    """`failure_count` counts deliveries that ended by nack or expiry; `deadline_s` (unix seconds) is when its lease ends, or ended.

    `ordering_key` is set if the subscription orders by it, `flow` if a stream with limits received the message.
    """

    __slots__ = ("ack_id", "deadline_s", "failure_count", "flow", "message", "ordering_key", "state")

    def __init__(self, message: Message) -> None:
        self.message = message
        self.ack_id = ""
        self.failure_count = 0
        self.deadline_s = 0.0
        self.state = WAITING
        self.flow: FlowControl | None = None
        self.ordering_key = ""


def is_past(item: Message | Delivery, horizon_s: float) -> bool:
    """Whether a ready item is not to be delivered any more: acknowledged after its lease ended, or published before `horizon_s`."""
    if isinstance(item, Message):
        return item.published_s < horizon_s
    return item.state == DONE or item.message.published_s < horizon_s


def size_of(item: Message | Delivery) -> int:
    """Its bytes in a pull response, rounded up."""
    message = item if isinstance(item, Message) else item.message
    return len(message.body) + _FRAME_BYTES


def count_in(deliveries: list[Delivery], flow: FlowControl | None) -> None:
    """Count deliveries that were just leased in `flow`, if there is one."""
    for delivery in deliveries:
        delivery.flow = flow
        if flow is not None:
            flow.begin(delivery.message)


def received(deliveries: Iterable[Delivery], *, counts_attempts: bool) -> bytes:
    """The messages of a PullResponse, or of a StreamingPullResponse, as bytes: they are written once for every message delivered."""
    parts: list[bytes] = []
    for delivery in deliveries:
        ack_id, body = delivery.ack_id.encode(), delivery.message.body
        head = _ACK_ID + varint(len(ack_id)) + ack_id + _MESSAGE + varint(len(body))
        attempt = _ATTEMPT + varint(delivery.failure_count + 1) if counts_attempts else b""
        parts += (_RECEIVED, varint(len(head) + len(body) + len(attempt)), head, body, attempt)
    return b"".join(parts)


class AckIds:
    """Makes ack ids that never repeat within this process, and (by their random head) do not across restarts.

    Not thread-safe: each subscription has its own.
    """

    def __init__(self, rng: random.Random) -> None:
        self._head = "".join(rng.choices(_ALPHABET, k=_ACK_ID_LENGTH - _DIGITS))
        self._count = 0

    def make(self) -> str:
        self._count += 1
        return f"{self._head}{self._count:016x}"
