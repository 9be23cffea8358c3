"""What a handler may touch besides its task: the bucket, the time it has left, and a logger that knows the task.

`Context` is for plain functions, `AsyncContext` for async ones: the same words, awaited where they wait.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Mapping, MutableMapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from batch import arguments
from batch.events import log
from batch.handling.cancels import Cancels
from batch.handling.results import Written, write_output
from batch.logs import OwnLogger, fields_of, trace_field, traceparent_in
from batch.model.clock import Clock, SystemClock
from batch.model.message import Task
from batch.model.names import outside
from batch.model.texts import plain
from batch.services.ports import ObjectInfo, ObjectStore

T = TypeVar("T")
Bytes = bytes | bytearray | memoryview
FilePath = str | os.PathLike[str]

PROGRESS_EVERY_S = 10.0
"""Minimum time between two lines of one attempt's progress, and from its first call to its first line, so that quick tasks log none."""
MAX_NOTE_CHARS = 200


_LOGGER = OwnLogger("fanout.handler")


class TaskLogger(logging.LoggerAdapter[logging.Logger]):
    """Adds the task's id, type and attempt to every line."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """As the standard library asks for it; a line's own `extra` wins."""
        kwargs["extra"] = {**(self.extra or {}), **fields_of(kwargs.get("extra"))}
        return msg, kwargs


@dataclass(frozen=True, slots=True)
class HowFar:
    """How far an attempt is, by its last call of `progress`."""

    done: float
    total: float | None
    note: str

    def __str__(self) -> str:
        amount = f"{self.done}" if self.total is None else f"{self.done} of {self.total}"
        return f"{amount} {self.note}".rstrip()


@dataclass(slots=True)
class Surroundings:
    """One attempt's surroundings. `attempt` counts runs of the handler from 1; `deadline_s` is monotonic (None: no limit);
    `payload` is the validated model when the handler names one; `stopping` is set when the worker has been told to end;
    the worker looks up in `how_far`, by task id, how far a task is."""

    task: Task
    store: ObjectStore
    clock: Clock
    attempt: int = 1
    deadline_s: float | None = None
    payload: Any = None
    stopping: threading.Event = field(default_factory=threading.Event)
    outputs: list[Written] = field(default_factory=list)
    how_far: MutableMapping[str, HowFar] = field(default_factory=dict)
    _attributes: Mapping[str, str] = field(default_factory=dict)
    _cancels: Cancels = field(default_factory=Cancels)
    _traceparent: str = ""
    _spoke_s: float | None = field(default=None, init=False)

    @property
    def attributes(self) -> dict[str, str]:
        """Those of the task's message; a copy, for the message itself may have to be published again."""
        return dict(self._attributes)

    @property
    def traceparent(self) -> str:
        """The trace context that this attempt runs in, in the W3C's form, for the header `traceparent` of what the handler calls: that of
        the attempt's own span where it has one (TELEMETRY), else that of its message; empty without any."""
        return self._traceparent or traceparent_in(self._attributes)

    @property
    def cancelled(self) -> bool:
        """Whether a client has cancelled the task. Its handler may raise Cancelled then; one that returns has succeeded all the same."""
        cancels, task = self._cancels, self.task
        return bool(cancels.by_id) and cancels.entry_for(task.task_id, task.submission_id, self._attributes) is not None

    @property
    def log(self) -> TaskLogger:
        """Logs lines that carry the task's id, type, attempt and trace."""
        return TaskLogger(_LOGGER, self.facts())

    def facts(self) -> dict[str, Any]:
        """What each log record carries that arises while this attempt runs."""
        task = self.task
        return {
            "task_id": task.task_id,
            "task_type": task.task_type,
            "attempt": self.attempt,
            **trace_field(self._attributes, self._traceparent),
        }

    def now(self) -> float:
        """Unix seconds."""
        return self.clock.now()

    def remaining_s(self) -> float:
        """Seconds until the attempt must have ended; infinite without a limit."""
        return float("inf") if self.deadline_s is None else self.deadline_s - self.clock.monotonic()

    def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """Say how far the task is, as often as you like: it is logged now and then, and when the handler is stuck.

        Raises TypeError unless `done` and `total` are numbers.
        """
        said = HowFar(_number(done), None if total is None else _number(total), plain(note, MAX_NOTE_CHARS))
        self.how_far[self.task.task_id] = said
        now_s = self.clock.monotonic()
        if self._spoke_s is None:
            self._spoke_s = now_s
        elif now_s - self._spoke_s >= PROGRESS_EVERY_S:
            self._spoke_s = now_s
            log("handler_progress", **self.facts(), done=said.done, total=said.total, note=said.note)

    def ended(self) -> str:
        """Forget how far the task was, once its handler has returned; the name of the object it wrote last, empty without one."""
        if self._spoke_s is not None:
            self.how_far.pop(self.task.task_id, None)
        if not self.outputs:
            return ""
        last = self.outputs[-1]
        return last.name if isinstance(last, Written) else ""


