"""Leased deliveries, ordered by their deadline.

To find the expired leases costs nothing for the others: leases with the same deadline (one pull gives one deadline) share a
bucket, and a heap orders the buckets.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from local_cloud.pubsub.messages.delivery import LEASED, Delivery

_SLACK = 1_000


class Leases:
    """Not thread-safe. A delivery is here from `add` to `release` or `expire`, and never in two buckets."""

    def __init__(self) -> None:
        self._buckets: dict[float, dict[Delivery, None]] = {}
        self._deadlines: list[float] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, deliveries: Iterable[Delivery], deadline_s: float) -> None:
        """Lease deliveries that are not leased, until `deadline_s`."""
        bucket = self._buckets.get(deadline_s)
        if bucket is None:
            bucket = self._buckets[deadline_s] = {}
            heapq.heappush(self._deadlines, deadline_s)
        before = len(bucket)
        for delivery in deliveries:
            delivery.deadline_s = deadline_s
            delivery.state = LEASED
            bucket[delivery] = None
        self._count += len(bucket) - before

    def release(self, delivery: Delivery) -> None:
        """Forget a leased delivery; the caller sets its next state."""
        bucket = self._buckets[delivery.deadline_s]
        del bucket[delivery]
        self._count -= 1
        if not bucket:
            del self._buckets[delivery.deadline_s]
            self._compact()

    def expire(self, now_s: float) -> list[Delivery]:
        """Take out the leases whose deadline has come, earliest deadline first."""
        expired: list[Delivery] = []
        while self._deadlines and self._deadlines[0] <= now_s:
            expired.extend(self._buckets.pop(heapq.heappop(self._deadlines), ()))
        self._count -= len(expired)
        return expired

    def next_deadline_s(self) -> float | None:
        while self._deadlines and self._deadlines[0] not in self._buckets:
            heapq.heappop(self._deadlines)
        return self._deadlines[0] if self._deadlines else None

    def _compact(self) -> None:
        if len(self._deadlines) > 2 * len(self._buckets) + _SLACK:
            self._deadlines = sorted(self._buckets)
