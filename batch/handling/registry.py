"""Handlers by task type: the `@task` decorator, and the table that a worker looks types up in.

    @task("thumbnail", timeout_s=60, retries=3)
    def thumbnail(task, ctx): ...

A type has one handler; registering it twice is an error, not an override.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from batch.formats.kinds import CLOUD_EVENT, RAW
from batch.handling.signals import speaking
from batch.model.errors import DependencyError, MessageRefused, SettingsError, text_of
from batch.model.message import BUILT_IN
from batch.model.texts import class_name, plain

if TYPE_CHECKING:
    from pydantic import ValidationError

    from batch.model.message import Task

Function = Callable[..., Any]
"""`(task, ctx) -> result`, sync or async; grouped: `(tasks, ctxs) -> results`, one for each task, in their order."""


class Kind(StrEnum):
    """How a handler is run: each kind has an executor of its own."""

    THREAD = "thread"
    ASYNC = "async"
    PROCESS = "process"
    GROUP = "group"


MAX_GROUP = 1000
MIN_MEMORY_MB = 64
"""A Python process with a few libraries needs about that much."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits between attempts: `first_s`, then `factor` times more each time, never above `max_s`: 10, 20, 40 … 600 s."""

    first_s: float = 10.0
    factor: float = 2.0
    max_s: float = 600.0

    def delay_s(self, attempt_count: int) -> float:
        """The wait after the attempt_count-th (1, 2, …) attempt failed."""
        return float(min(self.max_s, self.first_s * self.factor ** min(attempt_count - 1, 64)))


@dataclass(frozen=True, slots=True)
class Handler:
    """One way to process tasks of one type. `retries` is how many attempts may follow the first; `payload` a pydantic model or None;
    `group` how many tasks one call takes at most, which waits at most `group_wait_s` to fill; `memory_mb` what an isolated one may use."""

    task_type: str
    function: Function
    timeout_s: float | None = None
    retries: int = 5
    backoff: Backoff = field(default_factory=Backoff)
    payload: type[Any] | None = None
    kind: Kind = Kind.THREAD
    group: int = 1
    group_wait_s: float = 0.2
    memory_mb: int | None = None

    @property
    def is_async(self) -> bool:
        """Whether it runs on an event loop, and has an AsyncContext."""
        return inspect.iscoroutinefunction(body_of(self.function))

    def validated(self, task: Task) -> Any:
        """A delivered task as the payload model (None without one): its fields, or the JSON of its data where that is what its publisher
        has said (raw, CloudEvents). Raises MessageRefused naming task and wrong fields, and a DependencyError that a validator of its
        own met."""
        if self.payload is None:
            return None
        about = f"{self.task_type} task {task.task_id}: "
        return self.checked(_data_of(task, about) if task.form in (RAW, CLOUD_EVENT) else task.fields, about)

    def checked(self, fields: Any, about: str = "") -> Any:
        """Fields as the payload model (None without one). Raises MessageRefused naming each wrong field, its reason led in by `about`."""
        if self.payload is None:
            return None
        from pydantic import ValidationError

        try:
            return self.payload.model_validate(dict(fields) if isinstance(fields, Mapping) else fields)
        except ValidationError as error:
            _raise_service(one.get("ctx", {}).get("error") for one in error.errors(include_url=False, include_input=False))
            wrong = _wrong_fields(error)
            reason = "; ".join(f"{name}: {problem}" for name, problem in wrong.items())
            raise MessageRefused("invalid", about + reason, tuple(wrong)) from error
        except UnicodeEncodeError as error:
            # What pydantic makes of a validator's message that is no proper text: the message itself is worth more.
            raise MessageRefused("invalid", about + plain(error.object)) from error
        except BaseException as error:
            # A validator is user code; pydantic lets through what is neither a ValueError nor an AssertionError: a parser's exit, for one.
            _raise_service([error])
            raise MessageRefused("invalid", f"{about}{class_name(error)}: {text_of(error)}") from error


def _data_of(task: Task, about: str) -> Any:
    """Raises MessageRefused for data that is not JSON."""
    try:
        return json.loads(task.data)
    except (ValueError, RecursionError) as error:
        raise MessageRefused("not_json", f"{about}its data is not JSON, which its payload model needs: {error}") from error


def _raise_service(errors: Iterable[object]) -> None:
    """Raises the DependencyError that speaks in an error of a validator: the task is not refused because a service was down."""
    for error in errors:
        speaker = speaking(error)[0] if isinstance(error, BaseException) else None
        if isinstance(speaker, DependencyError):
            raise speaker


