"""A clock for tests that need hours: real time, plus what the test has added."""

from __future__ import annotations

from batch.clock import SystemClock


class ShiftedClock(SystemClock):
    """Everything that lives by it jumps forward together; waits that are under way take their real time."""

    def __init__(self) -> None:
        self._added_s = 0.0

    def now(self) -> float:
        return super().now() + self._added_s

    def monotonic(self) -> float:
        return super().monotonic() + self._added_s

    def advance(self, seconds: float) -> None:
        self._added_s += seconds
