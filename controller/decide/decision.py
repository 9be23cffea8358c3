"""A decision: how many workers to launch now, and why. It carries every number it was made from, so that a person can check it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from batch.model.clock import from_iso, iso
from batch.model.exit import ExitReason
from batch.prices import LIST_PERCENT
from controller.decide.broken import Sign, sign_of
from controller.decide.ledger import Entry, Ledger
from controller.decide.probe import Blind
from controller.decide.sizing import Rates, worker_cost
from controller.model.execution import Worked
from controller.model.lane import Lane
from controller.model.plain import read, written
from controller.model.reading import Reading, reading_from_json, reading_json
from controller.model.wording import counted

_FINE = frozenset({ExitReason.SHARE_DONE.value, ExitReason.DRAINED.value, ExitReason.NOT_CLAIMED.value})
"""How workers end that have left nothing undone."""
_WORDS_CHARS = 500
_NUMBERS = re.compile(r"(?:\S*\d\S*\s*(?:(?:ms|s|min|h|d|days?)\b,?\s*)?)+")


class Kind(StrEnum):
    """What was decided."""

    LAUNCH = "launch"
    NOTHING_TO_DO = "nothing_to_do"
    HOLD = "hold"


class HoldCause(StrEnum):
    """Why a lane is on hold. Only `paused` is what an operator wanted; `fault` is an error in Fanout itself."""

    PAUSED = "paused"
    READING_UNKNOWN = "reading_unknown"
    LISTING_FAILED = "listing_failed"
    STATE_UNREADABLE = "state_unreadable"
    BROKEN = "broken"
    THROTTLED = "throttled"
    MISCONFIGURED = "misconfigured"
    HELD_ELSEWHERE = "held_elsewhere"
    FAULT = "fault"


@dataclass(frozen=True, slots=True)
class Cap:
    """One bound on the number of workers: at most `limit` if it `lowers`, else at least. It is listed even if it changed nothing; `why` has
    the numbers behind it."""

    name: str
    limit: int
    before: int
    after: int
    lowers: bool = True
    why: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """`workers` share `backlog` messages. `wanted_workers` is the number before the caps, `within_s` the seconds that were planned to drain
    in, `due_in_s` those until `fanout/drain-within` is over for the messages, below 0 if it is. `predicted_drain_s` counts from the launch,
    or from the start of a delayed execution, which comes within `starts_within_s`; costs are dollars, workers at `price_percent` of the
    list price; `rates`, and with them all predictions, are None until something was learned. A later tick adds the `actual_…` of a launch.
    `blind` goes into the lane's state: the next decision needs it. `waiting_since` (Unix seconds): since when messages wait for more.
    `waits_until` (Unix seconds): with nothing to do, messages wait that long at the latest, and then workers are launched for them."""

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
    due_in_s: float | None = None
    wanted_workers: int = 0
    caps: tuple[Cap, ...] = ()
    workers: int = 0
    backlog: int = 0
    rates: Rates | None = None
    predicted_drain_s: float | None = None
    predicted_cost_usd: float | None = None
    price_percent: float = LIST_PERCENT
    starts_within_s: float = 0.0
    actual_drain_s: float | None = None
    actual_cost_usd: float | None = None
    actual_failure: str = ""
    probe: bool = False
    blind: Blind | None = None
    waiting_since: float | None = None
    waits_until: float | None = None

    @property
    def troubled(self) -> bool:
        """Whether the lane is on hold because something could not be known or does not work."""
        return self.kind is Kind.HOLD and self.hold_cause is not HoldCause.PAUSED

    @property
    def drain_error_percent(self) -> float | None:
        """How much longer than predicted the drain took, in percent; below 0: it was quicker. None if not known."""
        return drain_error_percent(self.predicted_drain_s, self.actual_drain_s)


def held_decision(lane: str, reading: Reading, now: float, cause: HoldCause, reason: str) -> Decision:
    """The lane is on hold, decided at `now` (Unix seconds)."""
    return Decision(lane, Kind.HOLD, reason, now, reading, hold_cause=cause)


def on_hold(decision: Decision, cause: HoldCause, reason: str) -> Decision:
    """A hold in place of a launch, with the numbers that the launch was decided from."""
    return replace(decision, kind=Kind.HOLD, hold_cause=cause, reason=reason, workers=0, backlog=0)


def drain_error_percent(predicted: float | None, actual: float | None) -> float | None:
    """How much longer than predicted something took, in percent; None if either is not known."""
    if predicted is None or actual is None or predicted <= 0:
        return None
    return round(100 * (actual - predicted) / predicted, 1)


@dataclass(frozen=True, slots=True)
class OpenLaunch:
    """A launch whose end is not known yet, decided at `decided_at` (Unix seconds)."""

    decision_id: str
    decided_at: float
    workers: int
    predicted_drain_s: float | None = None


@dataclass(frozen=True, slots=True)
class LastDecision:
    """What a lane's state keeps of the last decision in its history. `kind` and `hold_cause` are texts: another version may know more."""

    kind: str
    reason: str
    decided_at: float
    hold_cause: str = ""
    decision_id: str = ""
    workers: int = 0

    def is_repeated_by(self, decision: Decision) -> bool:
        """Whether a decision says nothing new: no launch, of the same kind, for the same cause, in the same words, numbers aside."""
        if decision.kind is Kind.LAUNCH or (decision.kind.value, decision.hold_cause or "") != (self.kind, self.hold_cause):
            return False
        return decision.reason == self.reason or _words(decision.reason) == _words(self.reason)

    def shown(self, lane: str) -> dict[str, Any]:
        """As JSON, its fields named as those of a decision."""
        return {
            "lane": lane,
            "kind": self.kind,
            "hold_cause": self.hold_cause or None,
            "reason": self.reason,
            "decided_at": iso(self.decided_at),
            "decision_id": self.decision_id,
            "workers": self.workers,
        }


