"""What handlers raise and return whose classes are odd: they leave out `super().__init__`, or cannot be asked what they are."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest.mock import Mock

from pydantic import BaseModel, field_validator

from batch.handling.registry import Registry, default_registry
from batch.model.errors import Retry, Snooze
from batch.model.message import Task
from tests.field.kinds import End, in_children


class Throttled(Retry):
    """Without `super().__init__`: no wait was asked for."""

    def __init__(self) -> None:
        pass


class Polls(Snooze):
    """Without `super().__init__`, and so without a wait."""

    def __init__(self) -> None:
        pass


class Unwaitable(Snooze):
    def __init__(self) -> None:
        self.after_s = "5"  # type: ignore[assignment]


class Unasked(Exception):
    def __getattribute__(self, name: str) -> Any:
        raise SystemExit(f"no {name}")


class Hidden:
    """As a proxy to what is not there."""

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise RuntimeError("nothing behind it")


def raising(error: BaseException) -> Any:
    raise error


CASES: dict[str, tuple[Any, End]] = {
    "retry": (lambda: raising(Throttled()), ("dead", "Throttled", "")),
    "snooze": (lambda: raising(Polls()), ("dead", "Polls", "(what it asks for cannot be read: AttributeError: 'Polls' object")),
    "wait": (
        lambda: raising(Unwaitable()),
        ("dead", "Unwaitable", "(what it asks for cannot be read: ValueError: after_s must be a number"),
    ),
    "unasked": (lambda: raising(Unasked("a")), ("dead", "Unasked", "a (what it asks for cannot be read: SystemExit: no __class__)")),
    "mock": (lambda: Mock(spec=ValueError), ("dead", "TypeError", "")),
    "good": (lambda: 1, ("succeeded", "", "")),
}
"""What a handler does, and how its task ends, in every kind of handler."""
HIDDEN: End = ("dead", "TypeError", "the handler returned a Hidden that cannot be written as JSON (RuntimeError: nothing behind it)")


def act(case: str) -> Any:
    return Hidden() if case == "hidden" else CASES[case][0]()


in_children("odd_classes", act)


class Parsed(BaseModel):
    """Checked by what ends a program, as a parser of arguments does."""

    command: str

    @field_validator("command")
    @classmethod
    def checked(cls, command: str) -> str:
        if command in ENDS:
            raise ENDS[command]
        return command


ENDS = {one.__name__: one for one in (SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError)}
PARSES = Registry()


async def parses_later(task: Task, ctx: Any) -> int:
    return 1


for registry in (PARSES, default_registry):
    registry.task("parses-plain", payload=Parsed)(lambda _task, _ctx: 1)
    registry.task("parses-isolated", payload=Parsed, isolation="process")(lambda _task, _ctx: 1)
    registry.task("parses-group", payload=Parsed, group=10, group_wait_s=0)(lambda tasks, _ctxs: [1] * len(tasks))
    registry.task("parses-async", payload=Parsed)(parses_later)
