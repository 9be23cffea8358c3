"""What Cloud Run charges for the time of a worker: list price of jobs in us-central1 (tier 1), without the free part."""

from __future__ import annotations

VCPU_SECOND = 0.000018
GIB_SECOND = 0.000002
VCPUS = 1
GIB = 0.5
"""The smallest worker of the manifests, and more memory than a worker needs."""


def dollars_per_million(seconds_per_task: float) -> float:
    """For a million tasks when a worker of 1 vCPU and 512 MiB is there for so long for each."""
    return seconds_per_task * 1e6 * (VCPUS * VCPU_SECOND + GIB * GIB_SECOND)
