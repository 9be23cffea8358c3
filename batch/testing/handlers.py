"""Running one handler on one task in memory. It judges nothing: what the handler raises comes out as it is."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from batch.clock import Clock, iso
from batch.context import Context
from batch.message import Task
from batch.objects import ObjectStore
from batch.registry import Function, Handler, Registry, default_registry
from batch.results import Written
from batch.testing.clock import ManualClock
from batch.testing.objects import MemoryObjectStore


@dataclass(frozen=True, slots=True)
class HandlerRun:
    """What became of one run: what the handler returned, what it wrote, and the task and store it ran with."""

    result: Any
    outputs: tuple[Written, ...]
    task: Task
    store: ObjectStore


def run_handler(
    handler: Function | str,
    fields: Mapping[str, Any],
    *,
    store: ObjectStore | None = None,
    clock: Clock | None = None,
    attempt: int = 1,
    task_id: str = "00000000-0000-4000-8000-000000000001",
    registry: Registry = default_registry,
) -> HandlerRun:
    """Run a handler, named by its task type or given as a function, on a task with these fields.

    Options come from the registry where it knows the handler; its payload model is checked first. Sync and async
    functions alike. Raises what the handler raises (Permanent, Retry, Snooze, Superseded …), MessageRefused when the
    type is unknown or the fields are invalid for it.
    """
    clock = clock or ManualClock()
    store = store if store is not None else MemoryObjectStore(clock=clock)
    found = registry[handler] if isinstance(handler, str) else _registered(handler, registry)
    task = Task(task_id, found.task_type, iso(clock.now()), dict(fields), lane="test", shard="test")
    deadline_s = None if found.timeout_s is None else clock.monotonic() + found.timeout_s
    ctx = Context(task, store, clock, attempt, deadline_s, payload=found.validated(task))
    result = found.function(task, ctx)
    if inspect.iscoroutine(result):
        result = asyncio.run(result)
    return HandlerRun(result, tuple(ctx.outputs), task, store)


def _registered(function: Function, registry: Registry) -> Handler:
    for task_type in registry:
        if registry[task_type].function is function:
            return registry[task_type]
    return Handler(getattr(function, "__name__", "function"), function)
