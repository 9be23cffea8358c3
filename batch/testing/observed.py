"""Handlers under observation: when each run begins is noted, and their sleeps move a clock that otherwise stands still."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from batch.handling.answer import overdue
from batch.handling.registry import Function, Handler, Kind, Registry
from batch.model.clock import SystemClock
from batch.testing.clock import ManualClock

GROUP_WAIT_S = 0.02
"""A group fills in real time, from messages that are all there."""
Note = Callable[[str, int], None]
"""Told the task id and the attempt of each run that begins."""


@dataclass(frozen=True, slots=True)
class Began:
    """One run: seconds since the beginning, and which attempt it was."""

    at_s: float
    attempt: int


class WorkerClock(SystemClock):
    """For a worker's own threads: the time that is written down is the manual clock's alone, durations and waits really pass."""

    def __init__(self, manual: ManualClock) -> None:
        self._manual = manual
        self._began_s = super().monotonic()

    def now(self) -> float:
        return self._manual.now()

    def monotonic(self) -> float:
        return self._manual.monotonic() + super().monotonic() - self._began_s


class TimeOver(BaseException):
    """Ends a handler that sleeps beyond its time limit, past anything that it might catch."""


TimeOver.__name__ = "TimeoutError"  # as a worker calls it


class HandlerClock:
    """Implements `batch.model.clock.Clock` for one run of a handler: its sleeps move the manual clock, and end at its time limit."""

    def __init__(self, manual: ManualClock, handler: Handler) -> None:
        self._manual = manual
        self._handler = handler
        self._until_s = float("inf") if handler.timeout_s is None else manual.monotonic() + handler.timeout_s

    def now(self) -> float:
        return self._manual.now()

    def monotonic(self) -> float:
        return self._manual.monotonic()

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        left_s = self._until_s - self._manual.monotonic()
        if timeout_s > left_s:
            self._manual.advance(max(0.0, left_s))
            raise TimeOver(overdue(self._handler.timeout_s or 0.0, self._handler.kind).reason)
        self._manual.advance(max(0.0, timeout_s))
        return event.is_set()


def observed(registry: Registry, clock: ManualClock, note: Note) -> Registry:
    """The same handlers, watched; isolated ones run in threads."""
    made = Registry()
    for task_type in registry:
        handler = registry[task_type]
        made.task(
            task_type,
            timeout_s=handler.timeout_s,
            retries=handler.retries,
            backoff=handler.backoff,
            payload=handler.payload,
            group=handler.group,
            group_wait_s=min(handler.group_wait_s, GROUP_WAIT_S),
        )(_watched(handler, clock, note))
    return made


def _watched(handler: Handler, clock: ManualClock, note: Note) -> Function:
    def begin(tasks: Sequence[Any], ctxs: Sequence[Any]) -> None:
        for task, ctx in zip(tasks, ctxs, strict=True):
            note(task.task_id, ctx.attempt)
            ctx.clock = HandlerClock(clock, handler)
            if handler.timeout_s is not None:
                ctx.deadline_s = clock.monotonic() + handler.timeout_s

    def lists(given: Any) -> Any:
        return given if handler.kind is Kind.GROUP else [given]

    if handler.is_async:

        async def run_async(task: Any, ctx: Any) -> Any:
            begin(lists(task), lists(ctx))
            return await handler.function(task, ctx)

        return run_async

    def run(task: Any, ctx: Any) -> Any:
        begin(lists(task), lists(ctx))
        return handler.function(task, ctx)

    return run
