"""Handlers whose errors hide their own words, in a module that a child can import; `CASES` says how each of them ends.

Each kind of handler raises the same: what a task group, a wrapper or a `finally` makes of a signal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NoReturn

from batch.handling.registry import task
from batch.model.errors import DependencyUnavailable, FanoutError, MessageRefused, NameRefused, Permanent, Retry, Snooze, Superseded
from tests.field.kinds import NO_ATTEMPT, End, in_children


def group(*errors: BaseException) -> NoReturn:
    raise BaseExceptionGroup("unhandled errors in a TaskGroup", errors)


def wrapped(error: Exception) -> NoReturn:
    try:
        raise error
    except Exception as cause:
        raise RuntimeError("wrapped") from cause


def failing_while(error: Exception) -> NoReturn:
    try:
        raise error
    finally:
        raise OSError("close failed")


def cut(error: Exception) -> NoReturn:
    try:
        raise error
    except FanoutError:
        raise ValueError("no such customer") from None


def last_word(error: Exception, said: Exception) -> NoReturn:
    try:
        raise error
    except FanoutError:
        raise said  # noqa: B904 - as handlers do it


def down() -> DependencyUnavailable:
    return DependencyUnavailable("the bucket is down")


CASES: dict[str, tuple[Callable[[], NoReturn], End]] = {
    "a service in a group": (lambda: group(down()), NO_ATTEMPT),
    "a service as a cause": (lambda: wrapped(down()), NO_ATTEMPT),
    "a failure while a service was down": (lambda: failing_while(down()), NO_ATTEMPT),
    "a service beside never": (lambda: group(Permanent("never"), down()), NO_ATTEMPT),
    "a snooze in a group": (lambda: group(Snooze(60)), NO_ATTEMPT),
    "a snooze as a cause": (lambda: wrapped(Snooze(60)), NO_ATTEMPT),
    "never in a group": (lambda: group(Permanent("never")), ("dead", "permanent", "never")),
    "never beside a failure": (lambda: group(ValueError("a"), Permanent("never")), ("dead", "permanent", "never (one of 2 errors)")),
    "never, when a service was down": (lambda: last_word(down(), Permanent("never")), ("dead", "permanent", "never")),
    "newer in a group": (lambda: group(ValueError("a"), Superseded("newer")), ("superseded", "", "newer (one of 2 errors)")),
    "a retry in a group": (lambda: group(Retry("again", 30)), ("dead", "Retry", "again")),
    "a refused name in a group": (lambda: group(NameRefused("../x climbs")), ("dead", "invalid", "../x climbs")),
    "a refused message as a cause": (lambda: wrapped(MessageRefused("invalid", "no name")), ("dead", "invalid", "no name")),
    "a failure beside a snooze": (lambda: group(Snooze(60), ValueError("a")), ("dead", "ValueError", "a (one of 2 errors)")),
    "failures": (lambda: group(ConnectionError("refused"), KeyError(1)), ("dead", "ConnectionError", "refused (one of 2 errors)")),
    "a failure in the middle of never": (lambda: failing_while(Permanent("never")), ("dead", "OSError", "close failed")),
    "a context that was cut": (lambda: cut(down()), ("dead", "ValueError", "no such customer")),
    "an exit in a group": (lambda: group(SystemExit(3)), ("dead", "SystemExit", "3")),
    "only cancelled": (lambda: group(asyncio.CancelledError("told")), ("dead", "CancelledError", "told")),
}


def act(case: str) -> NoReturn:
    CASES[case][0]()


in_children("wrapping", act)


@task("wrapping-memory", isolation="process", memory_mb=256, retries=0)
def memory(task: Any, ctx: Any) -> NoReturn:
    group(MemoryError("no room"))