class Registry:
    """Task types and their handlers."""

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}

    def task(
        self,
        task_type: str,
        *,
        timeout_s: float | None = None,
        retries: int = 5,
        backoff: Backoff | None = None,
        payload: type[Any] | None = None,
        isolation: str = "thread",
        group: int = 1,
        group_wait_s: float = 0.2,
        memory_mb: int | None = None,
    ) -> Callable[[Function], Function]:
        """Decorator: this function processes tasks of `task_type`. Raises SettingsError when the type is taken or an option is wrong.

        `isolation="process"` runs it in a child process that is killed at `timeout_s` and may use `memory_mb` at most; `group=N` gives
        it up to N tasks at a time, as lists. An async function runs on the worker's event loop.
        """
        if str(task_type).startswith(BUILT_IN):
            raise SettingsError([f"task type {task_type!r} is one of Fanout's own; give yours a name without {BUILT_IN!r}"])
        if task_type in self._handlers:
            raise SettingsError([f"task type {task_type!r} has two handlers; give one of them another name"])
        problems = _wrong_options(retries, timeout_s, isolation, group, group_wait_s, memory_mb)

        def register(function: Function) -> Function:
            wrong = list(problems)
            body = body_of(function)
            if inspect.isgeneratorfunction(body) or inspect.isasyncgenfunction(body):
                wrong.append("it is a generator, which would do nothing when it is called; return a result")
            is_async = inspect.iscoroutinefunction(body)
            if is_async and isolation == "process":
                wrong.append("an async function cannot be isolated; make it a plain one, or leave isolation out")
            if wrong:
                raise SettingsError([f"handler {task_type!r}: {one}" for one in wrong])
            kind = Kind.GROUP if group > 1 else Kind.PROCESS if isolation == "process" else Kind.ASYNC if is_async else Kind.THREAD
            self._handlers[task_type] = Handler(
                task_type, function, timeout_s, retries, backoff or Backoff(), payload, kind, group, group_wait_s, memory_mb
            )
            return function

        return register

    def limited(self, timeout_s: float | None) -> Registry:
        """The same handlers; those that name no time limit have this one. None: as they are."""
        if timeout_s is None:
            return self
        found = Registry()
        found._handlers = {
            name: handler if handler.timeout_s is not None else replace(handler, timeout_s=timeout_s)
            for name, handler in self._handlers.items()
        }
        return found

    def joined(self, *handlers: Handler) -> Registry:
        """The same handlers and these."""
        found = Registry()
        found._handlers = {**self._handlers, **{handler.task_type: handler for handler in handlers}}
        return found

    def without_built_in(self) -> Registry:
        """Only the handlers of others; itself if it has none of Fanout's own."""
        own = {task_type: handler for task_type, handler in self._handlers.items() if not task_type.startswith(BUILT_IN)}
        if len(own) == len(self._handlers):
            return self
        found = Registry()
        found._handlers = own
        return found

    def __getitem__(self, task_type: str) -> Handler:
        """Raises MessageRefused (`unknown_task_type`), with the nearest name that is known."""
        handler = self._handlers.get(task_type)
        if handler is None:
            near = difflib.get_close_matches(task_type, self._handlers, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "; is its module named in HANDLERS?"
            raise MessageRefused("unknown_task_type", f"no handler is registered for task_type {task_type[:128]!r}{hint}", ("task_type",))
        return handler

    def __contains__(self, task_type: object) -> bool:
        return task_type in self._handlers

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._handlers))


def body_of(function: Function) -> Function:
    """The function that a call runs: that of a partial, the `__call__` of an object."""
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.isroutine(function) or isinstance(function, type):
        return function
    body: Function = type(function).__call__
    return body


def _wrong_fields(error: ValidationError) -> dict[str, str]:
    """By field what is wrong with it; the message of a validator is user code's."""
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    return {plain(".".join(map(plain, one["loc"]))) or "task": plain(one["msg"].removeprefix("Value error, ")) for one in problems}


def _wrong_options(
    retries: int, timeout_s: float | None, isolation: str, group: int, group_wait_s: float, memory_mb: int | None
) -> list[str]:
    problems = []
    if retries < 0 or (timeout_s is not None and timeout_s <= 0):
        problems.append("retries must be 0 or more and timeout_s above 0")
    if isolation not in ("thread", "process"):
        problems.append(f"isolation must be 'thread' or 'process', got {isolation!r}")
    if not 1 <= group <= MAX_GROUP or group_wait_s < 0:
        problems.append(f"group must be from 1 to {MAX_GROUP} and group_wait_s 0 or more")
    if group > 1 and isolation == "process":
        problems.append("a grouped handler cannot be isolated; leave one of the two out")
    if memory_mb is not None and (memory_mb < MIN_MEMORY_MB or isolation != "process"):
        problems.append(f"memory_mb must be {MIN_MEMORY_MB} or more, and needs isolation='process'")
    return problems


default_registry = Registry()
task = default_registry.task


def load_handlers(modules: Iterable[str], registry: Registry = default_registry) -> Registry:
    """Import the modules, whose `@task` functions fill the registry. Raises SettingsError naming each module that cannot be imported."""
    problems: list[str] = []
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            problems.append(f"HANDLERS: cannot import {module!r}: {text_of(error)}; give importable module names, separated by commas")
        except SettingsError as error:
            problems += [f"HANDLERS: {module}: {problem}" for problem in error.problems]
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a module may raise anything; its operator must read what
            problems.append(f"HANDLERS: importing {module!r} failed: {class_name(error)}: {text_of(error)}")
    if problems:
        raise SettingsError(problems)
    return registry
