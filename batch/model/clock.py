"""Time, as a value that is passed in. No other module of `batch` reads the clock of the machine."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol, TypeGuard


class Clock(Protocol):
    """`now` for what is written down, `monotonic` for durations, `wait` for pauses."""

    def now(self) -> float:
        """Unix seconds."""

    def monotonic(self) -> float:
        """Seconds since some moment; never decreases."""

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Wait until `event` is set or the time is over; True if it was set."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        """Unix seconds."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds since some moment; the difference of two is a duration."""
        return time.monotonic()

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Wait until `event` is set or the time is over; True if it was set."""
        return event.wait(max(0.0, timeout_s))


def iso(unix_s: float) -> str:
    """`2026-01-31T12:00:00.123456Z`: what stands in messages, outcomes and objects. Sorts as text in the order of time."""
    whole = int(unix_s)
    microseconds = round((unix_s - whole) * 1e6)
    if not 0 <= microseconds < 1_000_000:  # rounded up to a second, or before 1970
        carried, microseconds = divmod(microseconds, 1_000_000)
        whole += carried
    return f"{_second(whole)}.{microseconds:06d}Z"


@lru_cache(maxsize=64)
def _second(unix_s: int) -> str:
    """Every message has a time, and many share a second."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat()[:19]


def from_iso(text: str) -> float:
    """Unix seconds of an ISO 8601 time; without a zone it is taken as UTC. Raises ValueError."""
    parsed = datetime.fromisoformat(text)
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()


def hour(unix_s: float) -> str:
    """`2026013112`: the UTC hour that rolling outcome shards are named after."""
    return _hour(int(unix_s // 3600))


@lru_cache(maxsize=64)
def _hour(number: int) -> str:
    """Messages that name no shard of their own share theirs with those of their hour."""
    return datetime.fromtimestamp(number * 3600, UTC).strftime("%Y%m%d%H")


def minute(unix_s: float) -> str:
    """`202601311200`: the UTC minute that folders of outcomes and parts of the log of dead letters are named after."""
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y%m%d%H%M")


_LAST = 1e11
"""The year 5138."""


def is_time(value: object) -> TypeGuard[float]:
    """Whether a value out of JSON is a time in Unix seconds; not one that no float can hold, nor NaN."""
    return type(value) in (int, float) and abs(value) < _LAST  # type: ignore[arg-type]
