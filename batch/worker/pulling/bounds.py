"""When a worker must stop: pure functions of the time it has.

Cloud Run kills a worker at its task timeout, counted from before the process began. So the worker plans to end earlier.
"""

from __future__ import annotations

from dataclasses import dataclass

from batch.settings import SIGTERM_GRACE_S

START_UP_PART = 0.05
MAX_START_UP_S = 15.0
"""What the start of the container may have taken from the timeout before our clock began."""
FLUSH_PART = 0.05
MAX_FLUSH_S = 15.0
"""Kept for the last outcomes, acks and progress."""
WHOLE_PART = 0.8
"""A task that had this part of all the time that a worker has could have had hardly more."""
LEAST_RECORD_S = 0.5
STOP_FLUSH_S = 3.0

assert STOP_FLUSH_S < SIGTERM_GRACE_S / 2


@dataclass(frozen=True, slots=True)
class TimeBounds:
    """`started_s` is the monotonic time when the process began, `timeout_s` the manifest's task timeout."""

    started_s: float
    timeout_s: float

    @property
    def end_s(self) -> float:
        """When handlers must be through, so that the last flush still fits."""
        start_up = min(MAX_START_UP_S, self.timeout_s * START_UP_PART)
        return self.started_s + self.timeout_s - start_up - self.flush_s

    @property
    def flush_s(self) -> float:
        """What is left after that."""
        return min(MAX_FLUSH_S, self.timeout_s * FLUSH_PART)

    def is_whole(self, ran_s: float) -> bool:
        """Whether a task that ran for so long, and had not ended when the worker had to, fits into no worker."""
        return ran_s >= WHOLE_PART * (self.end_s - self.started_s)

    def record_until_s(self) -> float:
        """Until when such tasks may be put on record; the rest is for outcomes and acks."""
        return self.end_s + max(LEAST_RECORD_S, self.flush_s / 2)

    def stop_pulling_s(self, longest_s: float, prefetch_s: float) -> float:
        """When to pull no more: what was pulled starts within `prefetch_s` and then takes up to `longest_s`."""
        return self.end_s - prefetch_s - min(longest_s, self.timeout_s / 2)


def after_signal_s(signal_s: float) -> float:
    """Until when handlers may go on after SIGTERM came at `signal_s`."""
    return signal_s + SIGTERM_GRACE_S - STOP_FLUSH_S
