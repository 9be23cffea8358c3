"""How one run of a handler ended, as plain values: a bad task never stops a worker, and a child process can send it over a pipe.

Here is also the one place where user code is called, so that sync, async, grouped and isolated handlers are judged alike.
"""

from __future__ import annotations

import asyncio
import os
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from types import CoroutineType
from typing import Any

from batch.copies import copies
from batch.model.errors import DependencyError, MessageRefused, NameRefused, Permanent, Retry, Snooze, Superseded, text_of

MAX_TRACEBACK_CHARS = 4000
MAX_REASON_CHARS = 8000


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
    """Call user code here and now. Never raises."""
    copy_count = copies.count
    try:
        result = function(*arguments)
        if isinstance(result, CoroutineType):
            result = asyncio.run(awaited_here(result))
        answer = Answer(_RETURNED, result)
    except BaseException as error:  # noqa: BLE001 - whatever user code raises is this task's failure, not the worker's
        answer = raised(error)
    if copies.count != copy_count:
        os._exit(1)  # a copy that the handler has forked came back from it: it would go on as a second worker on the same connections
    return answer


async def awaited(function: Callable[..., Any], *arguments: Any) -> Answer:
    """As `called`, for an async function on a running event loop."""
    copy_count = copies.count
    try:
        answer = Answer(Said.RETURNED, await function(*arguments))
    except BaseException as error:  # noqa: BLE001 - as above; CancelledError too: the caller knows whether it was its own doing
        answer = raised(error)
    if copies.count != copy_count:
        os._exit(1)  # as above; and what the event loop waits for is shared
    return answer


async def awaited_here(work: Awaitable[Any]) -> Any:
    """The result of `work`. A copy that it has forked ends here, before it closes an event loop that it shares."""
    copy_count = copies.count
    try:
        return await work
    finally:
        if copies.count != copy_count:
            os._exit(1)


def overdue(timeout_s: float | None) -> Answer:
    """The answer of a run that had not ended when its time was over."""
    limit = "its worker's end" if timeout_s is None else f"its timeout_s of {timeout_s:g} s"
    return Answer(Said.FAILED, error_type="TimeoutError", reason=f"the handler was still running after {limit} and was cancelled")


def raised(error: BaseException) -> Answer:
    """What an exception of user code says."""
    reason = text_of(error)[:MAX_REASON_CHARS]
    error_type = type(error).__name__
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
    return Answer(Said.FAILED, error_type=error_type, reason=reason, after_s=after_s, traceback=traceback_of(error))


def traceback_of(error: BaseException) -> str:
    """Its end, where the cause stands."""
    try:
        text = "".join(traceback.format_exception(error))
    except Exception:  # noqa: BLE001 - an error whose text cannot be had has no printable traceback either
        text = "".join(traceback.format_tb(error.__traceback__))
    return text[-MAX_TRACEBACK_CHARS:]
