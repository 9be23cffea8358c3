"""A reading of a backlog: a value with the time it was sampled at, or idle, or unknown. Unknown is never zero."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from batch.model.clock import from_iso, iso

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


def reading_json(reading: Reading) -> Mapping[str, Any]:
    """The reading as plain JSON, with its state by name."""
    match reading:
        case Value():
            return {
                "state": "value",
                "undelivered_count": reading.undelivered_count,
                "oldest_age_s": reading.oldest_age_s,
                "sampled_at": iso(reading.sampled_at),
            }
        case Idle():
            return {"state": "idle"}
        case Unknown():
            return {"state": "unknown", "reason": reading.reason}


def reading_from_json(body: Mapping[str, Any]) -> Reading:
    """What `reading_json` wrote. Raises KeyError, TypeError or ValueError on anything else."""
    match body["state"]:
        case "value":
            return Value(body["undelivered_count"], from_iso(body["sampled_at"]), body["oldest_age_s"])
        case "idle":
            return Idle()
        case "unknown":
            return Unknown(str(body["reason"]))
        case other:
            raise ValueError(f"{other!r} is not a state of a reading")
