"""A simulated subscription: messages in cohorts of one arrival, those that wait in order, and those that come again later."""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass

Taken = list[tuple["Cohort", int]]


@dataclass(slots=True, eq=False)
class Cohort:
    """`left` messages that are not acknowledged. They arrived at `arrived_at` and could be taken from `available_at` on (Unix seconds);
    `runs` of each have failed."""

    arrived_at: float
    available_at: float
    left: int
    runs: int = 0


class Queue:
    """Counts of one subscription. Messages go out in the order in which they came."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Cohort, int]] = deque()
        self._oldest: list[tuple[float, int, Cohort]] = []
        self._number = 0
        self.waiting_count = 0
        self.unacked_count = 0
        self.arrived_count = 0

    def publish(self, at: float, count: int) -> Cohort:
        """`count` messages arrive."""
        cohort = Cohort(at, at, count)
        self.unacked_count += count
        self.arrived_count += count
        self._keep(cohort)
        self.give(cohort, count)
        return cohort

    def give(self, cohort: Cohort, count: int) -> None:
        """So many messages wait, at the end."""
        self._waiting.append((cohort, count))
        self.waiting_count += count

    def take(self, most: int) -> Taken:
        """At most so many of those that wait."""
        taken: Taken = []
        while most > 0 and self._waiting:
            cohort, count = self._waiting.popleft()
            if count > most:
                self._waiting.appendleft((cohort, count - most))
                count = most
            taken.append((cohort, count))
            most -= count
            self.waiting_count -= count
        return taken

    def put_back(self, taken: Taken) -> None:
        """They wait again, before all others."""
        for cohort, count in reversed(taken):
            self._waiting.appendleft((cohort, count))
            self.waiting_count += count

    def ack(self, cohort: Cohort, count: int) -> None:
        """So many of a cohort are done."""
        cohort.left -= count
        self.unacked_count -= count

    def defer(self, cohort: Cohort, count: int, due_at: float) -> Cohort:
        """So many of a cohort wait until `due_at`; `give` them then."""
        cohort.left -= count
        later = Cohort(cohort.arrived_at, due_at, count, cohort.runs + 1)
        self._keep(later)
        return later

    def oldest_at(self) -> float | None:
        """When the oldest message arrived that is not acknowledged."""
        while self._oldest and not self._oldest[0][2].left:
            heapq.heappop(self._oldest)
        return self._oldest[0][0] if self._oldest else None

    def _keep(self, cohort: Cohort) -> None:
        self._number += 1
        heapq.heappush(self._oldest, (cohort.arrived_at, self._number, cohort))
