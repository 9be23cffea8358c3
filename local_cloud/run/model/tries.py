"""The finished tries of the tasks: how each ended, and what CPU time and memory its worker used.

Measured by the kernel for the worker and those of its children that it waited for; never estimated.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Measured:
    """`cpu_s`: user and system time. `peak_memory_bytes`: resident memory of the largest process; None where it was not seen."""

    cpu_s: float
    peak_memory_bytes: int | None


@dataclass(frozen=True)
class Try:
    """Times are Unix seconds; `start_s` and `measured` are None for a try that never had a process. `retry` counts from 0."""

    retry: int
    start_s: float | None
    end_s: float
    exit_code: int | None
    term_signal: int | None
    measured: Measured | None
