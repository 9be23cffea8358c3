"""A decision: how many workers to launch now, and why. It carries every number it was made from, so that a person can check it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from batch.model.clock import from_iso, iso
from controller.decide import probe
from controller.decide.ledger import Ledger, Line
from controller.decide.probe import Blind
from controller.decide.sizing import Rates
from controller.observe.backlog import Idle, Reading, Unknown, Value


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
    THROTTLED = "throttled"
    UNLAUNCHABLE = "unlaunchable"
    FAULT = "fault"


@dataclass(frozen=True, slots=True)
class Cap:
    """One bound on the number of workers: at most `limit` where it `lowers`, else at least. It is listed even when it changed nothing;
    `why` has the numbers behind it."""

    name: str
    limit: int
    before: int
    after: int
    lowers: bool = True
    why: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """`workers` share `backlog` messages. `wanted_workers` is the number before the caps, `within_s` the time that was left to drain in.
    `predicted_drain_s` counts from the launch, start-up included; costs are dollars at list price; `rates`, and with them all
    predictions, are None until something was learned. The `actual_…` of a launch are added by a later tick."""

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
    strategy: str = ""
    formula: str = ""
    within_s: float | None = None
    wanted_workers: int = 0
    caps: tuple[Cap, ...] = ()
    workers: int = 0
    backlog: int = 0
    rates: Rates | None = None
    predicted_drain_s: float | None = None
    predicted_cost_usd: float | None = None
    actual_drain_s: float | None = None
    actual_cost_usd: float | None = None
    probe: bool = False
    blind: Blind | None = None
    """For the lane's state, as `waiting_since`: what the next decision is to know."""
    waiting_since: float | None = None

    @property
    def troubled(self) -> bool:
        """Whether the lane is on hold because something could not be known or does not work."""
        return self.kind is Kind.HOLD and self.hold_cause is not HoldCause.PAUSED

    @property
    def drain_error_percent(self) -> float | None:
        """How much longer than predicted the drain took; below 0: it was quicker."""
        return drain_error_percent(self.predicted_drain_s, self.actual_drain_s)


def on_hold(decision: Decision, cause: HoldCause, reason: str) -> Decision:
    """In place of a launch, with the numbers that it was decided from."""
    return replace(decision, kind=Kind.HOLD, hold_cause=cause, reason=reason, workers=0, backlog=0)


def drain_error_percent(predicted: float | None, actual: float | None) -> float | None:
    """How much longer than predicted something took, in percent; None where either is not known."""
    if predicted is None or actual is None or predicted <= 0:
        return None
    return round(100 * (actual - predicted) / predicted, 1)


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
    body["drain_error_percent"] = decision.drain_error_percent
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


def from_json(body: Mapping[str, Any]) -> Decision:
    """A decision as it stands in a lane's history; one that an earlier version wrote lacks what that did not know. Raises KeyError,
    TypeError or ValueError on what is no decision."""
    plain = {name: body[name] for name in Decision.__dataclass_fields__ if name in body}
    return Decision(
        **plain
        | {
            "kind": Kind(body["kind"]),
            "decided_at": from_iso(body["decided_at"]),
            "reading": _reading(body["reading"]),
            "ledger": _ledger(body["ledger"]) if body.get("ledger") else None,
            "hold_cause": HoldCause(body["hold_cause"]) if body.get("hold_cause") else None,
            "caps": tuple(Cap(**cap) for cap in body.get("caps", ())),
            "rates": Rates(**body["rates"]) if body.get("rates") else None,
            "blind": probe.from_json(body["blind"]) if body.get("blind") else None,
        }
    )


def _reading(body: Mapping[str, Any]) -> Reading:
    match body["state"]:
        case "value":
            return Value(body["undelivered_count"], from_iso(body["sampled_at"]), body["oldest_age_s"])
        case "idle":
            return Idle()
        case "unknown":
            return Unknown(str(body["reason"]))
        case other:
            raise ValueError(f"{other!r} is no state of a reading")


def _ledger(body: Mapping[str, Any]) -> Ledger:
    known = Line.__dataclass_fields__
    lines = tuple(Line(**{name: value for name, value in line.items() if name in known}) for line in body["lines"])
    return Ledger(from_iso(body["since"]), lines)
