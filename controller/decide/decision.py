"""A decision: how many workers to launch now, and why. It carries every number it was made from, so that a person can check it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from batch.model.clock import from_iso, iso
from controller.decide import probe
from controller.decide.ledger import Ledger, Line
from controller.decide.probe import Blind
from controller.decide.sizing import Rates, worker_usd
from controller.model.execution import Worked
from controller.model.lane import Lane
from controller.model.reading import Reading, reading_from_json, reading_json


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


def from_json(body: Mapping[str, Any]) -> Decision:
    """A decision as it stands in a lane's history; one that an earlier version wrote lacks what that did not know. Raises KeyError,
    TypeError or ValueError on what is no decision."""
    plain = {name: body[name] for name in Decision.__dataclass_fields__ if name in body}
    return Decision(
        **plain
        | {
            "kind": Kind(body["kind"]),
            "decided_at": from_iso(body["decided_at"]),
            "reading": reading_from_json(body["reading"]),
            "ledger": _ledger(body["ledger"]) if body.get("ledger") else None,
            "hold_cause": HoldCause(body["hold_cause"]) if body.get("hold_cause") else None,
            "caps": tuple(Cap(**cap) for cap in body.get("caps", ())),
            "rates": Rates(**body["rates"]) if body.get("rates") else None,
            "blind": probe.from_json(body["blind"]) if body.get("blind") else None,
        }
    )


def _ledger(body: Mapping[str, Any]) -> Ledger:
    known = Line.__dataclass_fields__
    lines = tuple(Line(**{name: value for name, value in line.items() if name in known}) for line in body["lines"])
    return Ledger(from_iso(body["since"]), lines)


def compared(decisions: Sequence[Mapping[str, Any]], executions: Sequence[Worked], lane: Lane) -> tuple[Mapping[str, Any], ...]:
    """The history with `actual_drain_s`, `actual_cost_usd` and `drain_error_percent` in every launch whose executions are all among
    these and have ended. Entries that are no such launch come back as they are."""
    return tuple(_compared(one, executions, lane) for one in decisions)


def _compared(entry: Mapping[str, Any], executions: Sequence[Worked], lane: Lane) -> Mapping[str, Any]:
    decision_id, told = entry.get("decision_id"), entry.get("actual_drain_s")
    if entry.get("kind") != Kind.LAUNCH or not decision_id or told is not None:
        return entry
    own = [one for one in executions if one.info.decision_id.rpartition(".")[0] == decision_id]
    if any(one.info.live for one in own) or sum(one.info.task_count for one in own) != entry.get("workers"):
        return entry
    last_at = max((_last_ack(one) for one in own), default=0.0)
    if not last_at:
        return entry
    drain_s = round(max(0.0, last_at - from_iso(entry["decided_at"])), 1)
    cost_usd = float(f"{sum(_cost_usd(one, lane) for one in own):.4g}")
    error_percent = drain_error_percent(entry.get("predicted_drain_s"), drain_s)
    return {**entry, "actual_drain_s": drain_s, "actual_cost_usd": cost_usd, "drain_error_percent": error_percent}


def _last_ack(worked: Worked) -> float:
    """0 when nothing was acknowledged."""
    acked = [one for tries in worked.tries.values() for one in tries if one.acked]
    return max((one.last_acked_at or one.updated_at for one in acked), default=0.0)


def _cost_usd(worked: Worked, lane: Lane) -> float:
    """From the launch to each worker's last word, start-up included; to the end of the execution for one that left none."""
    info, tries = worked.info, worked.tries
    last = [tries[index][-1].updated_at if tries.get(index) else info.completed_at or info.created_at for index in range(info.task_count)]
    return sum(worker_usd(lane, at - info.created_at) for at in last)
