"""All executors of a worker as one: each kind of handler has an executor with a queue of its own, and deliveries are sorted into them.

A worker whose handlers are all of one kind sorts nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from batch.formats.forms import ENVELOPES, Forms, is_built_in
from batch.handling.registry import Kind, Registry
from batch.model.delivery import Delivery
from batch.model.message import BUILT_IN
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
        built_in: tuple[Redelivered, Executor] | None = None,
        forms: Forms = ENVELOPES,
    ) -> None:
        """`changes` are those of all queues; `forms` those of the lane's messages. `built_in`: threads for Fanout's own task types, where
        no handler runs in threads."""
        self._stages = {name: stage for name, (stage, _) in executors.items()}
        self._executors = [executor for _, executor in executors.values()]
        self._sorts = len(executors) > 1
        self._built_in = None if built_in is None else built_in[0]
        self._built_in_types = {task_type for task_type in registry if task_type.startswith(BUILT_IN)}
        if built_in is not None:
            self._stages[Kind.THREAD.value] = built_in[0]
        self._quarantine = quarantine
        others = [quarantine] if built_in is None else [built_in[1], quarantine]
        self._everyone: Sequence[Executor | Quarantine] = (*self._executors, *others)
        self._registry = registry
        self._forms = forms
        self.changes = changes
        self._guard = guard
        self._slow = slow
        self._first = next(iter(self._stages.values()))

    def put(self, deliveries: Sequence[Delivery]) -> None:
        """To the queues of their handlers; a message that cannot be read may go to any."""
        if not self._sorts:
            if self._built_in is not None:
                deliveries = self._beside(self._built_in, deliveries)
            self._first.put(deliveries)
            return
        by_queue: dict[str, list[Delivery]] = {}
        for delivery in deliveries:
            by_queue.setdefault(queue_of(delivery, self._registry, self._forms), []).append(delivery)
        for name, of_queue in by_queue.items():
            self._stages.get(name, self._first).put(of_queue)

    def _beside(self, stage: Redelivered, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Those that are not for Fanout's own handlers. The attributes tell, which its messages always have: data would have to be read for
        each, and a message without them is refused by the other executor. Where they say so the data decides: they may lie."""
        types = self._built_in_types
        if types.isdisjoint([one.attributes.get("task_type") for one in deliveries]):
            return deliveries
        ours = [one.attributes.get("task_type") in types and is_built_in(one.data, one.attributes) for one in deliveries]
        stage.put([one for one, is_ours in zip(deliveries, ours, strict=True) if is_ours])
        return [one for one, is_ours in zip(deliveries, ours, strict=True) if not is_ours]

    def start(self) -> None:
        for executor in self._everyone:
            if not isinstance(executor, Quarantine):
                executor.start()

    @property
    def concurrency(self) -> int:
        """Of the handlers: what Fanout's own tasks need beside them asks for no messages."""
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
    """The queues that a registry's handlers need, with the task types of each; threads when there are none. Fanout's own types ask for
    none: a worker whose handlers are all of another kind would sort each message for their sake."""
    queues: dict[str, list[str]] = {}
    for task_type in registry:
        if task_type.startswith(BUILT_IN):
            continue
        queues.setdefault(queue_name(registry[task_type].kind, task_type), []).append(task_type)
    return queues or {Kind.THREAD.value: []}


def queue_of(delivery: Delivery, registry: Registry, forms: Forms = ENVELOPES) -> str:
    """The queue of the handler that a message asks for; that of threads when it cannot be told. Of an envelope attributes may lie, data
    decides."""
    task_type = forms.type_of(delivery.data, delivery.attributes)
    if task_type is None or task_type not in registry:
        return Kind.THREAD.value
    return queue_name(registry[task_type].kind, task_type)
