"""Caps: what bounds the workers of a launch, in one order, each with the number before and after it. Pure.

Lower bounds come before upper bounds: in doubt fewer are launched, and the rest waits for a later tick.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor

from controller.decide.decision import Cap
from controller.decide.sizing import Rates, WorkerCost, most_in_timeout
from controller.decide.strategies import GUESS_S
from controller.decide.waits import TICK_EVERY_S, drain_within_s
from controller.model.execution import MAX_WORKERS_PER_EXECUTION
from controller.model.lane import Lane, Strategy
from controller.model.wording import counted

SCOUT_WORKERS = 4
"""So many are alive at most while nothing is learned: each is paid for a minute at least."""
SCOUT_TICKS = 4
"""Ticks that must be left to drain in: what a scout shows is known a tick later, or two."""
_EPSILON = 1e-9
_WITHOUT_END = 1e9


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds a launch from outside the lane; None: there is no such bound. `live_vcpu` counts the workers of all lanes,
    `run_calls_left` are RunJob calls of this minute, `budget_workers` is what this lane may launch of a budget that lanes share,
    `refused_workers` how many Cloud Run has just refused to start because there were too many launches."""

    cpu_quota_vcpu: float | None = None
    live_vcpu: float = 0.0
    run_calls_left: int | None = None
    budget_workers: int | None = None
    refused_workers: int | None = None


NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Bound:
    """One cap before it is applied: at most `limit` workers if it `lowers`, else at least. `why` has the numbers behind it."""

    name: str
    limit: int
    lowers: bool = True
    why: str = ""


def capped(wanted: int, bounds: Sequence[Bound]) -> tuple[int, tuple[Cap, ...]]:
    """The workers to launch, and each cap with the number before and after it, even if it changed nothing."""
    caps: list[Cap] = []
    workers = wanted
    for bound in bounds:
        after = min(workers, bound.limit) if bound.lowers else max(workers, bound.limit)
        caps.append(Cap(bound.name, bound.limit, workers, after, bound.lowers, bound.why))
        workers = after
    return workers, tuple(caps)


def bounds_of(
    lane: Lane,
    count: int,
    live_workers: int,
    rates: Rates | None,
    worker: WorkerCost,
    limits: Limits,
    *,
    least: bool = True,
    stuck_workers: int = 0,
) -> list[Bound]:
    """The caps of a lane with `count` messages to assign and `live_workers` alive, in their order. Without `least` there are no lower
    bounds. `stuck_workers` of the live ones may never start: the lane's own limit does not count them; limits that protect others do."""
    policy = lane.policy
    found: list[Bound] = []
    if least and rates is not None:
        most = most_in_timeout(lane.task_timeout_s, rates, worker)
        found.append(Bound("task-timeout", ceil(count / most), False, f"a worker does {most} messages within its timeout"))
    if least:
        if policy.max_messages is not None:
            why = f"{counted(policy.max_messages, 'message')} a worker"
            found.append(Bound("max-messages", ceil(count / policy.max_messages), False, why))
        if rates is None and policy.unlearned_share != policy.max_messages:
            first = policy.unlearned_share
            why = f"{counted(first, 'message')} a worker until it is known how long one takes"
            found.append(Bound("first-share", ceil(count / first), False, why))
        found.append(Bound("min-workers", policy.min_workers, False))
    found.append(Bound("messages", count, why="no more workers than messages"))
    never = f"{stuck_workers} more have not started and are not counted" if stuck_workers else ""
    found.append(_room("max-workers", policy.max_workers, live_workers - stuck_workers, never))
    if policy.max_in_flight is not None:
        most = policy.max_in_flight // worker.concurrency
        how = f"{policy.max_in_flight} messages at a time / {counted(worker.concurrency, 'thread')} = {most}"
        found.append(_room("max-in-flight", most, live_workers, how))
    if policy.rate is not None:
        found.append(_rate(policy.rate, live_workers, rates, worker))
    return found + _outer(lane, limits)


