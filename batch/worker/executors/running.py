"""Calls of handlers that have not come back: which, since when, and where each of them is."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, NamedTuple

from batch.worker.attempt import Work
from batch.worker.watchdog import MAX_STACK_CHARS

MAX_DEPTH = 100
_FRAMES = ("cr_frame", "gi_frame", "ag_frame")
_AWAITED = ("cr_await", "gi_yieldfrom", "ag_await")


class Where(NamedTuple):
    """Where a handler is, and how far it says to be, if it says so where the worker cannot see it."""

    stack: str
    progress: str = ""


class Running(NamedTuple):
    """One call since `began_s` (monotonic), for a group of messages or for one. `where` answers None while a child has not yet said it:
    ask again a moment later."""

    works: Sequence[Work]
    began_s: float
    where: Callable[[], Where | None]

    @property
    def first(self) -> Work:
        return self.works[0]


def stack_of_task(task: asyncio.Task[Any], max_chars: int = MAX_STACK_CHARS) -> str:
    """Where a suspended task is, from its coroutine to what is awaited at the end: `Task.get_stack` gives the first frame alone."""
    frames: list[tuple[FrameType, int]] = []
    one: Any = task.get_coro()
    while len(frames) < MAX_DEPTH and isinstance(frame := _first(one, _FRAMES), FrameType):
        frames.append((frame, frame.f_lineno))
        one = _first(one, _AWAITED)
    return "".join(traceback.StackSummary.extract(iter(frames)).format())[-max_chars:]


def _first(one: Any, names: tuple[str, ...]) -> Any:
    return next((found for name in names if (found := getattr(one, name, None)) is not None), None)
