"""How one run of a handler ended, as plain values: a bad task never stops a worker, and a child process can send it over a pipe.

Here is also the one place where user code is called, so that sync, async, grouped and isolated handlers are judged alike.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextvars import Context, copy_context
from dataclasses import dataclass
from enum import StrEnum
from types import CoroutineType
from typing import Any

from batch.logs import running
from batch.model.errors import DependencyError, MessageRefused, NameRefused, Permanent, Retry, Snooze, Superseded, text_of
from batch.model.texts import class_name, traceback_text

MAX_TRACEBACK_CHARS = 4000


class Said(StrEnum):
    """What a handler can say; the first four are its own words."""

    RETURNED = "returned"
    SUPERSEDED = "superseded"
    SNOOZED = "snoozed"
    PERMANENT = "permanent"
    INVALID = "invalid"
    """It raised NameRefused or MessageRefused."""
    FAILED = "failed"
    """It raised, asked for a retry, or ran out of its time."""
    DEPENDENCY = "dependency"
    """A service failed under it: no attempt is spent."""
    CRASHED = "crashed"
    """The process that ran it ended."""


_RETURNED = Said.RETURNED  # looked up for each task


@dataclass(slots=True)
class Answer:
    """`result` only of RETURNED; `output` is the object it wrote last; `after_s` of SNOOZED, and of FAILED when it asked for a wait."""

    said: Said
    result: Any = None
    output: str = ""
    error_type: str = ""
    reason: str = ""
    after_s: float | None = None
    traceback: str = ""


def called(function: Callable[..., Any], *arguments: Any) -> Answer:
    """Call user code here and now, in a context of its own; the last argument says whose it is. Never raises."""
    forks = _forks.count
    context = _clean.context.copy()
    context.run(running.set, arguments[-1])
    try:
        result = context.run(function, *arguments)
        if isinstance(result, CoroutineType):
            result = context.run(asyncio.run, result)
        answer = Answer(_RETURNED, result)
    except BaseException as error:  # noqa: BLE001 - whatever user code raises is this task's failure, not the worker's
        answer = raised(error)
    if _forks.count != forks:
        os._exit(1)  # a copy that the handler has forked came back from it: it would go on as a second worker on the same connections
    return answer


class _Clean:
    """What each task's context variables are when it begins: as they were when the modules of handlers had been imported. So a task finds
    none that another one has set, and all that a module has."""

    context = Context()


_clean = _Clean()


def tasks_begin_as_now() -> None:
    """From now on each task begins with the context variables that are set here."""
    _clean.context = copy_context()


def clean_context() -> Context:
    """For one task."""
    return _clean.context.copy()


class _Forks:
    """How often this process is a copy of another: asked for each task, so not by a call to the system."""

    count = 0

    def forked(self) -> None:
        self.count += 1


_forks = _Forks()
os.register_at_fork(after_in_child=_forks.forked)


async def awaited(function: Callable[..., Any], *arguments: Any) -> Answer:
    """As `called`, for an async function on a running event loop, by a task in a `clean_context`."""
    running.set(arguments[-1])
    try:
        return Answer(Said.RETURNED, await function(*arguments))
    except BaseException as error:  # noqa: BLE001 - as above; CancelledError too: the caller knows whether it was its own doing
        return raised(error)


def overdue(timeout_s: float | None) -> Answer:
    """The answer of a run that had not ended when its time was over."""
    limit = "its worker's end" if timeout_s is None else f"its timeout_s of {timeout_s:g} s"
    return Answer(Said.FAILED, error_type="TimeoutError", reason=f"the handler was still running after {limit} and was cancelled")


def raised(error: BaseException) -> Answer:
    """What an exception of user code says."""
    reason = text_of(error)
    error_type = class_name(error)
    if isinstance(error, DependencyError):
        return Answer(Said.DEPENDENCY, error_type=error_type, reason=reason)
    if isinstance(error, Superseded):
        return Answer(Said.SUPERSEDED, reason=reason)
    if isinstance(error, Snooze):
        return Answer(Said.SNOOZED, reason=reason, after_s=error.after_s)
    if isinstance(error, Permanent):
        return Answer(Said.PERMANENT, reason=reason or "the handler gave no reason")
    if isinstance(error, NameRefused | MessageRefused):
        return Answer(Said.INVALID, reason=reason)
    after_s = error.after_s if isinstance(error, Retry) else None
    return Answer(Said.FAILED, error_type=error_type, reason=reason, after_s=after_s, traceback=traceback_text(error, MAX_TRACEBACK_CHARS))
