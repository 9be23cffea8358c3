"""List prices of Google Cloud in US dollars, as of one date: regions of tier 1, without free parts and discounts."""

from __future__ import annotations

DATE = "2026-08-31"
SOURCE = "cloud.google.com/run/pricing (jobs), cloud.google.com/pubsub/pricing, cloud.google.com/storage/pricing (Standard, one region)"

VCPU_SECOND_USD = 0.000018
GIB_SECOND_USD = 0.000002
WORKER_FLOOR_S = 60.0
"""Minimum time that a worker is billed for."""
MESSAGE_BYTE_USD = 40.0 / 2**40
"""Of a message that is published, and again of one that is delivered."""
WRITE_USD = 0.005 / 1000
"""An operation of class A: one that writes an object, changes its metadata or lists 1,000."""


LIST_PERCENT = 100.0
"""What is paid of the list price. No list has a price for workers of delayed jobs: who knows what they are billed says so."""


def worker_usd_per_s(vcpu: float, memory_gib: float, percent: float = LIST_PERCENT) -> float:
    """What a worker of this size costs while it is there, at `percent` of the list price."""
    return (vcpu * VCPU_SECOND_USD + memory_gib * GIB_SECOND_USD) * percent / LIST_PERCENT
