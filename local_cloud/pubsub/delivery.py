"""One message's fate in one subscription, from its first delivery on (before that, the subscription holds the bare message).

At any moment a delivery stands in exactly one place: leased, waiting (ready or delayed), acknowledged ahead of its order, or done.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from local_cloud.pubsub.message import Message

if TYPE_CHECKING:
    from local_cloud.pubsub.flow import Flow
    from local_cloud.pubsub.lane import Lane

WAITING = 0
LEASED = 1
DONE = 2
ACKED = 3

# Ack id, lengths and tags around a message in a pull response.
_FRAME_BYTES = 200
# Real ack ids are about 170 characters long; senders that count bytes must meet the same here.
_ACK_ID_LENGTH = 176
_DIGITS = 16
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


class Delivery:
    """`failure_count` counts deliveries that ended by nack or expiry; `deadline_s` (unix seconds) is when its lease ends, or ended.

    `lane` is set for a message with an ordering key that matters, `flow` for one that a stream with limits holds.
    """

    __slots__ = ("ack_id", "deadline_s", "failure_count", "flow", "lane", "message", "state")

    def __init__(self, message: Message) -> None:
        self.message = message
        self.ack_id = ""
        self.failure_count = 0
        self.deadline_s = 0.0
        self.state = WAITING
        self.flow: Flow | None = None
        self.lane: Lane | None = None


def is_past(item: Message | Delivery, horizon_s: float) -> bool:
    """Whether something that is ready is not to be delivered any more: acknowledged late, or published before `horizon_s`."""
    if isinstance(item, Message):
        return item.published_s < horizon_s
    return item.state == DONE or item.message.published_s < horizon_s


def size_of(item: Message | Delivery) -> int:
    """Bytes of it in a pull response, rounded up."""
    message = item if isinstance(item, Message) else item.message
    return len(message.body) + _FRAME_BYTES


def count_in(deliveries: list[Delivery], flow: Flow | None) -> None:
    """Let `flow` count deliveries that were just leased; without one nobody does."""
    for delivery in deliveries:
        delivery.flow = flow
        if flow is not None:
            flow.begin(delivery.message)


class AckIds:
    """Makes ack ids that never repeat within this process, and (by their random head) do not across restarts.

    Not thread-safe: each subscription has its own.
    """

    def __init__(self, chance: random.Random) -> None:
        self._head = "".join(chance.choices(_ALPHABET, k=_ACK_ID_LENGTH - _DIGITS))
        self._count = 0

    def make(self) -> str:
        self._count += 1
        return f"{self._head}{self._count:016x}"