def scout_bound(lane: Lane, count: int, live_workers: int, within_s: float, due_in_s: float, tick_every_s: float) -> Bound | None:
    """While nothing is learned a large backlog is left to a few workers with small shares, which show how long a message takes: the rest
    is sized at a later tick. None where the time to plan with (`within_s`) is short, unless they are late in any case (`due_in_s` is left),
    or half of the time to drain in went by beside workers that showed nothing; where the policy asks for more workers however long a
    message takes; and where a start may take hours."""
    policy = lane.policy
    asked_for = max(policy.min_workers, 0 if policy.max_messages is None else ceil(count / policy.max_messages))
    if policy.strategy is not Strategy.DEADLINE or lane.is_delayed or asked_for > max(0, SCOUT_WORKERS - live_workers):
        return None
    least_s = SCOUT_TICKS * _shown_every_s(tick_every_s)
    if (within_s < least_s and due_in_s > 0) or (live_workers and due_in_s < max(least_s, drain_within_s(lane) / 2)):
        return None
    why = "nothing is learned yet of how long a message takes: a few workers show it, with small shares, before the rest is sized"
    return _room("scout", SCOUT_WORKERS, live_workers, why)


def scout_share(lane: Lane, tick_every_s: float) -> int:
    """Messages of a scout: what a worker may do until the next tick, if they take as long as is assumed."""
    return min(lane.policy.unlearned_share, max(1, int(_shown_every_s(tick_every_s) / GUESS_S)) * lane.concurrency)


def _shown_every_s(tick_every_s: float) -> float:
    """How long a scout takes to show anything, its start and its progress with it, to a tick."""
    return max(TICK_EVERY_S, tick_every_s)


def _room(name: str, most: int, live_workers: int, how: str = "") -> Bound:
    room = max(0, most - live_workers)
    alive = f"{most} - {live_workers} alive" if live_workers else ""
    return Bound(name, room, why=", ".join(part for part in (how, alive) if part))


def _rate(rate: float, live_workers: int, rates: Rates | None, worker: WorkerCost) -> Bound:
    """Never below one worker: it is slower than the rate, or only its own settings can slow it down."""
    if rates is None:
        return _room("rate", 1, live_workers, f"{rate:g} a second, one worker until it is known how many one does = 1")
    quick_s = rates.message_s if rates.quick_message_s is None else rates.quick_message_s
    each = worker.concurrency / quick_s if quick_s > 0 else float("inf")
    most = max(1, _floored(rate / each))
    over = "; one worker alone is faster, lower its CONCURRENCY" if each > rate * (1 + _EPSILON) else ""
    return _room("rate", most, live_workers, f"{rate:g} a second / {each:.3g} a worker{over} = {most}")


def _floored(workers: float) -> int:
    """Whole workers; for an infinite limit, more than there will ever be."""
    return floor(min(workers, _WITHOUT_END) + _EPSILON)


def _outer(lane: Lane, limits: Limits) -> list[Bound]:
    found: list[Bound] = []
    if limits.cpu_quota_vcpu is not None:
        left = max(0.0, limits.cpu_quota_vcpu - limits.live_vcpu)
        most = _floored(left / lane.vcpu) if lane.vcpu > 0 else 0
        why = f"{limits.cpu_quota_vcpu:g} vCPU - {limits.live_vcpu:g} in use, {lane.vcpu:g} a worker"
        found.append(Bound("cpu-quota", most, why=why))
    if limits.run_calls_left is not None:
        most = limits.run_calls_left * MAX_WORKERS_PER_EXECUTION
        why = f"{limits.run_calls_left} run calls left this minute, {MAX_WORKERS_PER_EXECUTION} workers each"
        found.append(Bound("run-calls", most, why=why))
    if limits.budget_workers is not None:
        found.append(Bound("budget", max(0, limits.budget_workers), why="this lane's part of the budget of workers"))
    if limits.refused_workers is not None:
        why = f"half of the {limits.refused_workers} that Cloud Run refused to start"
        found.append(Bound("throttled", max(1, limits.refused_workers // 2), why=why))
    return found
