"""When unassigned messages wait, although workers could be launched: a worker's minute is paid for whether it is filled or not. Pure.

They wait while one worker does all of them in time, with those that may come until the next tick; while they are fewer than
`fanout/min-backlog`; and in a delayed lane while an execution has yet to start, which may be in hours. `fanout/max-wait` bounds each of
these, counted from when the first of them came. A lane asks anew at each tick: one that waited too long can still be given as many
workers as its messages need.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from controller.decide.sizing import Rates, WorkerCost, drain_s, share_of, worker_cost
from controller.model.lane import Lane
from controller.model.reading import SAMPLED_EVERY_S
from controller.model.wording import spoken, told_at

TICK_EVERY_S = 60.0
"""When the next scheduled tick comes after this one, unless a setting says otherwise; those by poke do not count."""
LEAST_MARGIN_S = 15.0
MARGIN_PART = 0.05
"""What is kept of `fanout/drain-within` when a lane waits: rates are learned, not known."""
NEARLY_NOTHING = 0.02
"""A part of a worker's cost that is not worth waiting for."""


@dataclass(frozen=True, slots=True)
class Unassigned:
    """`count` messages, 1 or more, the first of which came at `since`, that were known at `seen_at` (both Unix seconds)."""

    count: int
    since: float
    seen_at: float

    def expected_count(self, after_s: float) -> int:
        """How many are known `after_s` seconds later, if they go on coming as they came. A launch then is for so many; what the gauge does
        not show by then came later, is due later, and is launched for later."""
        came_in_s = max(SAMPLED_EVERY_S, self.seen_at - self.since)
        return self.count + ceil(self.count / came_in_s * after_s)


@dataclass(frozen=True, slots=True)
class Waiting:
    """Messages wait until `until` (Unix seconds) at the latest. `reason` goes on after "20 messages wait"; `figures` are what it was
    decided from."""

    until: float
    reason: str
    figures: str


def waiting_of(
    lane: Lane, messages: Unassigned, rates: Rates | None, *, now: float, awaits_start: bool = False, tick_every_s: float = TICK_EVERY_S
) -> Waiting | None:
    """Why and until when nothing is launched for these messages at `now` (Unix seconds); None if it is time to. `awaits_start`: an
    execution of the lane has started no worker yet. What is over before the next tick is over now."""
    next_at = now + tick_every_s
    over_at = messages.since + longest_wait_s(lane)
    if over_at < next_at:
        return None
    first = f"the first came at {told_at(messages.since, now)}, and {_max_wait(lane)} is over at {told_at(over_at, now)}"
    if messages.count < lane.policy.min_backlog:
        return Waiting(over_at, f"to be {lane.policy.min_backlog} (fanout/min-backlog), {_latest(over_at, now)}", first)
    started_by = messages.since + beside_start_s(lane) / 2
    if awaits_start and lane.is_delayed and next_at <= (until := min(over_at, started_by)):
        return Waiting(until, f"for the delayed execution that was launched before them to start, {_latest(until, now)}", first)
    if rates is None or not lane.policy.strategy.sizes_by_work:
        return None
    worker, expected_count = worker_cost(lane), messages.expected_count(tick_every_s)
    busy_s, drain_by = drain_s(expected_count, 1, rates, worker), messages.since + drain_within_s(lane)
    until = min(over_at, drain_by - margin_s(lane) - busy_s)
    if until < next_at or expected_count > share_of(lane, rates) or _costs_no_more(messages.count, rates, worker):
        return None
    does = f"by the next tick they may be {expected_count}, and one worker does so many in {spoken(busy_s)}"
    spare = f"one worker, in time with {spoken(drain_by - until - busy_s)} to spare"
    return Waiting(until, f"{_latest(until, now)}: {spare}", f"{does}; {first}; fanout/drain-within is over at {told_at(drain_by, now)}")


def longest_wait_s(lane: Lane) -> float:
    """`fanout/max-wait`, or half of the time that there is to drain in."""
    return drain_within_s(lane) / 2 if lane.policy.max_wait_s is None else lane.policy.max_wait_s


def drain_within_s(lane: Lane) -> float:
    """Seconds to drain in: `fanout/drain-within`, of a delayed lane what that leaves beside the longest start, if anything."""
    return beside_start_s(lane) or lane.policy.drain_within_s


def beside_start_s(lane: Lane) -> float:
    """What `fanout/drain-within` leaves beside the delay of a start."""
    return max(0.0, lane.policy.drain_within_s - (lane.start_within_s if lane.is_delayed else 0.0))


def margin_s(lane: Lane) -> float:
    """How long before the end of `fanout/drain-within` the one worker of a lane that waited is done."""
    return max(LEAST_MARGIN_S, MARGIN_PART * lane.policy.drain_within_s)


def _costs_no_more(count: int, rates: Rates, worker: WorkerCost) -> bool:
    """Whether one worker for these alone is paid for next to nothing but its work."""
    beside_s = rates.start_up_s + rates.idle_tail_s
    paid_s = beside_s + count * rates.message_s / worker.concurrency
    return paid_s >= worker.floor_s and beside_s <= NEARLY_NOTHING * paid_s


def _latest(until: float, now: float) -> str:
    return f"until {told_at(until, now)} at the latest ({spoken(until - now)} more)"


def _max_wait(lane: Lane) -> str:
    return "fanout/max-wait" if lane.policy.max_wait_s is not None else "fanout/max-wait (half of drain-within)"
