"""Strategies: how many workers a lane wants before any cap. Pure: numbers in, a number and its formula out.

`deadline` takes the cheapest number that drains in time, `share` one worker for each share, `fixed` always the same number. The three
of KEDA's ScaledJob are for those who migrate from it: they see the whole reading and what runs, and no ledger.
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
    """What a strategy sizes. `known_count` messages are the reading and what was accepted since, `unassigned_count` what the ledger leaves
    of them; `live_workers` run or have yet to start, `pending_workers` of them have yet to; `within_s` seconds are left to drain in, though
    more may be over: the first message came `waited_s` ago; `rates` is None while nothing is learned."""

    policy: Policy
    known_count: int
    unassigned_count: int
    live_workers: int
    pending_workers: int
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
        case _:
            return _keda(demand)


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
    return f"{left} (half of drain-within: these messages have waited {brief(demand.waited_s)} of its {brief(whole_s)})"


def _unlearned(demand: Demand) -> Wanted:
    """By share, or by an assumed time for a message if that needs more workers: a share of slow messages would keep the first worker
    busy far too long, and one more worker is cheap beside that."""
    by_share, threads, count = _share(demand), demand.worker.concurrency, demand.unassigned_count
    guess = Rates(GUESS_S)
    workers = workers_in_time(count, demand.within_s, guess, demand.worker) if count else 0
    unknown = "nothing is learned yet of how long a message takes, so"
    if workers <= by_share.workers:
        return Wanted(by_share.workers, f"{unknown} by share: {by_share.formula}")
    rounds = planned_rounds(demand.within_s, guess)
    each = f"{brief(GUESS_S)} each are assumed, {rounds} for a thread in the {_left(demand)}"
    return Wanted(workers, f"{unknown} {each}; ceil({count} / ({counted(threads, 'thread')} x {rounds})) = {workers}")


def _share(demand: Demand) -> Wanted:
    workers = ceil(demand.unassigned_count / demand.policy.share)
    return Wanted(workers, f"ceil({demand.unassigned_count} unassigned / {demand.policy.share} a worker) = {workers}")


def _fixed(demand: Demand) -> Wanted:
    workers = max(0, demand.policy.fixed_workers - demand.live_workers)
    return Wanted(workers, f"{demand.policy.fixed_workers} at a time - {demand.live_workers} alive = {workers}")


def _keda(demand: Demand) -> Wanted:
    """`getEffectiveMaxScale` of KEDA's executors, with a worker for a job and the share for the target value. While fewer than the minimum
    run, it launches up to the minimum and looks at nothing else."""
    policy = demand.policy
    least = min(policy.min_workers, policy.max_workers)
    running, pending, most = demand.live_workers - least, demand.pending_workers, policy.max_workers - least
    if running < 0:
        return Wanted(-running, f"min-workers {least} - {demand.live_workers} alive = {-running}")
    queue = demand.known_count
    scale = ceil(min(queue / policy.share, most))
    up_to = queue
    if policy.strategy is Strategy.KEDA_DEFAULT:
        effective, text = scale - running, f"{scale} - {running} running"
    elif policy.strategy is Strategy.KEDA_EAGER:
        effective, text, up_to = min(most - running - pending, scale), f"min({most} - {running} running - {pending} pending, {scale})", most
    elif scale + running - pending > most:
        effective, text = most - running, f"{most} - {running} running"
    else:
        effective, text = scale - pending, f"{scale} - {pending} pending"
    workers = max(0, min(up_to, effective)) if queue else 0
    return Wanted(workers, f"min(ceil({queue} / {policy.share}), {most}) = {scale}; {text} = {effective}, at most {up_to}: {workers}")
