"""What can be delivered now, in its order, and what can be delivered later, by its time.

The rule: the front of the ready queue is a message, a delivery or an ordering key; a publication is opened only when it gets there.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice

from local_cloud.pubsub.messages.delivery import Delivery
from local_cloud.pubsub.messages.message import Message
from local_cloud.pubsub.messages.ordered_key import OrderedKey
from local_cloud.pubsub.messages.publication import Publication


class ReadyQueue(deque[Publication | Message | Delivery | OrderedKey]):
    """Not thread-safe. Messages that were never delivered stand here as publications or messages, without a Delivery."""

    def front(self) -> Message | Delivery | OrderedKey:
        """The first item of a queue that is not empty; it stays there."""
        item = self[0]
        if isinstance(item, Publication):
            self.popleft()
            self.extendleft(reversed(item.messages()))
            return item.messages()[0]
        return item


class DelayedQueue:
    """Failed deliveries, and ordering keys whose first message failed. Items of the same time come out in the order in which they went in.

    Not thread-safe. Times are unix seconds.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Delivery | OrderedKey]] = []
        self._number = 0

    def add(self, item: Delivery | OrderedKey, available_s: float) -> None:
        self._number += 1
        heapq.heappush(self._heap, (available_s, self._number, item))

    def ended(self, now_s: float) -> Iterator[Delivery | OrderedKey]:
        """Take out the items that may be delivered now."""
        while self._heap and self._heap[0][0] <= now_s:
            yield heapq.heappop(self._heap)[2]

    def next_s(self) -> float | None:
        return self._heap[0][0] if self._heap else None

    def clear(self) -> None:
        self._heap.clear()


def fresh(queue: Iterable[object]) -> Iterator[Message]:
    """The messages in a queue that were never delivered."""
    for item in queue:
        if isinstance(item, Publication):
            yield from item.messages()
        elif isinstance(item, Message):
            yield item


def oldest_fresh_s(queue: Iterable[object]) -> list[float]:
    """Publish time (unix seconds) of the first message that `fresh` gives; empty if there is none."""
    return list(islice((item.published_s for item in queue if isinstance(item, Publication | Message)), 1))
