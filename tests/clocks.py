"""Clocks for tests that need hours: real time, plus what the test has added."""

from __future__ import annotations

import threading

from batch.model.clock import SystemClock


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


class JumpingClock(ShiftedClock):
    """Also ends a wait that is under way, once it has been moved past its end."""

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        until_s = self.monotonic() + timeout_s
        while not event.is_set() and (left_s := until_s - self.monotonic()) > 0:
            event.wait(min(left_s, 0.005))
        return event.is_set()
