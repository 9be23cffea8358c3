"""All executors of a worker as one: each kind of handler has an executor with a line of its own, and deliveries are sorted into them.

A worker whose handlers are all of one kind sorts nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from batch.handling.registry import Kind, Registry
from batch.model.delivery import Delivery
from batch.model.message import task_type_of
from batch.worker.ready_queue import Changes, Ready


class Executor(Protocol):
    """Runs what waits in its line. `place_count`: how many messages it has in hand at a time when it is full."""

    ready: Ready
    place_count: int

    def start(self) -> None:
        """Begin to take from the line."""

    @property
    def busy_count(self) -> int:
        """Places whose handler runs at this moment."""

    def running(self) -> list[Delivery]:
        """The deliveries whose handlers run at this moment."""

    def relieve(self) -> None:
        """Called several times a second: hand over what is finished, let nothing wait behind a slow handler."""

    def reclaim(self) -> None:
        """The end: what is finished goes to the committer, what has not started goes back."""


class Executors:
    """By a handler's line: one of its kind, and each grouped handler has one of its own."""

    def __init__(self, executors: Mapping[str, Executor], registry: Registry, changes: Changes) -> None:
        """`changes` are those of all lines."""
        self._executors = dict(executors)
        self._registry = registry
        self.changes = changes
        self._first = next(iter(self._executors.values()))

    def put(self, deliveries: Iterable[Delivery]) -> None:
        """To the lines of their handlers; what nobody can read may go to any."""
        if len(self._executors) == 1:
            self._first.ready.put(deliveries)
            return
        sorted_out: dict[str, list[Delivery]] = {}
        for delivery in deliveries:
            sorted_out.setdefault(line_of(delivery, self._registry), []).append(delivery)
        for line, of_line in sorted_out.items():
            self._executors.get(line, self._first).ready.put(of_line)

    def start(self) -> None:
        for executor in self._all():
            executor.start()

    @property
    def place_count(self) -> int:
        return sum(executor.place_count for executor in self._all())

    @property
    def busy_count(self) -> int:
        return sum(executor.busy_count for executor in self._all())

    @property
    def waiting_count(self) -> int:
        return sum(len(executor.ready) for executor in self._all())

    @property
    def waiting_bytes(self) -> int:
        return sum(executor.ready.byte_count for executor in self._all())

    def running(self) -> list[Delivery]:
        return [delivery for executor in self._all() for delivery in executor.running()]

    def relieve(self) -> None:
        for executor in self._all():
            executor.relieve()

    def close(self) -> list[Delivery]:
        """Start nothing more; returns what had not started."""
        return [delivery for executor in self._all() for delivery in executor.ready.close()]

    def reclaim(self) -> None:
        for executor in self._all():
            executor.reclaim()

    def wait_change(self, timeout_s: float, unless: Callable[[], bool] = lambda: False) -> None:
        """Return when messages came or went in any line, or `nudge` was called, at the latest after `timeout_s`; at once when
        `unless()` holds, which nothing can change unnoticed once it was asked."""
        self.changes.wait(timeout_s, unless)

    def nudge(self) -> None:
        self.changes.tell(always=True)

    def _all(self) -> Iterable[Executor]:
        return self._executors.values()


def line_name(kind: Kind, task_type: str) -> str:
    """The line of a handler: its kind's, or its own when it is grouped."""
    return f"{kind.value}:{task_type}" if kind is Kind.GROUP else kind.value


def lines_of(registry: Registry) -> dict[str, list[str]]:
    """The lines that a registry's handlers need, with the task types of each; threads when there are none."""
    lines: dict[str, list[str]] = {}
    for task_type in registry:
        lines.setdefault(line_name(registry[task_type].kind, task_type), []).append(task_type)
    return lines or {Kind.THREAD.value: []}


def line_of(delivery: Delivery, registry: Registry) -> str:
    """The line of the handler that a message's data asks for; that of threads when it cannot be told. Attributes may lie, data decides."""
    task_type = task_type_of(delivery.data)
    if task_type is None or task_type not in registry:
        return Kind.THREAD.value
    return line_name(registry[task_type].kind, task_type)
