"""Which executor serves which queue: made from a worker's parts, once, before anything starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue

from batch.handling.registry import Kind, Registry
from batch.model.clock import Clock
from batch.settings import WorkerSettings
from batch.worker.admission.markers import Markers
from batch.worker.attempt import Finished
from batch.worker.dispatch import Executor, Executors, queues_of
from batch.worker.executors.async_tasks import AsyncExecutor
from batch.worker.executors.groups import GroupExecutor, concurrency_of, is_async
from batch.worker.executors.loop import Loop
from batch.worker.executors.processes import Isolation, ProcessExecutor, process_count
from batch.worker.executors.quarantine import Quarantine
from batch.worker.executors.runner import Runner
from batch.worker.executors.threads import ThreadExecutor
from batch.worker.ready_queue import Changes, ReadyQueue
from batch.worker.redelivered import Redelivered
from batch.worker.tally import Tally


@dataclass(frozen=True, slots=True)
class Parts:
    """What every executor of a worker needs. `failed` is told when an executor itself breaks, `broken` when no handler of its kind could
    run; `inbox` is the committer's."""

    settings: WorkerSettings
    registry: Registry
    runner: Runner
    markers: Markers
    inbox: SimpleQueue[list[Finished] | None]
    tally: Tally
    clock: Clock
    failed: Callable[[BaseException], None]
    broken: Callable[[str], None]


def assembled(parts: Parts) -> Executors:
    """The executors that the registry's handlers need. No child process is started before it is needed."""
    runner, inbox, tally, clock = parts.runner, parts.inbox, parts.tally, parts.clock
    isolation = Isolation(parts.settings, runner.store, clock, runner.stopping, runner.admission.end_s, parts.broken)
    quarantine = Quarantine(parts.settings, isolation, runner, inbox, tally, clock, parts.failed)
    changes, loop = Changes(), _loop(parts)
    executors = {}
    for name, task_types in queues_of(parts.registry).items():
        concurrency = _concurrency(name, task_types, parts)
        stage = Redelivered(runner, parts.markers, quarantine, inbox, tally, changes, concurrency)
        executors[name] = stage, _executor(name, task_types, concurrency, stage.queue, parts, isolation, loop)
    return Executors(executors, quarantine, parts.registry, changes)


def _loop(parts: Parts) -> Loop:
    """The event loop of all async handlers; it is started, if at all, by those who use it."""
    handlers = [parts.registry[task_type] for task_type in parts.registry]
    groups = sum(handler.kind is Kind.GROUP and is_async(handler) for handler in handlers)
    users = groups + any(handler.kind is Kind.ASYNC for handler in handlers)
    return Loop(users, parts.settings.concurrency, parts.clock, parts.failed)


def _concurrency(name: str, task_types: list[str], parts: Parts) -> int:
    if name.startswith(Kind.GROUP):
        return concurrency_of(parts.registry[task_types[0]])
    return process_count(parts.settings) if name == Kind.PROCESS else parts.settings.concurrency


def _executor(
    name: str, task_types: list[str], concurrency: int, queue: ReadyQueue, parts: Parts, isolation: Isolation, loop: Loop
) -> Executor:
    inbox, runner, tally, clock, failed = parts.inbox, parts.runner, parts.tally, parts.clock, parts.failed
    if name == Kind.ASYNC:
        return AsyncExecutor(concurrency, queue, inbox, runner, tally, clock, loop)
    if name.startswith(Kind.GROUP):
        return GroupExecutor(parts.registry[task_types[0]], queue, inbox, runner, tally, clock, failed, loop)
    if name == Kind.PROCESS:
        return ProcessExecutor(isolation, concurrency, queue, inbox, runner, tally, clock, failed)
    return ThreadExecutor(concurrency, queue, inbox, runner, tally, clock, failed)
