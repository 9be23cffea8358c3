"""How many workers to launch: a pure function of the reading, the ledger and the lane's policy. Unknown is never zero.

The size is the unassigned backlog over the share of a worker. Sizing by cost comes in at the same place.
"""

from __future__ import annotations

from math import ceil

from controller.backlog import Idle, Reading, Unknown, Value
from controller.decision import Cap, Decision, HoldCause, Kind
from controller.lanes import Lane
from controller.ledger import Ledger

VCPU_SECOND_USD = 0.000018
GIB_SECOND_USD = 0.000002
"""List prices of Cloud Run Jobs in tier 1 regions."""
BILLING_FLOOR_S = 60.0
"""The least time that a worker is billed for."""


def decide(
    lane: Lane,
    reading: Reading,
    ledger: Ledger | None,
    *,
    now: float,
    seconds_per_message: float | None = None,
    accepted_since_sample_count: int = 0,
    listing_error: str = "",
) -> Decision:
    """The decision for one lane. `ledger` is needed where the reading is a value above 0 and the listing succeeded; `listing_error`
    says why executions could not be listed. Raises ValueError when both are missing."""
    if lane.policy.paused:
        return _hold(lane, reading, now, HoldCause.PAUSED, "the lane is paused: set fanout/paused to false and apply to resume")
    match reading:
        case Unknown():
            return _hold(lane, reading, now, HoldCause.READING_UNKNOWN, f"the backlog is unknown: {reading.reason}")
        case Idle():
            return _nothing(lane, reading, now, None, "idle: there is no series for the subscription")
        case Value() if reading.undelivered_count == 0 and not accepted_since_sample_count:
            return _nothing(lane, reading, now, None, "the backlog is 0")
        case Value():
            pass
    if listing_error:
        return _hold(lane, reading, now, HoldCause.LISTING_FAILED, f"what runs already is unknown: {listing_error}")
    if ledger is None:
        raise ValueError(f"lane {lane.name}: a backlog above 0 cannot be decided without a ledger")
    return _sized(lane, reading, ledger, now, seconds_per_message, accepted_since_sample_count)


def _sized(lane: Lane, reading: Value, ledger: Ledger, now: float, seconds_each: float | None, accepted_count: int) -> Decision:
    unassigned = max(0, reading.undelivered_count + accepted_count - ledger.total_count)
    if unassigned == 0:
        return _nothing(lane, reading, now, ledger, f"all {reading.undelivered_count + accepted_count} messages are assigned already")
    share = lane.policy.share
    wanted = ceil(unassigned / share)
    workers, caps = capped(wanted, lane, unassigned, ledger.live_worker_count)
    if workers == 0:
        alive = f"{ledger.live_worker_count} workers are alive and the lane's limit is {lane.policy.max_workers}"
        return _nothing(lane, reading, now, ledger, f"{unassigned} messages wait, but {alive}")
    backlog = min(unassigned, workers * share)
    drain_s = None if seconds_each is None else ceil(backlog / workers) * seconds_each / lane.concurrency
    return Decision(
        lane=lane.name,
        kind=Kind.LAUNCH,
        reason=f"{workers} workers for {backlog} of {unassigned} unassigned messages",
        decided_at=now,
        reading=reading,
        ledger=ledger,
        accepted_count=accepted_count,
        unassigned_count=unassigned,
        formula=f"ceil({unassigned} unassigned / {share} a worker) = {wanted}",
        wanted_workers=wanted,
        caps=caps,
        workers=workers,
        backlog=backlog,
        seconds_per_message=seconds_each,
        predicted_drain_s=drain_s,
        predicted_cost_usd=None if drain_s is None else cost_usd(lane, workers, drain_s),
    )


def capped(wanted: int, lane: Lane, unassigned: int, live_worker_count: int) -> tuple[int, tuple[Cap, ...]]:
    """The workers to launch, and each bound with the number before and after it. A bound that lowers comes after those that raise."""
    policy = lane.policy
    room = max(0, policy.max_workers - live_worker_count)
    caps: list[Cap] = []
    workers = wanted
    for name, limit, lowers in (("min-workers", policy.min_workers, False), ("messages", unassigned, True), ("max-workers", room, True)):
        after = min(workers, limit) if lowers else max(workers, limit)
        caps.append(Cap(name, limit, workers, after))
        workers = after
    return workers, tuple(caps)


def cost_usd(lane: Lane, workers: int, seconds: float) -> float:
    """What the workers cost at list price when each is busy for `seconds`; start-up time is not in it."""
    price = lane.vcpu * VCPU_SECOND_USD + lane.memory_gib * GIB_SECOND_USD
    return workers * price * max(BILLING_FLOOR_S, seconds)


def _hold(lane: Lane, reading: Reading, now: float, cause: HoldCause, reason: str) -> Decision:
    return Decision(lane=lane.name, kind=Kind.HOLD, reason=reason, decided_at=now, reading=reading, hold_cause=cause)


def _nothing(lane: Lane, reading: Reading, now: float, ledger: Ledger | None, reason: str) -> Decision:
    unassigned = max(0, reading.undelivered_count - ledger.total_count) if isinstance(reading, Value) and ledger else 0
    return Decision(
        lane=lane.name,
        kind=Kind.NOTHING_TO_DO,
        reason=reason,
        decided_at=now,
        reading=reading,
        ledger=ledger,
        unassigned_count=unassigned,
    )