@dataclass(slots=True)
class Context(Surroundings):
    """For plain functions."""

    def sleep(self, seconds: float) -> None:
        """Pass time, by the worker's clock."""
        self.clock.wait(threading.Event(), seconds)

    def read(self, name: str) -> bytes:
        """An object of the bucket. Raises ObjectMissing, ObjectDamaged, DependencyError; TypeError and ValueError for what is no name,
        NameRefused for what lies in a folder of Fanout's own: its task is dead at once."""
        return self.store.read(_name(name))

    def exists(self, name: str) -> bool:
        """Whether the bucket has the object. Raises DependencyError; TypeError and ValueError for what is no name."""
        return self.store.info(_name(name)) is not None

    def write(self, name: str, data: Bytes, content_type: str = "application/octet-stream") -> Written:
        """Write an output, once per task. Raises Superseded when a newer task has written it: let it pass through; ServiceRefused when the
        bucket keeps what is there, TypeError and ValueError for what is no name or no content."""
        written = write_output(self.store, self.task, *_checked(name, data, content_type))
        self.outputs.append(written)
        return written

    def download(self, name: str, path: FilePath, max_bytes: int | None = None) -> ObjectInfo:
        """An object of the bucket into the file `path`, a piece at a time. Raises as `read`; ObjectTooLarge beyond `max_bytes`, and OSError
        of the file. No part of the object is left in the file after an error."""
        name, path, max_bytes = _name(name), arguments.file_path(path), arguments.max_bytes(max_bytes)
        return self.store.download(name, path, max_bytes=max_bytes)

    def upload(self, name: str, path: FilePath, content_type: str = "application/octet-stream") -> Written:
        """Write an output from the file `path`, a piece at a time, once per task. Raises as `write`, and OSError of the file."""
        written = write_output(self.store, self.task, *_checked_file(name, path, content_type))
        self.outputs.append(written)
        return written


@dataclass(slots=True)
class AsyncContext(Surroundings):
    """For async functions. Requests to the bucket run in the threads of `pool` (None: the event loop's own)."""

    pool: Executor | None = None

    async def sleep(self, seconds: float) -> None:
        """Pass time, by the worker's clock."""
        if isinstance(self.clock, SystemClock):
            await asyncio.sleep(seconds)
        else:  # a clock of a test, which knows only threads
            await self._aside(self.clock.wait, threading.Event(), seconds)

    async def read(self, name: str) -> bytes:
        """As `Context.read`."""
        return await self._aside(self.store.read, _name(name))

    async def exists(self, name: str) -> bool:
        """As `Context.exists`."""
        return await self._aside(self.store.info, _name(name)) is not None

    async def write(self, name: str, data: Bytes, content_type: str = "application/octet-stream") -> Written:
        """As `Context.write`. A write that is cancelled may still take place."""
        written = await self._aside(write_output, self.store, self.task, *_checked(name, data, content_type))
        self.outputs.append(written)
        return written

    async def download(self, name: str, path: FilePath, max_bytes: int | None = None) -> ObjectInfo:
        """As `Context.download`. One that is cancelled may go on for a while: give each attempt a file of its own."""
        name, path, max_bytes = _name(name), arguments.file_path(path), arguments.max_bytes(max_bytes)
        return await self._aside(partial(self.store.download, name, path, max_bytes=max_bytes))

    async def upload(self, name: str, path: FilePath, content_type: str = "application/octet-stream") -> Written:
        """As `Context.upload`. An upload that is cancelled may still take place."""
        written = await self._aside(write_output, self.store, self.task, *_checked_file(name, path, content_type))
        self.outputs.append(written)
        return written

    async def _aside(self, function: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self.pool, function, *arguments)


def _name(name: str) -> str:
    """Raises NameRefused in a folder of Fanout's own."""
    return outside(arguments.object_name(name))


def _checked(name: str, data: Bytes, content_type: str) -> tuple[str, bytes, str]:
    """Here, and not only in the store: an async handler's mistake belongs into its own line, and what it gives may change meanwhile."""
    return _name(name), arguments.content(data), arguments.content_type(content_type)


def _checked_file(name: str, path: FilePath, content_type: str) -> tuple[str, str, str]:
    return _name(name), arguments.file_path(path), arguments.content_type(content_type)


def _number(value: object) -> float:
    try:
        return value if isinstance(value, int) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise TypeError(f"progress takes numbers, got {type(value).__name__}; put words into note") from None
