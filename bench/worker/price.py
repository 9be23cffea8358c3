"""What Cloud Run charges for the time of a worker: list price of jobs in us-central1 (tier 1), without the free part."""

from __future__ import annotations

from batch.prices import worker_usd_per_s

VCPUS = 1
GIB = 0.5
"""The smallest worker of the manifests, and more memory than a worker needs."""


def dollars_per_million(seconds_per_task: float) -> float:
    """For a million tasks when a worker of 1 vCPU and 512 MiB is there for so long for each."""
    return seconds_per_task * 1e6 * worker_usd_per_s(VCPUS, GIB)
