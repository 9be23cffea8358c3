"""Messages that were pulled and have not started: handed over in lists, from the puller to the slots."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from batch.subscription import Delivery


class Ready:
    """A line of deliveries. One lock for each list that goes in or out, none for a message. Several lines may share a condition."""

    def __init__(self, condition: threading.Condition | None = None) -> None:
        self._line: deque[Delivery] = deque()
        self._condition = condition or threading.Condition()
        self._closed = False
        self._byte_count = 0

    def __len__(self) -> int:
        return len(self._line)

    @property
    def byte_count(self) -> int:
        return self._byte_count

    def put(self, deliveries: Iterable[Delivery]) -> None:
        with self._condition:
            for delivery in deliveries:
                self._line.append(delivery)
                self._byte_count += len(delivery.data)
            self._condition.notify_all()

    def take(self, size: Callable[[int], int]) -> list[Delivery]:
        """Wait for messages and take `size(<how many wait>)` of them; an empty list once closed."""
        with self._condition:
            if not self._line:
                self._condition.notify_all()  # a slot is free: the puller may want more now
            while not self._line and not self._closed:
                self._condition.wait()
            if self._closed:
                return []
            taken = [self._line.popleft() for _ in range(min(size(len(self._line)), len(self._line)))]
            self._byte_count -= sum(len(delivery.data) for delivery in taken)
            self._condition.notify_all()
            return taken

    def put_back(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """In front again, for another slot; returns them when the line is closed."""
        with self._condition:
            if self._closed:
                return list(deliveries)
            self._line.extendleft(reversed(deliveries))
            self._byte_count += sum(len(delivery.data) for delivery in deliveries)
            self._condition.notify_all()
            return []

    def close(self) -> list[Delivery]:
        """Start nothing more: the slots end, and what had not started is returned."""
        with self._condition:
            self._closed = True
            left = list(self._line)
            self._line.clear()
            self._byte_count = 0
            self._condition.notify_all()
            return left
