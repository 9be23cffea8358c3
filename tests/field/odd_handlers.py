"""Handlers that say what their task tells them to, in every way in which a handler can speak: one for each kind, alike."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, field_validator

from batch.handling.context import AsyncContext, Context
from batch.handling.registry import Backoff, Registry, default_registry
from batch.model.errors import Permanent, Retry, Snooze, Superseded
from batch.model.message import Task

KINDS = ("plain", "async", "group", "isolated")
DEAD = ("raise", "odd_error", "permanent", "retry", "subclass", "raise_exit", "payload")
SUCCEED = ("return", "key", "log", "extra", "note", "print")
ENDINGS = {**dict.fromkeys(DEAD, "dead"), **dict.fromkeys(SUCCEED, "succeeded"), "supersede": "superseded", "snooze": "succeeded"}
"""By way of speaking: the outcome of the task."""


class Text(str):
    """A text whose own text cannot be had."""

    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


class OddError(Exception):
    """Its text is no text."""

    def __str__(self) -> str:
        return self.args[0]  # type: ignore[no-any-return]


class Exits(Exception):
    """Its text ends the process."""

    def __str__(self) -> str:
        raise SystemExit(3)


class Loud:
    """Has no text."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class Payload(BaseModel):
    way: str
    text: str = ""

    @field_validator("way")
    @classmethod
    def checked(cls, way: str) -> str:
        if way.startswith("payload"):
            raise ValueError(way.removeprefix("payload"))
        return way


def says(task: Task, ctx: Context | AsyncContext) -> Any:
    """Without a wait for the bucket."""
    way, text = str(task.fields["way"]), task.fields["text"]
    if way == "raise":
        raise ValueError(text)
    if way == "odd_error":
        raise OddError(task.fields.get("odd"))
    if way == "raise_exit":
        raise Exits(text)
    if way == "permanent":
        raise Permanent(text)
    if way == "retry":
        raise Retry(text)
    if way == "supersede":
        raise Superseded(text)
    if way == "subclass":
        raise ValueError(Text(text))
    if way == "key":
        return {text: text}
    if way == "log":
        ctx.log.warning("it says %s", text)
        ctx.log.warning("%s".replace("s", "s %s"), text)  # one value is missing
        ctx.log.warning("it is %r", Loud())
    if way == "extra":
        extra: dict[Any, Any] = {text: text, 1: 2, (1, 2): Loud(), "message": text, "name": 1, "args": 2, "exc_info": 3}
        ctx.log.warning("extra", extra=extra)
        ctx.log.warning("no extra", extra=None)
        ctx.log.warning("list extra", extra=[text])  # type: ignore[arg-type]
    if way == "note":
        ctx.progress(1, 2, text)
    if way == "print":
        print(text)
    return {"said": text}


def plain(task: Task, ctx: Context) -> Any:
    if task.fields["way"] == "snooze" and not ctx.exists(f"seen/{task.task_id}"):
        ctx.write(f"seen/{task.task_id}", b"")
        raise Snooze(0, task.fields["text"])
    return says(task, ctx)


async def awaited(task: Task, ctx: AsyncContext) -> Any:
    if task.fields["way"] == "snooze" and not await ctx.exists(f"seen/{task.task_id}"):
        await ctx.write(f"seen/{task.task_id}", b"")
        raise Snooze(0, task.fields["text"])
    return says(task, ctx)


def grouped(tasks: list[Task], ctxs: list[Context]) -> list[Any]:
    results: list[Any] = []
    for task, ctx in zip(tasks, ctxs, strict=True):
        try:
            results.append(plain(task, ctx))
        except Exception as error:  # noqa: BLE001 - a grouped handler returns each task's own error
            results.append(error)
    return results


NEVER = Backoff(first_s=0)
for registry in (default_registry, ODD := Registry()):
    registry.task("odd-plain", retries=0, backoff=NEVER)(plain)
    registry.task("odd-async", retries=0, backoff=NEVER)(awaited)
    registry.task("odd-group", retries=0, backoff=NEVER, group=5)(grouped)
    registry.task("odd-isolated", retries=0, backoff=NEVER, isolation="process")(plain)
    registry.task("odd-payload", retries=0, backoff=NEVER, payload=Payload)(plain)
