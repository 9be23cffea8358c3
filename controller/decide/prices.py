"""What a worker costs, at list price."""

from __future__ import annotations

from controller.decide.sizing import WorkerCost
from controller.lanes.lanes import Lane

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
