"""Strategies: how many workers a lane wants before any cap. Pure: numbers in, a number and its formula out.

`deadline` takes the cheapest number that drains in time, `share` one worker for each share (`fanout/max-messages`, or
`fanout/first-share` where that is not set), `fixed` always the same number.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from controller.decide.sizing import Rates, WorkerCost, cheapest, planned_rounds, workers_in_time
from controller.model.lane import Policy, Strategy
from controller.model.wording import brief, counted

_EPSILON = 1e-6
GUESS_S = 10.0
"""Seconds of a thread that a message is assumed to take while nothing is learned: rather too long, once."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What a strategy sizes: `unassigned_count` messages beside `live_workers` that run or have yet to start. `within_s` seconds are left
    to drain in, though more may be over: the first message came `waited_s` ago; `rates` is None while nothing is learned."""

    policy: Policy
    unassigned_count: int
    live_workers: int
    within_s: float
    rates: Rates | None
    worker: WorkerCost
    waited_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """A number of workers, 0 or more, and the formula with its numbers."""

    workers: int
    formula: str


def wanted(demand: Demand) -> Wanted:
    """The workers that the policy's strategy launches now, before any cap."""
    match demand.policy.strategy:
        case Strategy.DEADLINE:
            return _deadline(demand)
        case Strategy.SHARE:
            return _share(demand)
        case Strategy.FIXED:
            return _fixed(demand)


def _deadline(demand: Demand) -> Wanted:
    rates, threads, count = demand.rates, demand.worker.concurrency, demand.unassigned_count
    if rates is None:
        return _unlearned(demand)
    rounds = planned_rounds(demand.within_s, rates)
    least = workers_in_time(count, demand.within_s, rates, demand.worker)
    workers = cheapest(count, demand.within_s, rates, demand.worker, 1, max(least, count))
    each = f"a thread does {counted(rounds, 'message')} of {brief(rates.message_s)} in the {_left(demand)}"
    start = f" after {brief(rates.start_up_s)} of start-up" if rates.start_up_s else ""
    start += f", {brief(rates.uneven_s)} kept for the longest" if rates.uneven_s else ""
    formula = f"{each}{start}; ceil({count} / ({counted(threads, 'thread')} x {rounds})) = {least}"
    return Wanted(workers, formula if workers == least else f"{formula}, and {workers} cost no more")


def _left(demand: Demand) -> str:
    left, whole_s = f"{brief(demand.within_s)} left", demand.policy.drain_within_s
    if demand.within_s + demand.waited_s <= whole_s + _EPSILON:
        return left
    how = "half of drain-within" if demand.within_s <= whole_s / 2 + _EPSILON else "what a worker needs"
    return f"{left} ({how}: these messages have waited {brief(demand.waited_s)} of its {brief(whole_s)})"


def _unlearned(demand: Demand) -> Wanted:
    """By share, or by an assumed time for a message if that needs more workers: a share of slow messages would keep the first worker
    busy far too long, and one more worker is cheap beside that."""
    by_share, threads, count = _by(demand.policy.unlearned_share, demand), demand.worker.concurrency, demand.unassigned_count
    guess = Rates(GUESS_S)
    workers = workers_in_time(count, demand.within_s, guess, demand.worker) if count else 0
    unknown = "nothing is learned yet of how long a message takes, so"
    if workers <= by_share.workers:
        return Wanted(by_share.workers, f"{unknown} by share: {by_share.formula}")
    rounds = planned_rounds(demand.within_s, guess)
    each = f"{brief(GUESS_S)} each are assumed, {rounds} for a thread in the {_left(demand)}"
    return Wanted(workers, f"{unknown} {each}; ceil({count} / ({counted(threads, 'thread')} x {rounds})) = {workers}")


def _share(demand: Demand) -> Wanted:
    return _by(demand.policy.max_messages or demand.policy.first_share, demand)


def _by(share: int, demand: Demand) -> Wanted:
    workers = ceil(demand.unassigned_count / share)
    return Wanted(workers, f"ceil({demand.unassigned_count} unassigned / {share} a worker) = {workers}")


def _fixed(demand: Demand) -> Wanted:
    workers = max(0, demand.policy.fixed_workers - demand.live_workers)
    return Wanted(workers, f"{demand.policy.fixed_workers} at a time - {demand.live_workers} alive = {workers}")
