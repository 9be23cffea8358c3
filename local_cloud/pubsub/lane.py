"""The messages of one ordering key in one subscription: at most one run of them is out, the others wait behind it.

The rule: what is out and then what is pending, read in a row, is always the order of publishing.
https://cloud.google.com/pubsub/docs/ordering
"""

from __future__ import annotations

from collections import deque
from collections.abc import Set

from local_cloud.pubsub.delivery import ACKED, DONE, Delivery
from local_cloud.pubsub.message import Message


class Lane:
    """Not thread-safe. Kept by the backlog: `is_queued`, the lane stands among what is ready or delayed; `available_s` (unix seconds), no
    run before that, 0 for at once."""

    __slots__ = ("available_s", "is_queued", "key", "out", "pending")

    def __init__(self, key: str) -> None:
        self.key = key
        self.pending: deque[Message | Delivery] = deque()
        # The run that was handed out, in order, with what of it was acknowledged before its predecessors.
        self.out: deque[Delivery] = deque()
        self.available_s = 0.0
        self.is_queued = False

    def acknowledge(self, delivery: Delivery, *, at_once: bool) -> list[Delivery]:
        """Mark one that is out; returns those that are finished by it.

        An acknowledgement counts once all before it in the run are acknowledged: when one of them comes again, it does too.
        `at_once`: it counts whatever the others do (with exactly-once delivery nothing that was acknowledged comes again).
        """
        if at_once:
            self.out.remove(delivery)
            return [delivery]
        delivery.state = ACKED
        finished = []
        while self.out and self.out[0].state == ACKED:
            finished.append(self.out.popleft())
        return finished

    def acknowledge_waiting(self, delivery: Delivery) -> bool:
        """Take out one whose lease ended, if it is the next of its key; false if it is not: it will be delivered again."""
        if self.out or not self.pending or self.pending[0] is not delivery:
            return False
        self.pending.popleft()
        return True

    def call_back(self, failed: Set[Delivery]) -> list[Delivery]:
        """Put the first of `failed` and all that is out behind it in front of what is pending; returns them. What is done is left out."""
        first = next((number for number, delivery in enumerate(self.out) if delivery in failed), len(self.out))
        returned = [delivery for delivery in (self.out.pop() for _ in range(len(self.out) - first)) if delivery.state != DONE]
        self.pending.extendleft(returned)
        return returned


def lanes_of(deliveries: list[Delivery]) -> list[Lane]:
    """The lanes that they belong to, each once."""
    return list({delivery.lane: None for delivery in deliveries if delivery.lane is not None})
