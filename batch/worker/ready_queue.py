"""Messages that were pulled and have not started: handed over in lists, from the puller to the slots."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from batch.model.delivery import Delivery

T = TypeVar("T")


class Anteroom(Protocol):
    """Where some deliveries wait before they enter a line; `byte_count` is the data of those that do."""

    byte_count: int

    def __len__(self) -> int: ...

    def keep(self, deliveries: Iterable[Delivery]) -> Sequence[Delivery]:
        """Take some in hand; returns the others."""

    def close(self, left: Sequence[Delivery]) -> list[Delivery]:
        """Nothing starts any more; returns what may go back of the line's `left` and of what waits here."""


class Changes:
    """Wakes the one who decides what to ask for. `busy` while all has been asked for that may be: then what comes or goes tells him
    nothing, and waking him would cost as much as thirty messages."""

    def __init__(self) -> None:
        self.busy = False
        self._condition = threading.Condition()

    def tell(self, *, always: bool = False) -> None:
        if always or not self.busy:
            with self._condition:
                self._condition.notify_all()

    def wait(self, timeout_s: float, unless: Callable[[], bool]) -> None:
        """Until he is told, at the latest after `timeout_s`; not at all when `unless()` holds, which nothing can change unnoticed once it
        was asked."""
        with self._condition:
            if not unless():
                self._condition.wait(timeout_s)


class Ready:
    """A line of deliveries. One lock for each list that goes in or out, none for a message.

    A list wakes one taker, and a taker that leaves something wakes the next: not all of them for what one will take. `changes` is
    told of all that comes and goes; several lines may share it. `arrived` is set whenever messages come and when the line closes:
    for one taker that waits by a clock of its own.
    """

    def __init__(self, changes: Changes | None = None, anteroom: Anteroom | None = None) -> None:
        self.arrived = threading.Event()
        self._line: deque[Delivery] = deque()
        self._takers = threading.Condition(threading.Lock())
        self._changes = changes or Changes()
        self._anteroom = anteroom
        self._closed = False
        self._byte_count = 0

    def __len__(self) -> int:
        return len(self._line) + (0 if self._anteroom is None else len(self._anteroom))

    @property
    def byte_count(self) -> int:
        return self._byte_count + (0 if self._anteroom is None else self._anteroom.byte_count)

    @property
    def closed(self) -> bool:
        return self._closed

    def put(self, deliveries: Iterable[Delivery]) -> None:
        if self._anteroom is not None:
            deliveries = self._anteroom.keep(deliveries)
            if not deliveries:
                self._tell()
                return
        with self._takers:
            for delivery in deliveries:
                self._line.append(delivery)
                self._byte_count += len(delivery.data)
            self.arrived.set()
            self._takers.notify()
        self._tell()

    def take(self, size: Callable[[int], int]) -> list[Delivery]:
        """Wait for messages and take `size(<how many wait>)` of them; an empty list once closed."""
        if not self._line:
            self._tell()  # a slot is free: the puller may want more now
        with self._takers:
            while not self._line and not self._closed:
                self._takers.wait()
            taken = [] if self._closed else self._taken(size(len(self._line)))
        self._tell()
        return taken

    def take_now(self, most: int) -> list[Delivery]:
        """At most `most` of what waits; an empty list when there is nothing, or once closed."""
        with self._takers:
            taken = [] if self._closed else self._taken(most)
        self._tell()
        return taken

    def put_back(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """In front again, for another slot, or from the anteroom; returns them when the line is closed."""
        with self._takers:
            if self._closed:
                return list(deliveries)
            self._line.extendleft(reversed(deliveries))
            self._byte_count += sum(len(delivery.data) for delivery in deliveries)
            self.arrived.set()
            self._takers.notify()
        self._tell()
        return []

    def close(self) -> list[Delivery]:
        """Start nothing more: the slots end, and what had not started is returned."""
        with self._takers:
            self._closed = True
            left = list(self._line)
            self._line.clear()
            self._byte_count = 0
            self.arrived.set()
            self._takers.notify_all()
        self._tell()
        return left if self._anteroom is None else self._anteroom.close(left)

    def _taken(self, most: int) -> list[Delivery]:
        taken = [self._line.popleft() for _ in range(min(most, len(self._line)))]
        self._byte_count -= sum(len(delivery.data) for delivery in taken)
        if self._line:
            self._takers.notify()
        return taken

    def _tell(self) -> None:
        self._changes.tell()


def next_of(line: deque[T]) -> T | None:
    """The first of a line that others take from as well: `popleft` is one step, so each item goes to one taker only."""
    try:
        return line.popleft()
    except IndexError:
        return None


def taken_from(line: deque[T]) -> list[T]:
    """All of it, as `next_of`."""
    items: list[T] = []
    while line:
        try:
            items.append(line.popleft())
        except IndexError:
            break
    return items
