"""The queue of an executor: messages that are ready to run and have not started, handed over in lists."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from batch.worker.attempt import Attempt, Work

T = TypeVar("T")


class Changes:
    """Wakes the thread that decides what to pull. `busy` while all pulls are open that may be: then nothing that comes or goes matters
    to it, and waking it would cost as much as thirty messages."""

    def __init__(self) -> None:
        self.busy = False
        self._condition = threading.Condition()

    def tell(self, *, always: bool = False) -> None:
        if always or not self.busy:
            with self._condition:
                self._condition.notify_all()

    def wait(self, timeout_s: float, unless: Callable[[], bool]) -> None:
        """Wait for a change, at most `timeout_s`; not at all when `unless()` holds. Every change that makes it hold is told."""
        with self._condition:
            if not unless():
                self._condition.wait(timeout_s)


class ReadyQueue:
    """Deliveries that no worker has had before, and attempts. One lock for each list that goes in or out, none for a message.

    A list wakes one taker, and a taker that leaves something wakes the next: not all of them for what one will take. `changes` is told
    of all that comes and goes; several queues may share it. `demand` is called when something was taken and when a taker begins to wait.
    `arrived` is set whenever messages come and when the queue closes: for a taker that waits by a clock of its own.
    """

    def __init__(self, changes: Changes | None = None, demand: Callable[[], None] = lambda: None) -> None:
        self.arrived = threading.Event()
        self.attempt_count = 0
        """Attempts among what waits."""
        self.wanted_count = 0
        """Messages that the waiting takers would take."""
        self._items: deque[Work] = deque()
        self._takers = threading.Condition(threading.Lock())
        self._changes = changes or Changes()
        self._demand = demand
        self.closed = False

    def __len__(self) -> int:
        return len(self._items)

    def put(self, items: Iterable[Work]) -> None:
        with self._takers:
            self._items.extend(items)
            self._woken()
        self._changes.tell()

    def put_front(self, items: Sequence[Work]) -> list[Work]:
        """Put them before all others: redelivered messages, and what another thread had taken. Returns them when the queue is closed."""
        with self._takers:
            if self.closed:
                return list(items)
            self._items.extendleft(reversed(items))
            self.attempt_count += _attempts(items)
            self._woken()
        self._changes.tell()
        return []

    def take(self, size: Callable[[int], int]) -> list[Work]:
        """Wait for messages and take `size(<how many wait>)` of them; an empty list once closed."""
        if not self._items:
            self._changes.tell()  # a thread is free: the puller may want more now
        with self._takers:
            while not self._items and not self.closed:
                self._wait(size(0))
            taken = [] if self.closed else self._taken(size(len(self._items)))
        self._changes.tell()
        self._demand()
        return taken

    def take_now(self, most: int) -> list[Work]:
        """At most `most` of what waits; an empty list when there is nothing, or once closed."""
        with self._takers:
            taken = [] if self.closed else self._taken(most)
        self._changes.tell()
        self._demand()
        return taken

    def wait(self, wanted: int, pause: Callable[[], object]) -> None:
        """For a taker that waits by a clock of its own, in `pause`: until it returns `wanted` more messages would be taken."""
        with self._takers:
            self.wanted_count += wanted
        try:
            self._demand()
            pause()
        finally:
            with self._takers:
                self.wanted_count -= wanted

    def close(self) -> list[Work]:
        """Start nothing more: takers end, and what had not started is returned."""
        with self._takers:
            self.closed = True
            left = list(self._items)
            self._items.clear()
            self.attempt_count = 0
            self.arrived.set()
            self._takers.notify_all()
        self._changes.tell()
        return left

    def _wait(self, wanted: int) -> None:
        self.wanted_count += wanted
        self._takers.release()
        try:
            self._demand()
        finally:
            self._takers.acquire()
        if not self._items and not self.closed:
            self._takers.wait()
        self.wanted_count -= wanted

    def _woken(self) -> None:
        self.arrived.set()
        self._takers.notify()

    def _taken(self, most: int) -> list[Work]:
        taken = [self._items.popleft() for _ in range(min(most, len(self._items)))]
        if self.attempt_count:
            self.attempt_count -= _attempts(taken)
        if self._items:
            self._takers.notify()
        return taken


def _attempts(items: Sequence[Work]) -> int:
    return sum(isinstance(item, Attempt) for item in items)


def next_of(items: deque[T]) -> T | None:
    """The first of what others take from as well: `popleft` is one step, so each item goes to one taker only."""
    try:
        return items.popleft()
    except IndexError:
        return None


def taken_from(items: deque[T]) -> list[T]:
    """All of it, as `next_of`."""
    taken: list[T] = []
    while items:
        try:
            taken.append(items.popleft())
        except IndexError:
            break
    return taken
