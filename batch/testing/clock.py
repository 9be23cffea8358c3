"""A clock that stands still until somebody moves it. Never moves back."""

from __future__ import annotations

import threading

START_S = 1_767_225_600.0
"""2026-01-01T00:00:00Z."""
_LOOK_AGAIN_S = 0.002


class ManualClock:
    """Implements `batch.model.clock.Clock`; safe from any thread.

    By default `wait` moves the clock itself: it returns at once, later by its whole timeout unless the event was set. That
    is what a test with one thread wants. With `waits_move=False` it blocks until the event is set, or until `advance`
    (from another thread) has taken the clock past the timeout: for tests with threads.
    """

    def __init__(self, start_s: float = START_S, *, waits_move: bool = True) -> None:
        self._now_s = start_s
        self._monotonic_s = 1000.0
        self.waits_move = waits_move
        self._lock = threading.Lock()

    def now(self) -> float:
        return self._now_s

    def monotonic(self) -> float:
        return self._monotonic_s

    def advance(self, seconds: float) -> float:
        """Move forward and return the new `now`. Raises ValueError on a negative step."""
        if seconds < 0:
            raise ValueError(f"the clock only moves forward, got {seconds} s")
        with self._lock:
            self._now_s += seconds
            self._monotonic_s += seconds
            return self._now_s

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        if self.waits_move:
            if not event.is_set():
                self.advance(max(0.0, timeout_s))
            return event.is_set()
        until_s = self._monotonic_s + timeout_s
        while self._monotonic_s < until_s and not event.wait(_LOOK_AGAIN_S):
            pass
        return event.is_set()
