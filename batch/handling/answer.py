"""How one run of a handler ended, as plain values: a bad task never stops a worker, and a child process can send it over a pipe.

Here is also the one place where user code is called, so that sync, async, grouped and isolated handlers are judged alike.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass
from enum import StrEnum
from types import CoroutineType
from typing import Any

from batch.copies import copies
from batch.handling.registry import Kind
from batch.handling.signals import OF_SEVERAL, speaking
from batch.logs import running
from batch.model.errors import (
    Cancelled,
    DependencyError,
    FanoutError,
    MessageRefused,
    NameRefused,
    Permanent,
    Retry,
    Snooze,
    Superseded,
    checked_wait_s,
    text_of,
)
from batch.model.texts import class_name, traceback_text

MAX_TRACEBACK_CHARS = 4000
MAX_SHOWN = 15
"""Errors of one group that a traceback shows, as Python's own; formatting very many takes long."""
CANCEL_LIMIT_S = 5.0
"""An async handler that was cancelled for its time has this long to clean up."""


class Said(StrEnum):
    """What a handler can say; the first five are its own words."""

    RETURNED = "returned"
    SUPERSEDED = "superseded"
    CANCELLED = "cancelled"
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


CAME_THROUGH = frozenset(Said) - {Said.CANCELLED, Said.FAILED, Said.DEPENDENCY, Said.CRASHED}
"""Whose handler has shown that it works."""


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
    copy_count = copies.count
    context = _clean.context.copy()
    try:
        result = context.run(_in_context, function, arguments)
        if isinstance(result, CoroutineType):
            result = context.run(asyncio.run, awaited_here(result))
        answer = Answer(_RETURNED, result)
    except BaseException as error:  # noqa: BLE001 - whatever user code raises is this task's failure, not the worker's
        answer = raised(error)
    if copies.count != copy_count:
        os._exit(1)  # a copy that the handler has forked came back from it: it would go on as a second worker on the same connections
    return answer


def _in_context(function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    running.set(arguments[-1])
    return function(*arguments)


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


async def awaited(function: Callable[..., Any], *arguments: Any) -> Answer:
    """As `called`, for an async function on a running event loop, by a task in a `clean_context`."""
    copy_count = copies.count
    running.set(arguments[-1])
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


_LATE = {
    Kind.ASYNC: "the handler was still running after its timeout_s of {:g} s and was cancelled",
    Kind.PROCESS: "it ran longer than its limit of {:g} s; its process was killed",
}
_LATE_IN_A_THREAD = "the handler did not end within its timeout_s of {:g} s"


def overdue(limit_s: float, kind: Kind, stack: str = "") -> Answer:
    """The answer of a run that had not ended when its time was over; `stack` is where it was then."""
    reason = _LATE.get(kind, _LATE_IN_A_THREAD).format(limit_s)
    return Answer(Said.FAILED, error_type="TimeoutError", reason=reason, traceback=stack)


class WrongResults(FanoutError):
    """A grouped handler did not return a list with one result for each of its tasks."""


def has_returned(answer: Answer, count: int) -> bool:
    """Whether one call has returned a result, and no error, for each of its `count` tasks."""
    results = answer.result
    try:
        if answer.said is not _RETURNED or not isinstance(results, list | tuple) or len(results) != count:
            return False
        return not any(issubclass(type(one), BaseException) for one in results)  # as `is_error`, without a call for each
    except BaseException:  # noqa: BLE001 - lists may be of a class of user code's; `answers_of` meets it again
        return False


def is_error(value: object) -> bool:
    """Whether it is an exception, whatever its class says of itself: `isinstance` asks the value, which may lie, or raise."""
    return issubclass(type(value), BaseException)


def answers_of(answer: Answer, count: int) -> list[Answer]:
    """One answer for each of `count` tasks, from that of their call; the same one for all when the call itself failed."""
    results = answer.result
    if answer.said is not Said.RETURNED:
        return [answer] * count
    try:
        if isinstance(results, list | tuple) and len(results) == count:
            return [raised(one) if is_error(one) else Answer(Said.RETURNED, one) for one in results]
        return [raised(wrong_results(results, count))] * count
    except BaseException as error:  # noqa: BLE001 - a list of a class of user code's
        return [raised(error)] * count


def wrong_results(results: Any, count: int) -> WrongResults:
    """What one call of a grouped handler has returned instead of a list with `count` results."""
    got = f"{len(results)} results" if isinstance(results, list | tuple) else f"a {type(results).__name__}"
    if isinstance(results, Iterator):
        got += ", so nothing ran: list(...) it"
    tasks = "its one task" if count == 1 else f"each of its {count} tasks, in their order"
    return WrongResults(f"a grouped handler returns a list with one result, or one exception, for {tasks}; got {got}")


def raised(error: BaseException) -> Answer:
    """What an exception of user code says; `batch.handling.signals` has the rule of which error in it speaks. Never raises: one that cannot
    be asked what it means, for its class or attributes are odd, is a failed attempt."""
    try:
        return _said(error)
    except BaseException as odd:  # noqa: BLE001 - attributes of an error may be user code
        reason = f"{text_of(error)} (what it asks for cannot be read: {class_name(odd)}: {text_of(odd)})".strip()
        shown = traceback_text(error, MAX_TRACEBACK_CHARS)
        return Answer(Said.FAILED, error_type=class_name(error), reason=reason, traceback=shown)


def _said(error: BaseException) -> Answer:
    speaker, count = speaking(error)
    reason = text_of(speaker)
    if isinstance(speaker, Permanent):
        reason = reason or "the handler gave no reason"
    if count > 1:
        reason = f"{reason} {OF_SEVERAL.format(count)}"
    error_type = class_name(speaker)
    if isinstance(speaker, DependencyError):
        return Answer(Said.DEPENDENCY, error_type=error_type, reason=reason)
    if isinstance(speaker, Superseded):
        return Answer(Said.SUPERSEDED, reason=reason)
    if isinstance(speaker, Cancelled):
        return Answer(Said.CANCELLED, error_type=error_type, reason=reason)
    if isinstance(speaker, Snooze):
        return Answer(Said.SNOOZED, reason=reason, after_s=checked_wait_s(speaker.after_s))
    if isinstance(speaker, Permanent):
        return Answer(Said.PERMANENT, reason=reason)
    if isinstance(speaker, NameRefused | MessageRefused):
        return Answer(Said.INVALID, reason=reason)
    # One of a class that does not call `super().__init__` has said nothing of a wait.
    wait_s = getattr(speaker, "after_s", None) if isinstance(speaker, Retry) else None
    after_s = None if wait_s is None else checked_wait_s(wait_s)
    shown = traceback_of(error if count <= MAX_SHOWN else speaker, speaker)
    return Answer(Said.FAILED, error_type=error_type, reason=reason, after_s=after_s, traceback=shown)


def traceback_of(error: BaseException, speaker: BaseException) -> str:
    """As Python prints it; where that is too long, that of `speaker`, the error inside it that counts."""
    shown = traceback_text(error, MAX_TRACEBACK_CHARS)
    if len(shown) >= MAX_TRACEBACK_CHARS and speaker is not error:
        return traceback_text(speaker, MAX_TRACEBACK_CHARS)
    return shown
