"""Which executor serves which line: made from a worker's parts, once, before anything starts."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue

from batch.clock import Clock
from batch.config import WorkerSettings
from batch.registry import Registry
from batch.worker.executors import Executor, Executors, lines_of
from batch.worker.finished import Finished
from batch.worker.ready import Ready
from batch.worker.runner import Runner
from batch.worker.slots import Slots
from batch.worker.tally import Tally


@dataclass(frozen=True, slots=True)
class Parts:
    """What every executor of a worker needs. `failed` is told when an executor itself breaks; `inbox` is the committer's."""

    settings: WorkerSettings
    registry: Registry
    runner: Runner
    inbox: SimpleQueue[list[Finished] | None]
    tally: Tally
    clock: Clock
    failed: Callable[[BaseException], None]


def assembled(parts: Parts) -> Executors:
    """The executors that the registry's handlers need."""
    changed = threading.Condition()
    lines = {line: _threads(parts, Ready(changed)) for line in lines_of(parts.registry)}
    return Executors(lines, parts.registry, changed)


def _threads(parts: Parts, ready: Ready) -> Executor:
    return Slots(parts.settings.concurrency, ready, parts.inbox, parts.runner, parts.tally, parts.clock, parts.failed)