def last_of(decision: Decision) -> LastDecision:
    """What a state keeps of a decision."""
    cause = decision.hold_cause.value if decision.hold_cause else ""
    return LastDecision(decision.kind.value, decision.reason, decision.decided_at, cause, decision.decision_id, decision.workers)


def _words(reason: str) -> str:
    """A reason without its numbers, names with a number, and units of time between them: those of a wait change at every tick."""
    return _NUMBERS.sub("# ", reason[:_WORDS_CHARS])


def to_json(decision: Decision) -> dict[str, Any]:
    """Plain JSON: what is logged, kept in the lane's history and printed by `--json`; what only a delayed launch has, only of one."""
    body: dict[str, Any] = {name: getattr(decision, name) for name in Decision.__dataclass_fields__}
    for name in ("rates", "blind"):
        body[name] = written(body[name])
    body["caps"] = [written(cap) for cap in decision.caps]
    body["decided_at"] = iso(decision.decided_at)
    body["reading"] = reading_json(decision.reading)
    if decision.ledger is not None:
        body["ledger"] = {
            "since": iso(decision.ledger.since),
            "total_count": decision.ledger.total_count,
            "guard_count": decision.ledger.guard_count,
            "live_worker_count": decision.ledger.live_worker_count,
            "entries": [written(entry) | {"total_count": entry.total_count} for entry in decision.ledger.entries],
        }
    body["waits_until"] = None if decision.waits_until is None else iso(decision.waits_until)
    body["drain_error_percent"] = decision.drain_error_percent
    if not decision.starts_within_s:
        del body["starts_within_s"], body["price_percent"]
    return body


def from_json(body: Mapping[str, Any]) -> Decision:
    """A decision of a lane's history; fields that its writer did not know have their defaults. Raises KeyError, TypeError or ValueError on
    anything else."""
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
            "blind": read(Blind, body["blind"]) if body.get("blind") else None,
            "waits_until": from_iso(body["waits_until"]) if body.get("waits_until") else None,
        }
    )


def _ledger(body: Mapping[str, Any]) -> Ledger:
    known = Entry.__dataclass_fields__
    entries = tuple(Entry(**{name: value for name, value in entry.items() if name in known}) for entry in body["entries"])
    return Ledger(from_iso(body["since"]), entries, guard_count=body.get("guard_count", 0))


def open_launch(decision: Decision) -> OpenLaunch:
    """What the comparison with its end needs of a launch."""
    return OpenLaunch(decision.decision_id, decision.decided_at, decision.workers, decision.predicted_drain_s)


