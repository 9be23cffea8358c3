"""The clock that every model of the local cloud lives by: real time, plus what a test has added.

No module of the local cloud reads the time in any other way; so `POST /clock/advance` moves ack deadlines, gauge lag
and timeouts together, and nothing waits for real minutes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

LATEST_S = 32_503_680_000.0
"""The year 3000: what comes after it cannot be written as a date everywhere."""


class Clock:
    """Unix seconds that pass with real time and jump forward on `advance`. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._offset_s = 0.0
        self._listeners: list[Callable[[], None]] = []

    def now(self) -> float:
        """Unix seconds."""
        return time.time() + self._offset_s

    def advance(self, seconds: float) -> float:
        """Move the clock forward and wake everyone who waits on it; returns the new time. Raises ValueError on a step that is
        negative, no number, or leads beyond LATEST_S."""
        if not seconds >= 0:
            raise ValueError(f"the clock only moves forward, got {seconds} s")
        with self._lock:
            if self.now() + seconds > LATEST_S:
                raise ValueError(f"the clock ends with the year 3000, got {seconds} s")
            self._offset_s += seconds
            listeners = list(self._listeners)
        for listener in listeners:
            listener()
        return self.now()

    def on_advance(self, listener: Callable[[], None]) -> None:
        """Call `listener` (quick, not raising) after each `advance`, from the thread that advanced."""
        with self._lock:
            self._listeners.append(listener)

    def watch(self, condition: threading.Condition) -> None:
        """Wake all waiters of `condition` after each `advance`."""

        def wake() -> None:
            with condition:
                condition.notify_all()

        self.on_advance(wake)

    def wait_until(self, condition: threading.Condition, until: float | None) -> None:
        """Wait on a condition that the caller holds and `watch` knows, until it is notified or this clock reaches `until` (None: no limit).

        Like `Condition.wait` it may wake early: the caller checks again what it waits for.
        """
        condition.wait(None if until is None else max(0.0, until - self.now()))
