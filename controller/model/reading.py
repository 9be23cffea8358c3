"""A reading of a backlog: a value with the time it was sampled at, or idle, or unknown. Unknown is never zero."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from batch.model.clock import from_iso, iso
from controller.model.plain import read

SAMPLED_EVERY_S = 60.0
"""How far apart samples of the gauge are."""
GAUGE_LATE_S = 180.0
"""How late `num_undelivered_messages` may be: a sample every minute, which may be read two minutes after it was taken."""
FUTURE_S = 60.0
"""A sample further ahead than this means that one of the clocks is wrong."""


@dataclass(frozen=True, slots=True)
class Value:
    """What the gauge said at `sampled_at` (Unix seconds). `oldest_age_s` is None if only the age could not be read."""

    undelivered_count: int
    sampled_at: float
    oldest_age_s: float | None = None


@dataclass(frozen=True, slots=True)
class Idle:
    """The call succeeded and there is no series: normal for a quiet subscription, and no proof that it is empty."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """The backlog could not be read."""

    reason: str


Reading = Value | Idle | Unknown
_STATES: Mapping[str, type[Reading]] = {"value": Value, "idle": Idle, "unknown": Unknown}


def reading_json(reading: Reading) -> Mapping[str, Any]:
    """The reading as plain JSON, with its state by name."""
    body = {"state": type(reading).__name__.lower(), **asdict(reading)}
    return {**body, "sampled_at": iso(reading.sampled_at)} if isinstance(reading, Value) else body


def reading_from_json(body: Mapping[str, Any]) -> Reading:
    """What `reading_json` wrote. Raises KeyError, TypeError or ValueError on anything else."""
    kind = _STATES.get(body["state"])
    if kind is None:
        raise ValueError(f"{body['state']!r} is not a state of a reading")
    return read(kind, {**body, "sampled_at": from_iso(body["sampled_at"])} if kind is Value else body)
