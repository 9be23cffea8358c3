"""Running one handler on one task in memory. What it raises and returns comes out as the functions of the worker judge it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from batch.handling.answer import wrong_results
from batch.handling.context import AsyncContext, Context
from batch.handling.registry import Function, Handler, Kind, Registry, default_registry
from batch.handling.results import Written
from batch.model.clock import Clock, iso
from batch.model.delivery import Outgoing
from batch.model.errors import FanoutError
from batch.model.message import Task
from batch.services.ports import ObjectStore
from batch.testing.bounded import checked, heard, result_of
from batch.testing.clock import ManualClock
from batch.testing.messages import task_of
from batch.testing.objects import MemoryObjectStore
from batch.testing.observed import HandlerClock

TASK_ID = "00000000-0000-4000-8000-000000000001"


@dataclass(frozen=True, slots=True)
class HandlerRun:
    """One run: what the handler returned, what it wrote, and the task and store it ran with."""

    result: Any
    outputs: tuple[Written, ...]
    task: Task
    store: ObjectStore

    def data(self, name: str = "") -> bytes:
        """An object that this run wrote; without a name its only one. Raises AssertionError when there is none, or more than one."""
        names = sorted({one.name for one in self.outputs})
        found = [one for one in names if one == name or not name]
        if len(found) != 1:
            wanted = f"write {name!r}" if name else "write exactly one object"
            raise AssertionError(f"the handler did not {wanted}; it wrote {', '.join(map(repr, names)) or 'nothing'}")
        return self.store.read(found[0])

    def text(self, name: str = "") -> str:
        """As `data`, in UTF-8."""
        return self.data(name).decode()

    def json(self, name: str = "") -> Any:
        """As `data`, parsed."""
        return json.loads(self.data(name))


def run_handler(
    handler: Function | str,
    fields: Mapping[str, Any] | Outgoing,
    *,
    objects: Mapping[str, bytes] | None = None,
    store: ObjectStore | None = None,
    clock: Clock | None = None,
    attempt: int = 1,
    task_id: str = TASK_ID,
    submitted_at: str | None = None,
    registry: Registry = default_registry,
) -> HandlerRun:
    """Run a handler, named by its task type or given as a function, on a task with these fields, or on the task of a message that was not
    written for Fanout (`raw`, `notification`, `cloud_event`, `structured`). `objects` are put into the bucket first.

    Options come from the registry where it knows the handler; its payload model is checked first. Sync and async functions alike; a
    grouped one gets a group of one, an isolated one runs in this process, where its memory has no limit. Raises what the handler raises
    (Permanent, Retry, Snooze, Superseded …), and of an error group, or a wrapped error, what a worker hears of it; MessageRefused when the
    type is unknown or the fields are invalid for it; TimeoutError beyond its `timeout_s`; TypeError or ValueError for a result that is no
    JSON, WrongResults for one of a grouped handler that does not fit: with the words of the worker.
    """
    clock = clock or ManualClock()
    store = store if store is not None else MemoryObjectStore(clock=clock)
    found = handler_of(handler, registry)
    task = made_task(fields, found.task_type, task_id, submitted_at or iso(clock.now()))
    put(store, objects)
    (run,) = _run(found, [task], store, clock, attempt) if found.kind is Kind.GROUP else [_run_alone(found, task, store, clock, attempt)]
    if isinstance(run, BaseException):
        raise run
    return run


def run_group(
    handler: Function | str,
    fields_of_tasks: Sequence[Mapping[str, Any] | Outgoing],
    *,
    objects: Mapping[str, bytes] | None = None,
    store: ObjectStore | None = None,
    clock: Clock | None = None,
    attempt: int = 1,
    registry: Registry = default_registry,
) -> list[HandlerRun | BaseException]:
    """Call a grouped handler once, with a task for each of these fields, `task-1`, `task-2` …; for each, its run or its error: the one that
    the handler returned in its place, MessageRefused where the payload is refused (the call is without it), TypeError or ValueError where
    the result is no JSON. Raises what the handler raises for all; WrongResults when it does not return one result for each.
    """
    clock = clock or ManualClock()
    store = store if store is not None else MemoryObjectStore(clock=clock)
    found = handler_of(handler, registry)
    put(store, objects)
    at = iso(clock.now())
    tasks = [made_task(one, found.task_type, f"task-{number}", at) for number, one in enumerate(fields_of_tasks, 1)]
    return _run(found, tasks, store, clock, attempt)


def handler_of(handler: Function | str, registry: Registry) -> Handler:
    """By its type or function; a function that is not registered has the options of a plain handler. Raises MessageRefused."""
    if isinstance(handler, str):
        return registry[handler]
    for task_type in registry:
        if registry[task_type].function is handler:
            return registry[task_type]
    return Handler(getattr(handler, "__name__", "function"), handler)


def made_task(given: Mapping[str, Any] | Outgoing, task_type: str, task_id: str, submitted_at: str) -> Task:
    """A task with these fields, or that of a message. Raises MessageRefused."""
    if isinstance(given, Outgoing):
        return replace(task_of(given, task_type, submitted_at), task_id=task_id)
    return Task(task_id, task_type, submitted_at, dict(given), lane="test", shard="test")


def put(store: ObjectStore, objects: Mapping[str, bytes] | None) -> None:
    """What lies in the bucket before a handler runs."""
    for name, data in (objects or {}).items():
        store.write(name, data)


def _run_alone(handler: Handler, task: Task, store: ObjectStore, clock: Clock, attempt: int) -> HandlerRun:
    ctx = _context(handler, task, store, clock, attempt)
    result = checked(result_of(handler, task, ctx))
    return HandlerRun(result, tuple(ctx.outputs), task, store)


def _run(handler: Handler, tasks: Sequence[Task], store: ObjectStore, clock: Clock, attempt: int) -> list[HandlerRun | BaseException]:
    found: dict[str, Context | AsyncContext | BaseException] = {}
    for task in tasks:
        try:
            found[task.task_id] = _context(handler, task, store, clock, attempt)
        except FanoutError as error:  # as a worker: such a task is never in a group
            found[task.task_id] = error
    ctxs = [one for one in found.values() if not isinstance(one, BaseException)]
    results = result_of(handler, [ctx.task for ctx in ctxs], list(ctxs)) if ctxs else []
    if not isinstance(results, list | tuple) or len(results) != len(ctxs):
        raise wrong_results(results, len(ctxs))
    left = iter(results)
    return [one if isinstance(one, BaseException) else _of_group(next(left), one) for one in found.values()]


def _of_group(result: Any, ctx: Context | AsyncContext) -> HandlerRun | BaseException:
    if isinstance(result, BaseException):
        return heard(result)
    try:
        return HandlerRun(checked(result), tuple(ctx.outputs), ctx.task, ctx.store)
    except (TypeError, ValueError) as error:
        return error


def _context(handler: Handler, task: Task, store: ObjectStore, clock: Clock, attempt: int) -> Context | AsyncContext:
    deadline_s = None if handler.timeout_s is None else clock.monotonic() + handler.timeout_s
    if handler.timeout_s is not None and isinstance(clock, ManualClock) and clock.waits_move:
        clock = HandlerClock(clock, handler)
    kind = AsyncContext if handler.is_async else Context
    return kind(task, store, clock, attempt, deadline_s, payload=handler.validated(task))
