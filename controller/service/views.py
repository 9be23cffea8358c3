"""What the service shows of lanes, decisions and executions: plain JSON from jobs and states. It reads and changes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from typing import Any

from batch.model.clock import iso
from batch.model.errors import FanoutError
from controller.act.state import load
from controller.lanes.annotations import chosen_lanes, lanes_of
from controller.model.execution import ExecutionInfo
from controller.model.lane import Lane
from controller.tick.outside import Outside

MOST = 50
"""Decisions, and executions of a lane, that are shown."""


def lanes_json(outside: Outside) -> dict[str, Any]:
    """Every lane with its policy and its last decision, and the jobs that cannot be one. Raises DependencyError."""
    lanes, refused = lanes_of(outside.runner.jobs())
    return {
        "lanes": [_lane(lane, outside) for lane in lanes],
        "refused": [{"job": one.job, "problems": list(one.problems)} for one in refused],
    }


def decisions_json(outside: Outside, name: str, limit: int) -> dict[str, Any]:
    """The newest decisions first, of one lane or all. Raises SettingsError, DependencyError."""
    found: list[Mapping[str, Any]] = []
    problems: list[str] = []
    for lane in _chosen(outside, name):
        try:
            found += load(outside.store, lane.name).state.decisions
        except FanoutError as error:
            problems.append(f"lane {lane.name}: {error}")
    newest = sorted(found, key=lambda decision: str(decision.get("decided_at", "")), reverse=True)
    return {"decisions": newest[:limit], "problems": problems}


def executions_json(outside: Outside, name: str, limit: int) -> dict[str, Any]:
    """The newest executions first, of one lane or all. Raises SettingsError, DependencyError."""
    found = [(lane.name, one) for lane in _chosen(outside, name) for one in islice(outside.runner.executions(lane.job), limit)]
    found.sort(key=lambda pair: pair[1].created_at, reverse=True)
    return {"executions": [_execution(lane, one) for lane, one in found[:limit]]}


def _chosen(outside: Outside, name: str) -> Sequence[Lane]:
    lanes, refused = lanes_of(outside.runner.jobs())
    return chosen_lanes(lanes, refused, [name] if name else [])


def _lane(lane: Lane, outside: Outside) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "lane": lane.name,
        "job": lane.job,
        "subscription": lane.subscription,
        "topic": lane.topic,
        "paused": lane.policy.paused,
        "policy": asdict(lane.policy),
        "last_decision": None,
        "problem": None,
    }
    try:
        decisions = load(outside.store, lane.name).state.decisions
    except FanoutError as error:
        return {**shown, "problem": str(error)}
    return {**shown, "last_decision": decisions[-1] if decisions else None}


def _execution(lane: str, info: ExecutionInfo) -> dict[str, Any]:
    return {
        "lane": lane,
        "execution": info.name,
        "decision_id": info.decision_id or None,
        "created_at": iso(info.created_at),
        "started_at": None if info.started_at is None else iso(info.started_at),
        "completed_at": None if info.completed_at is None else iso(info.completed_at),
        "worker_count": info.task_count,
        "live_worker_count": info.live_worker_count,
        "succeeded_count": info.succeeded_count,
        "failed_count": info.failed_count,
        "cancelled_count": info.cancelled_count,
        "retried_count": info.retried_count,
    }
