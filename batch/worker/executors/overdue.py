"""Handlers in threads that are past their time limit. A thread cannot be stopped: it is given up, and another takes its place.

What its handler still returns is ignored. An object that it still writes is written once, as always.
"""

from __future__ import annotations

from batch.handling.answer import Answer, overdue
from batch.handling.registry import Kind
from batch.worker.attempt import Attempt

LEAST_LOST = 4


class Overtaken(BaseException):
    """Ends a thread whose handler came back after it was given up. Not an Exception: nothing on the way may take it for its own."""


class HandlersHang(Exception):
    """As many handlers hang as a worker can bear."""


def is_overdue(attempt: Attempt, now_s: float) -> bool:
    """Whether it is past its own limit: an attempt that the worker's end cuts short has not failed."""
    return attempt.handler.timeout_s is not None and now_s >= attempt.began_s + attempt.handler.timeout_s


def most_lost(threads: int) -> int:
    """How many threads may hang at a time: each keeps its memory, and whatever it has locked."""
    return max(LEAST_LOST, threads)


def too_many(lost_count: int, last: Attempt) -> HandlersHang:
    return HandlersHang(
        f"{lost_count} handlers have not come back from beyond their time limits, the last of task type {last.task.task_type!r} (timeout_s="
        f"{last.handler.timeout_s:g}); the stacks stand in handler_timed_out; mend what they wait for, or isolate them"
        ' (isolation="process"), which ends them in time'
    )


def timed_out(attempt: Attempt, stack: str) -> Answer:
    """The failed attempt that goes on record."""
    return overdue(attempt.handler.timeout_s or 0.0, Kind.THREAD, stack)
