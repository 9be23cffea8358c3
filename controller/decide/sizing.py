"""How many workers drain a backlog in time for the least money. Pure: numbers in, numbers out.

With B messages of m seconds in c slots a worker, start-up s, idle tail e, billing floor F and price p a worker-second:

    drain(N) = s + ceil(ceil(B / N) / c) * m            the slowest worker, from the launch on
    cost(N)  = N * p * max(F, s + e + B * m / (c * N))

Cost never falls as N grows: below the floor each further worker adds its start-up and tail, above it a whole minute. So the
cheapest N that is in time is the smallest that is; more are free only while start-up and tail are nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor

from controller.model.lane import Lane

TIMEOUT_PART = 0.8
"""How much of a task timeout a worker's share may fill by plan: rates are learned, not known."""
_EPSILON = 1e-9
_WITHOUT_END = 10**9


@dataclass(frozen=True, slots=True)
class Rates:
    """What one message and one worker take, in seconds: `message_s` in a slot, `start_up_s` from launch to first pull, `idle_tail_s`
    from the last acknowledgement to the end. They are cautious: most of what was seen took no longer. `quick_message_s` is as cautious
    towards what the messages reach: most took no less. `basis` says where they come from."""

    message_s: float
    start_up_s: float = 0.0
    idle_tail_s: float = 0.0
    quick_message_s: float | None = None
    basis: str = ""


@dataclass(frozen=True, slots=True)
class WorkerCost:
    """`slots` tasks at a time for `usd_per_s`; no worker is billed for less than `floor_s`."""

    slots: int
    usd_per_s: float
    floor_s: float = 60.0


def drain_s(backlog: int, workers: int, rates: Rates, worker: WorkerCost) -> float:
    """Seconds from the launch until the last message is done."""
    rounds = ceil(ceil(backlog / workers) / worker.slots)
    return rates.start_up_s + rounds * rates.message_s


def cost_usd(backlog: int, workers: int, rates: Rates, worker: WorkerCost) -> float:
    """Dollars that all workers together cost."""
    work_s = backlog * rates.message_s / worker.slots
    return workers * worker.usd_per_s * max(worker.floor_s, rates.start_up_s + rates.idle_tail_s + work_s / workers)


def rounds_within(within_s: float, rates: Rates) -> int:
    """How many messages one after the other a slot does within `within_s` of the launch; 0 when none."""
    left_s = within_s - rates.start_up_s
    if left_s < 0:
        return 0
    return floor(left_s / rates.message_s + _EPSILON) if rates.message_s > 0 else _WITHOUT_END


def planned_rounds(within_s: float, rates: Rates) -> int:
    """Messages a slot is planned to do. Where not even one is in time, start-up is what cannot be helped: the work alone is to fit, and
    where it does not, one message a slot is the fastest there is."""
    return rounds_within(within_s, rates) or max(1, rounds_within(within_s + rates.start_up_s, rates))


def workers_in_time(backlog: int, within_s: float, rates: Rates, worker: WorkerCost) -> int:
    """The fewest workers, without any bound, that drain `backlog` (1 or more) within `within_s`, or come near it when none can."""
    return ceil(backlog / (planned_rounds(within_s, rates) * worker.slots))


def cheapest(backlog: int, within_s: float, rates: Rates, worker: WorkerCost, least: int, most: int) -> int:
    """The cheapest number of workers from `least` to `most` that is in time, the larger one at equal cost."""
    wanted = min(max(workers_in_time(backlog, within_s, rates, worker), least), most)
    if rates.start_up_s + rates.idle_tail_s > 0 or worker.floor_s <= 0:
        return wanted
    free = floor(backlog * rates.message_s / (worker.slots * worker.floor_s) + _EPSILON)
    return max(wanted, min(free, most))


def most_in_timeout(task_timeout_s: float, rates: Rates, worker: WorkerCost) -> int:
    """The most messages that a worker can be given so that they fit into its task timeout; one for each slot at least: fewer would not
    end sooner."""
    return max(1, rounds_within(task_timeout_s * TIMEOUT_PART, rates)) * worker.slots


def workers_for_timeout(backlog: int, task_timeout_s: float, rates: Rates, worker: WorkerCost) -> int:
    """The fewest workers whose shares fit into the task timeout; a share that does not fit would be handed back and paid for twice."""
    return ceil(backlog / most_in_timeout(task_timeout_s, rates, worker))


VCPU_SECOND_USD = 0.000018
GIB_SECOND_USD = 0.000002
"""List prices of Cloud Run Jobs in tier 1 regions."""
BILLING_FLOOR_S = 60.0
"""The least time that a worker is billed for."""


def worker_cost(lane: Lane) -> WorkerCost:
    """What a worker of the lane costs and does at a time."""
    return WorkerCost(lane.concurrency, lane.vcpu * VCPU_SECOND_USD + lane.memory_gib * GIB_SECOND_USD, BILLING_FLOOR_S)


def worker_usd(lane: Lane, seconds: float) -> float:
    """What one worker costs that was there for so long."""
    worker = worker_cost(lane)
    return worker.usd_per_s * max(worker.floor_s, seconds)
