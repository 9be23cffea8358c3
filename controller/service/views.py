"""What the service shows of lanes, decisions and executions: plain JSON from jobs and states. It reads and changes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from batch.model.errors import FanoutError
from controller.act.state import load
from controller.lanes.annotations import chosen_lanes, lanes_of
from controller.model.lane import Lane
from controller.observe.listing import listed_json, newest_executions
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
    found = newest_executions(outside.runner, _chosen(outside, name), limit)
    return {"executions": [{**listed_json(lane, info), "live_worker_count": info.live_worker_count} for lane, info in found]}


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
