"""An ordered key: the messages of one ordering key in one subscription. While some are outstanding, the others are not delivered.

The rule: the outstanding messages followed by the pending ones are always in the order of publishing.
https://cloud.google.com/pubsub/docs/ordering
"""

from __future__ import annotations

from collections import deque
from collections.abc import Set

from local_cloud.pubsub.messages.delivery import ACKED, DONE, Delivery
from local_cloud.pubsub.messages.message import Message


class OrderedKey:
    """Not thread-safe. The backlog sets `is_queued` while the key stands in its ready or delayed queue, and `available_s` (unix
    seconds), before which no message of the key is delivered; 0 means at once."""

    __slots__ = ("available_s", "is_queued", "key", "outstanding", "pending")

    def __init__(self, key: str) -> None:
        self.key = key
        self.pending: deque[Message | Delivery] = deque()
        # What one take delivered, in order; also messages of it that were acknowledged before their predecessors.
        self.outstanding: deque[Delivery] = deque()
        self.available_s = 0.0
        self.is_queued = False

    def acknowledge(self, delivery: Delivery, *, at_once: bool) -> list[Delivery]:
        """Mark an outstanding delivery as acknowledged; returns the deliveries that this finishes.

        An acknowledgement counts once all outstanding messages before it are acknowledged: when one of them is delivered again, it is too.
        `at_once`: it counts in any case (with exactly-once delivery an acknowledged message is never delivered again).
        """
        if at_once:
            self.outstanding.remove(delivery)
            return [delivery]
        delivery.state = ACKED
        finished = []
        while self.outstanding and self.outstanding[0].state == ACKED:
            finished.append(self.outstanding.popleft())
        return finished

    def acknowledge_waiting(self, delivery: Delivery) -> bool:
        """Take out a delivery whose lease ended, if it is the next of its key; False if it is not, so that it will be delivered again."""
        if self.outstanding or not self.pending or self.pending[0] is not delivery:
            return False
        self.pending.popleft()
        return True

    def recall(self, failed: Set[Delivery]) -> list[Delivery]:
        """Put the first of `failed` and every outstanding delivery behind it in front of the pending ones; returns them, without those
        that are done."""
        count = len(self.outstanding)
        first = next((number for number, delivery in enumerate(self.outstanding) if delivery in failed), count)
        recalled = [delivery for delivery in (self.outstanding.pop() for _ in range(count - first)) if delivery.state != DONE]
        self.pending.extendleft(recalled)
        return recalled
