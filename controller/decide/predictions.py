"""Predictions against what happened: once the executions of a launch have ended, its entry in the history says how long it took. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from batch.model.clock import from_iso
from controller.decide.decision import Kind, drain_error_percent
from controller.decide.ledger import Worked
from controller.decide.prices import worker_usd
from controller.lanes.lanes import Lane


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
