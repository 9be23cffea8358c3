"""Handlers by task type: the `@task` decorator, and the table that a worker looks types up in.

    @task("thumbnail", timeout_s=60, retries=3)
    def thumbnail(task, ctx): ...

A type has one handler; registering it twice is an error, not an override.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from batch.errors import MessageRefused, SettingsError, text_of

if TYPE_CHECKING:
    from batch.context import Context
    from batch.message import Task

Function = Callable[["Task", "Context"], Any]


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
    """One way to process tasks of one type. `retries` is how many attempts may follow the first; `payload` a pydantic model or None."""

    task_type: str
    function: Function
    timeout_s: float | None = None
    retries: int = 5
    backoff: Backoff = field(default_factory=Backoff)
    payload: type[Any] | None = None

    def validated(self, task: Task) -> Any:
        """The task's fields as the payload model (None without one). Raises MessageRefused naming each wrong field."""
        if self.payload is None:
            return None
        from pydantic import ValidationError

        try:
            return self.payload.model_validate(dict(task.fields))
        except ValidationError as error:
            problems = "; ".join(f"{'.'.join(map(str, one['loc'])) or 'task'}: {one['msg']}" for one in error.errors())
            raise MessageRefused("invalid", f"{self.task_type} task {task.task_id}: {problems}") from error
        except Exception as error:
            # A validator is user code; pydantic lets through what is neither a ValueError nor an AssertionError.
            raise MessageRefused("invalid", f"{self.task_type} task {task.task_id}: {type(error).__name__}: {text_of(error)}") from error


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
    ) -> Callable[[Function], Function]:
        """Decorator: this function processes tasks of `task_type`. Raises SettingsError when the type is taken or an option is wrong."""
        if task_type in self._handlers:
            raise SettingsError([f"task type {task_type!r} has two handlers; give one of them another name"])
        if retries < 0 or (timeout_s is not None and timeout_s <= 0):
            raise SettingsError([f"handler {task_type!r}: retries must be 0 or more and timeout_s above 0"])

        def register(function: Function) -> Function:
            if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
                raise SettingsError([f"handler {task_type!r} is a generator, which would do nothing when it is called; return a result"])
            self._handlers[task_type] = Handler(task_type, function, timeout_s, retries, backoff or Backoff(), payload)
            return function

        return register

    def __getitem__(self, task_type: str) -> Handler:
        """Raises MessageRefused (`unknown_task_type`), with the nearest name that is known."""
        handler = self._handlers.get(task_type)
        if handler is None:
            near = difflib.get_close_matches(task_type, self._handlers, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "; is its module named in HANDLERS?"
            raise MessageRefused("unknown_task_type", f"no handler is registered for task_type {task_type[:128]!r}{hint}")
        return handler

    def __contains__(self, task_type: object) -> bool:
        return task_type in self._handlers

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._handlers))


default_registry = Registry()
task = default_registry.task


def load_handlers(modules: Iterable[str], registry: Registry = default_registry) -> Registry:
    """Import the modules, whose `@task` functions fill the registry. Raises SettingsError naming each module that cannot be imported."""
    problems: list[str] = []
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            problems.append(f"HANDLERS: cannot import {module!r}: {error}; give importable module names, separated by commas")
        except SettingsError as error:
            problems += [f"HANDLERS: {module}: {problem}" for problem in error.problems]
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a module may raise anything; the one who named it must hear of it
            problems.append(f"HANDLERS: importing {module!r} failed: {type(error).__name__}: {error}")
    if problems:
        raise SettingsError(problems)
    return registry
