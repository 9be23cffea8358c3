"""How many workers to launch: a pure function of the reading, the ledger and the lane's policy. Unknown is never zero.

The size is the unassigned backlog over the share of a worker. Sizing by cost comes in at the same place.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil

from controller.backlog import Idle, Reading, Unknown, Value
from controller.broken import Broken
from controller.decision import Cap, Decision, HoldCause, Kind
from controller.lanes import Lane
from controller.ledger import Ledger
from controller.wording import are, counted

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
    broken: Broken | None = None,
) -> Decision:
    """The decision for one lane. `ledger` is needed where the reading is a value above 0 and the listing succeeded; `listing_error`
    says why executions could not be listed; `broken` that the newest ones came to nothing. Raises ValueError when ledger and error are
    both missing."""
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
    known_count = reading.undelivered_count + accepted_since_sample_count
    unassigned = max(0, known_count - ledger.total_count)
    if unassigned == 0:
        waiting = "the only message is" if known_count == 1 else f"all {known_count} messages are"
        return _nothing(lane, reading, now, ledger, f"{waiting} assigned already")
    held = broken.hold_reason(lane.name, now) if broken is not None else ""
    if held:
        return replace(_hold(lane, reading, now, HoldCause.BROKEN, held), ledger=ledger, unassigned_count=unassigned)
    decision = _sized(lane, reading, ledger, now, seconds_per_message, unassigned, tries_only=broken is not None)
    return replace(decision, accepted_count=accepted_since_sample_count)


def _sized(
    lane: Lane, reading: Value, ledger: Ledger, now: float, seconds_each: float | None, unassigned: int, *, tries_only: bool
) -> Decision:
    share = lane.policy.share
    wanted = ceil(unassigned / share)
    workers, caps = capped(wanted, lane, unassigned, ledger.live_worker_count, tries_only=tries_only)
    if workers == 0:
        live_count = ledger.live_worker_count
        alive = f"{counted(live_count, 'worker')} {are(live_count)} alive and the lane's limit is {lane.policy.max_workers}"
        waiting = "1 message waits" if unassigned == 1 else f"{unassigned} messages wait"
        return _nothing(lane, reading, now, ledger, f"{waiting}, but {alive}")
    backlog = min(unassigned, workers * share)
    drain_s = None if seconds_each is None else ceil(backlog / workers) * seconds_each / lane.concurrency
    aim = " to try whether the broken lane works again" if tries_only else ""
    return Decision(
        lane=lane.name,
        kind=Kind.LAUNCH,
        reason=f"{counted(workers, 'worker')} for {backlog} of {counted(unassigned, 'unassigned message')}{aim}",
        decided_at=now,
        reading=reading,
        ledger=ledger,
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


def capped(wanted: int, lane: Lane, unassigned: int, live_worker_count: int, *, tries_only: bool = False) -> tuple[int, tuple[Cap, ...]]:
    """The workers to launch, and each bound with the number before and after it. A bound that lowers comes after those that raise. With
    `tries_only` one worker is enough."""
    policy = lane.policy
    room = max(0, policy.max_workers - live_worker_count)
    bounds = [("min-workers", policy.min_workers, False), ("messages", unassigned, True), ("max-workers", room, True)]
    bounds += [("broken", 1, True)] if tries_only else []
    caps: list[Cap] = []
    workers = wanted
    for name, limit, lowers in bounds:
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
