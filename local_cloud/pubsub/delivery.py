"""One message's fate in one subscription, from its first delivery on (before that, the subscription holds the bare message).

At any moment a delivery stands in exactly one place: leased, waiting (ready or delayed), or done.
"""

from __future__ import annotations

import random

from local_cloud.pubsub.message import Message

WAITING = 0
LEASED = 1
DONE = 2

# Real ack ids are about 170 characters long; senders that count bytes must meet the same here.
_ACK_ID_LENGTH = 176
_DIGITS = 16
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


class Delivery:
    """`failure_count` counts deliveries that ended by nack or expiry; `deadline_s` (unix seconds) matters while leased."""

    __slots__ = ("ack_id", "deadline_s", "failure_count", "message", "state")

    def __init__(self, message: Message) -> None:
        self.message = message
        self.ack_id = ""
        self.failure_count = 0
        self.deadline_s = 0.0
        self.state = WAITING


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
