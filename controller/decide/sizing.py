"""How many workers drain a backlog in time for the least money. Pure: numbers in, numbers out.

With B messages of m seconds, c threads a worker, start-up s, idle tail e, billing floor F and price p a worker-second, and u seconds in
which some threads of a worker are done and others are not, for messages are not equally long:

    drain(N) = s + ceil(ceil(B / N) / c) * m + u            the slowest worker, from the launch on
    cost(N)  = N * p * max(F, s + e + B * m / (c * N) + u)

Cost never falls as N grows: below the floor each further worker adds its start-up and tail, above it a whole minute. So the
cheapest N that is in time is the smallest one that is; more workers are free only while s, e and u are 0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, floor

from batch.prices import WORKER_FLOOR_S, worker_usd_per_s
from controller.model.lane import Lane

TIMEOUT_PART = 0.8
"""How much of a task timeout a worker's share is planned to fill: rates are learned, not known."""
_EPSILON = 1e-9
_WITHOUT_END = 10**9


@dataclass(frozen=True, slots=True)
class Rates:
    """Seconds that one message and one worker take: `message_s` of a thread, `start_up_s` from launch to first pull, `idle_tail_s` from
    the last acknowledgement to the end. They are cautious: most of what was seen took no longer. `quick_message_s`, for limits on what the
    messages reach, is cautious the other way: most took no less. `uneven_s`: how much longer a worker takes than an even split of its
    messages over its threads would. `basis` says where they come from."""

    message_s: float
    start_up_s: float = 0.0
    idle_tail_s: float = 0.0
    quick_message_s: float | None = None
    basis: str = ""
    uneven_s: float = 0.0


@dataclass(frozen=True, slots=True)
class WorkerCost:
    """A worker runs `concurrency` tasks at a time for `usd_per_s`; it is billed for `floor_s` at least."""

    concurrency: int
    usd_per_s: float
    floor_s: float = WORKER_FLOOR_S

    def usd(self, seconds: float) -> float:
        """Dollars that one worker costs for `seconds`."""
        return self.usd_per_s * max(self.floor_s, seconds)


def worker_cost(lane: Lane) -> WorkerCost:
    """What a worker of the lane costs, and does at a time."""
    return WorkerCost(lane.concurrency, worker_usd_per_s(lane.vcpu, lane.memory_gib, lane.price_percent))


def drain_s(backlog: int, workers: int, rates: Rates, worker: WorkerCost) -> float:
    """Seconds from the launch until the last message is done."""
    rounds = ceil(ceil(backlog / workers) / worker.concurrency)
    return rates.start_up_s + rounds * rates.message_s + rates.uneven_s


def cost_usd(backlog: int, workers: int, rates: Rates, worker: WorkerCost) -> float:
    """Dollars that all workers together cost."""
    work_s = backlog * rates.message_s / worker.concurrency
    return workers * worker.usd(rates.start_up_s + rates.idle_tail_s + work_s / workers + rates.uneven_s)


def rounds_within(within_s: float, rates: Rates) -> int:
    """Messages that one thread processes within `within_s` seconds of the launch, one after the other. Half of the time after the start at
    least is for them: no number of workers makes the longest message shorter."""
    left_s = within_s - rates.start_up_s
    if left_s < 0:
        return 0
    left_s -= min(rates.uneven_s, left_s / 2)
    return floor(left_s / rates.message_s + _EPSILON) if rates.message_s > 0 else _WITHOUT_END


def planned_rounds(within_s: float, rates: Rates) -> int:
    """Messages that one thread is planned to process. If not even one is in time, start-up is left out: it cannot be shortened. If the
    work alone does not fit either, one message a thread is the fastest there is."""
    return rounds_within(within_s, rates) or max(1, rounds_within(within_s + rates.start_up_s, rates))


def workers_in_time(backlog: int, within_s: float, rates: Rates, worker: WorkerCost) -> int:
    """The fewest workers, without any cap, that drain `backlog` (1 or more) within `within_s`, or come near it if it cannot be done."""
    return ceil(backlog / (planned_rounds(within_s, rates) * worker.concurrency))


def cheapest(backlog: int, within_s: float, rates: Rates, worker: WorkerCost, least: int, most: int) -> int:
    """The cheapest number of workers from `least` to `most` that is in time, the largest one at equal cost."""
    wanted = min(max(workers_in_time(backlog, within_s, rates, worker), least), most)
    if rates.start_up_s + rates.idle_tail_s + rates.uneven_s > 0 or worker.floor_s <= 0:
        return wanted
    free = floor(backlog * rates.message_s / (worker.concurrency * worker.floor_s) + _EPSILON)
    return max(wanted, min(free, most))


def most_in_timeout(task_timeout_s: float, rates: Rates, worker: WorkerCost) -> int:
    """The most messages that fit into a worker's task timeout, which counts from its start: the rest would be nacked, and paid for twice.
    At least one for each thread: fewer would not end sooner."""
    return max(1, rounds_within(task_timeout_s * TIMEOUT_PART, replace(rates, start_up_s=0.0))) * worker.concurrency


def share_of(lane: Lane, rates: Rates | None) -> int:
    """The most messages that one worker is assigned: what fits into the timeout, `first_share` while that is not known, and never more
    than `max_messages`."""
    if rates is None:
        return lane.policy.unlearned_share
    most = most_in_timeout(lane.task_timeout_s, rates, worker_cost(lane))
    return most if lane.policy.max_messages is None else min(lane.policy.max_messages, most)
