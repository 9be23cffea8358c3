"""Which executor serves which line: made from a worker's parts, once, before anything starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue

from batch.handling.registry import Kind, Registry
from batch.model.clock import Clock
from batch.settings import WorkerSettings
from batch.worker.dispatch import Executor, Executors, lines_of
from batch.worker.executors.async_tasks import AsyncSlots
from batch.worker.executors.groups import Groups, is_async
from batch.worker.executors.loop import Loop
from batch.worker.executors.processes import IsolatedSlots, Isolation, process_count
from batch.worker.executors.quarantine import Quarantine
from batch.worker.executors.threads import Slots
from batch.worker.finished import Finished, Nack
from batch.worker.ready_queue import Changes, Ready
from batch.worker.redelivered import Places, Redelivered
from batch.worker.runner import Runner
from batch.worker.tally import Tally


@dataclass(frozen=True, slots=True)
class Parts:
    """What every executor of a worker needs. `failed` is told when an executor itself breaks, `broken` when no handler of its kind could
    run; `inbox` is the committer's."""

    settings: WorkerSettings
    registry: Registry
    runner: Runner
    inbox: SimpleQueue[list[Finished] | None]
    tally: Tally
    clock: Clock
    failed: Callable[[BaseException], None]
    broken: Callable[[str], None]


def assembled(parts: Parts) -> Executors:
    """The executors that the registry's handlers need."""
    isolation, quarantine = _isolation(parts)
    changes = Changes()
    lines, loop = lines_of(parts.registry), _loop(parts)
    executors = {}
    for line, task_types in lines.items():
        redelivered = Redelivered(parts.runner, quarantine, parts.inbox, parts.tally, parts.clock)
        ready = Ready(changes, redelivered)
        redelivered.enter = ready.put_back
        executor = executors[line] = _executor(line, task_types, parts, ready, isolation, loop)
        redelivered.places = Places(partial(getattr, executor, "place_count"), partial(getattr, executor, "busy_count"))
    return Executors(executors, parts.registry, changes)


def _loop(parts: Parts) -> Loop:
    """The event loop of all async handlers; it is started, if at all, by those who use it."""
    handlers = [parts.registry[task_type] for task_type in parts.registry]
    groups = sum(handler.kind is Kind.GROUP and is_async(handler) for handler in handlers)
    users = groups + any(handler.kind is Kind.ASYNC for handler in handlers)
    return Loop(users, parts.settings.concurrency, parts.clock, parts.failed)


def _isolation(parts: Parts) -> tuple[Isolation, Quarantine]:
    """Children for isolated handlers, and for quarantined tasks of any kind; none is started before it is needed."""
    runner = parts.runner
    isolation = Isolation(parts.settings, runner.store, parts.clock, runner.stopping, runner.admission.end_s, parts.broken)
    quarantine = Quarantine(parts.settings, isolation, runner.stopping)
    runner.alone = quarantine.call

    def at_end() -> None:
        left = quarantine.reclaim()
        if left:
            parts.inbox.put([Nack(delivery.ack_id) for delivery in left])
        isolation.abandon()
        runner.verdicts.starts.let_go()

    runner.at_end = at_end
    return isolation, quarantine


def _executor(line: str, task_types: list[str], parts: Parts, ready: Ready, isolation: Isolation, loop: Loop) -> Executor:
    if line == Kind.ASYNC:
        return AsyncSlots(parts.settings.concurrency, ready, parts.inbox, parts.runner, parts.tally, parts.clock, loop)
    if line.startswith(Kind.GROUP):
        handler = parts.registry[task_types[0]]
        return Groups(handler, ready, parts.inbox, parts.runner, parts.tally, parts.clock, parts.failed, loop)
    if line == Kind.PROCESS:
        count = process_count(parts.settings)
        return IsolatedSlots(isolation, count, ready, parts.inbox, parts.runner, parts.tally, parts.clock, parts.failed)
    return _threads(parts, ready)


def _threads(parts: Parts, ready: Ready) -> Executor:
    return Slots(parts.settings.concurrency, ready, parts.inbox, parts.runner, parts.tally, parts.clock, parts.failed)
