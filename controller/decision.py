"""A decision: how many workers to launch now, and why. It carries every number it was made from, so that a person can check it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from batch.clock import iso
from controller.backlog import Idle, Reading, Unknown, Value
from controller.ledger import Ledger


class Kind(StrEnum):
    LAUNCH = "launch"
    NOTHING_TO_DO = "nothing_to_do"
    HOLD = "hold"


class HoldCause(StrEnum):
    """Why a lane is on hold. Only `paused` is what somebody wanted; `fault` is one of Fanout itself."""

    PAUSED = "paused"
    READING_UNKNOWN = "reading_unknown"
    LISTING_FAILED = "listing_failed"
    STATE_UNREADABLE = "state_unreadable"
    BROKEN = "broken"
    FAULT = "fault"


@dataclass(frozen=True, slots=True)
class Cap:
    """One bound on the number of workers. It is listed even when it changed nothing."""

    name: str
    limit: int
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Decision:
    """`workers` share `backlog` messages. `wanted_workers` is the number before the caps. Costs are dollars at list price; seconds a
    message are None until some were measured."""

    lane: str
    kind: Kind
    reason: str
    decided_at: float
    reading: Reading
    ledger: Ledger | None = None
    decision_id: str = ""
    hold_cause: HoldCause | None = None
    accepted_count: int = 0
    unassigned_count: int = 0
    formula: str = ""
    wanted_workers: int = 0
    caps: tuple[Cap, ...] = ()
    workers: int = 0
    backlog: int = 0
    seconds_per_message: float | None = None
    predicted_drain_s: float | None = None
    predicted_cost_usd: float | None = None

    @property
    def troubled(self) -> bool:
        """Whether the lane is on hold because something could not be known or does not work."""
        return self.kind is Kind.HOLD and self.hold_cause is not HoldCause.PAUSED


def to_json(decision: Decision) -> dict[str, Any]:
    """Plain JSON: what is logged, kept in the lane's state and printed by `--json`."""
    body = asdict(decision)
    body["decided_at"] = iso(decision.decided_at)
    body["reading"] = reading_json(decision.reading)
    if decision.ledger is not None:
        body["ledger"] = {
            "since": iso(decision.ledger.since),
            "total_count": decision.ledger.total_count,
            "live_worker_count": decision.ledger.live_worker_count,
            "lines": [asdict(line) | {"total_count": line.total_count} for line in decision.ledger.lines],
        }
    return body


def reading_json(reading: Reading) -> Mapping[str, Any]:
    """A reading with its state by name."""
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
