"""What waits for its moment: failed deliveries, and ordering keys whose first message failed.

The rule: nothing comes out before its moment, and what has the same moment comes out in the order in which it went in.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from local_cloud.pubsub.delivery import Delivery
from local_cloud.pubsub.lane import Lane


class Delays:
    """Not thread-safe. Times are unix seconds."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Delivery | Lane]] = []
        self._number = 0

    def add(self, item: Delivery | Lane, available_s: float) -> None:
        self._number += 1
        heapq.heappush(self._heap, (available_s, self._number, item))

    def ended(self, now_s: float) -> Iterator[Delivery | Lane]:
        """Take out what may be delivered now."""
        while self._heap and self._heap[0][0] <= now_s:
            yield heapq.heappop(self._heap)[2]

    def next_s(self) -> float | None:
        return self._heap[0][0] if self._heap else None

    def clear(self) -> None:
        self._heap.clear()