def ends_of(launches: Sequence[OpenLaunch], executions: Sequence[Worked], lane: Lane) -> dict[str, dict[str, Any]]:
    """What became of launches that have ended, as JSON by decision id: `actual_drain_s`, `drain_error_percent` and `actual_cost_usd`;
    `actual_failure` in place of the first two where workers failed, were killed or left work undone; the cost alone where nothing was
    acknowledged. A launch has ended when all of its executions are in `executions` and have ended."""
    if not launches:
        return {}
    own: dict[str, list[Worked]] = {}
    for one in executions:
        own.setdefault(one.info.decision_id.rpartition(".")[0], []).append(one)
    ends = {one.decision_id: _end_of(one, own.get(one.decision_id, []), lane) for one in launches}
    return {decision_id: end for decision_id, end in ends.items() if end is not None}


def _end_of(launch: OpenLaunch, own: Sequence[Worked], lane: Lane) -> dict[str, Any] | None:
    if any(one.info.live for one in own) or sum(one.info.task_count for one in own) != launch.workers:
        return None
    end: dict[str, Any] = {"actual_cost_usd": float(f"{sum(cost_usd(one, lane) for one in own):.4g}")}
    if failure := _failure(own):
        return {**end, "actual_failure": failure}
    last_at = max((_last_ack(one) for one in own), default=0.0)
    if not last_at:
        return end
    from_s = max((one.info.started_at or 0.0 for one in own), default=0.0) if lane.is_delayed else 0.0
    drain_s = round(max(0.0, last_at - (from_s or launch.decided_at)), 1)
    return {**end, "actual_drain_s": drain_s, "drain_error_percent": drain_error_percent(launch.predicted_drain_s, drain_s)}


def _failure(executions: Sequence[Worked]) -> str:
    """What went wrong with the workers of a launch that has ended: `drained` would be too good a word for it. Empty if nothing did."""
    tries = [tries for one in executions for tries in one.tries.values() if tries]
    reasons = Counter(of_worker[-1].exit_reason for of_worker in tries)
    told = {
        "failed": sum(one.info.failed_count for one in executions),
        "cancelled": sum(one.info.cancelled_count for one in executions),
        "killed or crashed": sum(any(not one.exit_reason for one in of_worker) for of_worker in tries),
        **{f"ended {name}": count for name, count in sorted(reasons.items()) if name not in ("", *_FINE)},
    }
    return ", ".join(f"{counted(count, 'worker')} {what}" for what, count in told.items() if count)


def _last_ack(worked: Worked) -> float:
    """Unix seconds; 0 if nothing was acknowledged."""
    return max((one.last_acked_at or one.updated_at for one in worked.progress if one.acked), default=0.0)


def cost_usd(worked: Worked, lane: Lane, now: float | None = None) -> float:
    """Dollars at list price: from the launch, or a delayed start, to each worker's last progress, start-up included; to the end of the
    execution for a worker without progress. What is alive costs until `now` (Unix seconds), nothing while it waits for a delayed start."""
    info, tries, cost = worked.info, worked.tries, worker_cost(lane)
    begun_at = info.begun_at(is_delayed=lane.is_delayed)
    if info.live and begun_at is None and not tries:
        return 0.0
    own = [tries.get(index) for index in range(info.task_count)]
    over_at = info.completed_at or now or info.created_at
    spans = [
        (begun_at or (one[0].started_at if one else over_at), one[-1].updated_at if one and (one[-1].exit_reason or not now) else over_at)
        for one in own
    ]
    return sum(cost.usd(end - begin) for begin, end in spans)


def has_failed(decision_id: str, executions: Sequence[Worked]) -> bool | None:
    """Whether workers failed of a launch that has ended. None where it says nothing: it was cancelled, or its workers could not work, which
    is what a broken lane is about."""
    own = [one for one in executions if one.info.decision_id.rpartition(".")[0] == decision_id]
    if failed := [one for one in own if one.info.failed_count]:
        return True if any(sign_of(one) is Sign.FINE for one in failed) else None
    return None if any(one.info.cancelled_count for one in own) else False
