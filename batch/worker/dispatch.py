"""All executors of a worker as one: each kind of handler has an executor with a queue of its own, and deliveries are sorted into them.

A worker whose handlers are all of one kind sorts nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from batch.handling.registry import Kind, Registry
from batch.model.delivery import Delivery
from batch.model.message import task_type_of
from batch.model.progress import RunningTask
from batch.worker.attempt import Work
from batch.worker.executors.guard import Guard
from batch.worker.executors.quarantine import Quarantine
from batch.worker.executors.running import Running
from batch.worker.executors.slow import SlowWatch
from batch.worker.ready_queue import Changes, ReadyQueue
from batch.worker.redelivered import Redelivered


class Executor(Protocol):
    """Runs what waits in its queue. `concurrency`: how many messages it runs at a time when it is full."""

    concurrency: int
    queue: ReadyQueue

    def start(self) -> None:
        """Begin to take from the queue."""

    @property
    def busy_count(self) -> int:
        """Messages whose handlers run at this moment."""

    def running(self) -> list[Running]:
        """The calls of handlers that have not come back."""

    def flush(self) -> None:
        """Called several times a second: hand over what is finished, let nothing wait behind a slow handler."""

    def shut_down(self) -> None:
        """The end: what is finished goes to the committer, what has not started is nacked."""


class Executors:
    """By the name of an executor's queue, with the stage before it: one for each kind of handler, and for each grouped handler one of its
    own. Quarantined tasks of all of them share one executor."""

    def __init__(
        self,
        executors: Mapping[str, tuple[Redelivered, Executor]],
        quarantine: Quarantine,
        registry: Registry,
        changes: Changes,
        guard: Guard,
        slow: SlowWatch,
    ) -> None:
        """`changes` are those of all queues."""
        self._stages = {name: stage for name, (stage, _) in executors.items()}
        self._executors = [executor for _, executor in executors.values()]
        self._quarantine = quarantine
        self._everyone: Sequence[Executor | Quarantine] = (*self._executors, quarantine)
        self._registry = registry
        self.changes = changes
        self._guard = guard
        self._slow = slow
        self._first = next(iter(self._stages.values()))

    def put(self, deliveries: Sequence[Delivery]) -> None:
        """To the queues of their handlers; a message that cannot be read may go to any."""
        if len(self._stages) == 1:
            self._first.put(deliveries)
            return
        by_queue: dict[str, list[Delivery]] = {}
        for delivery in deliveries:
            by_queue.setdefault(queue_of(delivery, self._registry), []).append(delivery)
        for name, of_queue in by_queue.items():
            self._stages.get(name, self._first).put(of_queue)

    def start(self) -> None:
        for executor in self._executors:
            executor.start()

    @property
    def concurrency(self) -> int:
        return sum(executor.concurrency for executor in self._executors)

    @property
    def busy_count(self) -> int:
        return sum(executor.busy_count for executor in self._executors)

    @property
    def waiting_count(self) -> int:
        return sum(len(stage) for stage in self._stages.values())

    def running(self) -> list[Running]:
        return [one for executor in self._everyone for one in executor.running()]

    def flush(self) -> None:
        for executor in self._everyone:
            executor.flush()
        self._guard.look(lambda: [work for one in self.running() for work in one.works])
        self._slow.look(self.running)

    def longest_running(self) -> tuple[RunningTask, ...]:
        """The tasks that have been running longest, for the worker's progress."""
        return self._slow.longest(self.running())

    def close(self) -> list[Work]:
        """Start nothing more; returns what had not started and may be nacked at once."""
        return [*(work for stage in self._stages.values() for work in stage.close()), *self._quarantine.close()]

    def shut_down(self) -> None:
        for executor in self._everyone:
            executor.shut_down()

    def nudge(self) -> None:
        self.changes.tell(always=True)


def queue_name(kind: Kind, task_type: str) -> str:
    """The queue of a handler: its kind's, or its own when it is grouped."""
    return f"{kind.value}:{task_type}" if kind is Kind.GROUP else kind.value


def queues_of(registry: Registry) -> dict[str, list[str]]:
    """The queues that a registry's handlers need, with the task types of each; threads when there are none."""
    queues: dict[str, list[str]] = {}
    for task_type in registry:
        queues.setdefault(queue_name(registry[task_type].kind, task_type), []).append(task_type)
    return queues or {Kind.THREAD.value: []}


def queue_of(delivery: Delivery, registry: Registry) -> str:
    """The queue of the handler that a message's data asks for; that of threads when it cannot be told. Attributes may lie, data decides."""
    task_type = task_type_of(delivery.data)
    if task_type is None or task_type not in registry:
        return Kind.THREAD.value
    return queue_name(registry[task_type].kind, task_type)
