"""Handlers that are past their time. A thread with one that is past its time limit cannot be stopped: it is given up, and another takes
its place.

What its handler still returns is ignored. An object that it still writes is written once, as always.
"""

from __future__ import annotations

from batch.handling.answer import Answer, Said, overdue
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


def does_not_fit(task_timeout_s: float, ran_s: float) -> Answer:
    """The failed attempt of a task that ran as long as its worker could wait for it: another worker would have no more time."""
    reason = (
        f"does not fit into TASK_TIMEOUT_S={task_timeout_s:g}: it had run for {ran_s:.1f} s when its worker had to end; raise the lane's"
        " timeout, or split the task"
    )
    return Answer(Said.FAILED, error_type="TimeoutError", reason=reason)


def timed_out(attempt: Attempt, stack: str) -> Answer:
    """The failed attempt that goes on record."""
    return overdue(attempt.handler.timeout_s or 0.0, Kind.THREAD, stack)
