"""Which executor serves which queue: made from a worker's parts, once, before anything starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from batch.handling.registry import Kind, Registry
from batch.settings import WorkerSettings
from batch.worker.admission.markers import Markers
from batch.worker.dispatch import Executor, Executors, queues_of
from batch.worker.executors.async_tasks import AsyncExecutor
from batch.worker.executors.groups import GroupExecutor, concurrency_of
from batch.worker.executors.guard import Guard
from batch.worker.executors.loop import Loop
from batch.worker.executors.processes import Isolation, ProcessExecutor, process_count
from batch.worker.executors.quarantine import Quarantine
from batch.worker.executors.runner import Parts
from batch.worker.executors.slow import SlowWatch
from batch.worker.executors.threads import ThreadExecutor
from batch.worker.ready_queue import Changes
from batch.worker.redelivered import Redelivered

BUILT_IN_THREADS = 2
"""For Fanout's own tasks, in a worker without threads for others."""


def assembled(settings: WorkerSettings, registry: Registry, markers: Markers, parts: Parts, unable: Callable[[str], None]) -> Executors:
    """The executors that the registry's handlers need. No child process is started before it is needed; `unable` is called with the reason
    when none can be."""
    runner = parts.runner
    cancelled_by = runner.verdicts.cancelled_by
    isolation = Isolation(settings, runner.store, parts.clock, runner.stopping, runner.admission.end_s, unable, cancelled_by)
    quarantine = Quarantine(settings, isolation, parts)
    changes, loop = Changes(), _loop(settings, registry, parts)
    executors: dict[str, tuple[Redelivered, Executor]] = {}
    queues = queues_of(registry)
    for name, task_types in queues.items():
        handler = registry[task_types[0]] if name.startswith(Kind.GROUP) else None
        concurrency = settings.concurrency
        if handler is not None:
            concurrency = concurrency_of(handler)
        elif name == Kind.PROCESS:
            concurrency = process_count(settings)
        stage = Redelivered(markers, quarantine, changes, concurrency, parts)
        executor: Executor
        if handler is not None:
            executor = GroupExecutor(handler, stage.queue, parts, loop)
        elif name == Kind.ASYNC:
            executor = AsyncExecutor(concurrency, stage.queue, parts, loop)
        elif name == Kind.PROCESS:
            executor = ProcessExecutor(isolation, concurrency, stage.queue, parts)
        else:
            executor = ThreadExecutor(concurrency, stage.queue, parts)
        executors[name] = stage, executor
    built_in: tuple[Redelivered, Executor] | None = None
    if Kind.THREAD not in queues and (own := registry.without_built_in()) is not registry:
        # Only they may call those handlers: another executor would hand their tasks to a handler of its own.
        with_them = replace(parts, runner=replace(runner, admission=replace(runner.admission)))
        runner.admission.registry = own
        stage = Redelivered(markers, quarantine, changes, BUILT_IN_THREADS, with_them)
        built_in = stage, ThreadExecutor(BUILT_IN_THREADS, stage.queue, with_them)
    here = [task_type for task_type in registry if registry[task_type].kind is not Kind.PROCESS]
    slow = SlowWatch(settings.slow_after_s, settings.task_timeout_s / 2, runner, parts.clock)
    forms = runner.admission.forms
    return Executors(executors, quarantine, registry, changes, Guard(parts.clock, here), slow, built_in, forms)


def _loop(settings: WorkerSettings, registry: Registry, parts: Parts) -> Loop:
    """The event loop of all async handlers; it is started, if at all, by those who use it."""
    handlers = [registry[task_type] for task_type in registry]
    groups = sum(handler.kind is Kind.GROUP and handler.is_async for handler in handlers)
    users = groups + any(handler.kind is Kind.ASYNC for handler in handlers)
    return Loop(users, settings.concurrency, parts.clock, parts.failed)
