"""What a lane has observed of its job's executions, kept between ticks: which of them still matter, and how many are accounted for. Pure.

It stands beside what was planned and requested (the intents) and is never made from those: only Cloud Run's answers change it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

_EXECUTION = re.compile(r"projects/[^/]+/locations/[^/]+/jobs/[^/]+/executions/[^/]+")


@dataclass(frozen=True, slots=True)
class Seen:
    """An execution that still matters: alive, or ended so recently that a reading may count its messages, or one that tells whether the
    lane is broken."""

    full_name: str
    worker_count: int
    live: bool


@dataclass(frozen=True, slots=True)
class Observed:
    """`counted` executions of the job with `job_uid` are accounted for; None: nobody has listed them yet. `latest` is the newest of them.
    `missing_count` more are counted by Cloud Run and not listed, since `short_since` (Unix seconds). `listed_at` is when none was missing,
    at the last change."""

    job_uid: str = ""
    counted: int | None = None
    latest: str = ""
    missing_count: int = 0
    listed_at: float = 0.0
    short_since: float | None = None
    executions: tuple[Seen, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Full names."""
        return tuple(one.full_name for one in self.executions)

    @property
    def live_worker_count(self) -> int:
        """At most: workers of live executions that have ended since are among them."""
        return sum(one.worker_count for one in self.executions if one.live)


def to_json(observed: Observed) -> dict[str, Any]:
    return asdict(observed)


def from_json(body: Mapping[str, Any]) -> Observed:
    """Raises KeyError, TypeError or ValueError on what is none."""
    counted, short_since = body["counted"], body["short_since"]
    return Observed(
        job_uid=str(body["job_uid"]),
        counted=None if counted is None else whole(counted),
        latest=str(body["latest"]),
        missing_count=whole(body["missing_count"]),
        listed_at=finite(body["listed_at"]),
        short_since=None if short_since is None else finite(short_since),
        executions=tuple(Seen(_execution(one["full_name"]), whole(one["worker_count"]), bool(one["live"])) for one in body["executions"]),
    )


def from_watched(names: object) -> Observed:
    """From the first format, which kept the names of live executions only. Raises TypeError, ValueError."""
    if not isinstance(names, list):
        raise TypeError(f"a list of names was expected, got {names!r:.100}")
    return Observed(executions=tuple(Seen(_execution(name), 0, True) for name in names))


def whole(value: object) -> int:
    """A count from JSON. Raises ValueError."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r:.100} where a count is expected")
    return value


def finite(value: float | str) -> float:
    """A number from JSON. Raises ValueError for NaN and infinities, which Python's JSON lets in."""
    number = float(value)
    if not isfinite(number):
        raise ValueError(f"{number} where a number is expected")
    return number


def _execution(name: object) -> str:
    if not isinstance(name, str) or not _EXECUTION.fullmatch(name):
        raise ValueError(f"{name!r:.200} is not the full name of an execution")
    return name
