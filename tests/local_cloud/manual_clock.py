"""A clock of the local cloud that stands still unless it is advanced."""

from __future__ import annotations

import threading

from local_cloud.clock import Clock


class ManualClock(Clock):
    """It starts in November 2023; a wait ends only when the clock is advanced or somebody notifies."""

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        super().__init__()
        self._start = start

    def now(self) -> float:
        return self._start + self._offset_s

    def wait_until(self, condition: threading.Condition, until: float | None) -> None:
        if until is None or until > self.now():
            condition.wait()
