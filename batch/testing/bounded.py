"""Calling a handler as a worker does: within its time limit, and with what it meant where its errors and results are wrapped or wrong."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections.abc import Callable
from types import CoroutineType
from typing import Any

from batch.copies import copies
from batch.handling.answer import CANCEL_LIMIT_S, awaited_here, overdue
from batch.handling.registry import Handler
from batch.handling.signals import speaking
from batch.model.errors import text_of
from batch.model.result import ResultRefused, as_json
from batch.testing.observed import TimeOver


def result_of(handler: Handler, *arguments: Any) -> Any:
    """Call it. Raises what it raises, and of an error with others in it the one that a worker hears; TimeoutError beyond its limit.

    With a limit it runs in a thread, which goes on when it hangs. What it sets of context variables stays with it, and a copy that it has
    forked ends here: it would go on with the test.
    """
    try:
        if handler.timeout_s is None:
            return contextvars.copy_context().run(_called, handler, *arguments)
        return _in_time(handler, handler.timeout_s, arguments)
    except BaseException as error:  # noqa: BLE001 - raised again below, where no other error becomes its context
        raised = heard(error)
    raise raised


def heard(error: BaseException) -> BaseException:
    """The error that a worker hears of, with a note where it stood in another one."""
    speaker, _ = speaking(error)
    if issubclass(type(speaker), TimeOver):
        return TimeoutError(str(speaker))
    if speaker is not error:
        speaker.add_note(f"A worker hears this one of what the handler raised: {type(error).__name__}: {text_of(error)}")
    return speaker


def checked(result: Any) -> Any:
    """A result as it is. Raises TypeError or ValueError, as the attempt would fail, where it is no JSON."""
    try:
        as_json(result)
    except ResultRefused as refused:
        raise refused.error from None
    return result


def _called(handler: Handler, *arguments: Any) -> Any:
    copy_count = copies.count
    try:
        if handler.is_async and handler.timeout_s is not None:
            return asyncio.run(_cancelled_late(handler, handler.timeout_s, arguments))
        result = handler.function(*arguments)
        return asyncio.run(awaited_here(result)) if isinstance(result, CoroutineType) else result
    finally:
        if copies.count != copy_count:
            os._exit(1)


async def _cancelled_late(handler: Handler, timeout_s: float, arguments: tuple[Any, ...]) -> Any:
    task = asyncio.ensure_future(awaited_here(handler.function(*arguments)))
    done, _ = await asyncio.wait({task}, timeout=timeout_s)
    if done:
        return task.result()
    task.cancel()
    await asyncio.wait({task}, timeout=CANCEL_LIMIT_S)
    raise _late(handler, timeout_s)


def _in_time(handler: Handler, timeout_s: float, arguments: tuple[Any, ...]) -> Any:
    ends: list[Callable[[], Any]] = []

    def run() -> None:
        try:
            result = context.run(_called, handler, *arguments)
            ends.append(lambda: result)
        except BaseException as error:  # noqa: BLE001 - carried to the test's thread
            ends.append(lambda error=error: _throw(error))  # type: ignore[misc]

    context = contextvars.copy_context()
    thread = threading.Thread(target=run, name=f"handler-{handler.task_type}", daemon=True)
    thread.start()
    thread.join(timeout_s + (CANCEL_LIMIT_S if handler.is_async else 0.0))
    if not ends:
        raise _late(handler, timeout_s)
    return ends[0]()


def _throw(error: BaseException) -> None:
    raise error


def _late(handler: Handler, timeout_s: float) -> TimeoutError:
    return TimeoutError(overdue(timeout_s, handler.kind).reason)
