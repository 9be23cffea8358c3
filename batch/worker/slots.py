"""Slots: the threads that run handlers. Daemon threads, not a pool: a pool's exit waits for a handler that is stuck.

A slot takes a short list at once when handlers are quick. What it has taken and not started, and what it has finished and not
handed over, never waits behind a slow handler: others can reach both.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import TypeVar

from batch.clock import Clock
from batch.flow import chunk_size
from batch.subscription import Delivery
from batch.worker.finished import Finished, GoesBack
from batch.worker.ready import Ready
from batch.worker.runner import Call, Runner
from batch.worker.tally import Tally

T = TypeVar("T")

HAND_OVER_S = 0.25
"""What is finished is handed over, and what waits behind one handler is given to other slots, after this time."""


@dataclass(slots=True)
class _Slot:
    """One thread's hands. The thread works from the left of `waiting`; deques, because others take from them as well."""

    waiting: deque[Delivery] = field(default_factory=deque)
    finished: deque[Finished] = field(default_factory=deque)
    current: Delivery | None = None
    began_s: float = 0.0


class Slots:
    """`count` threads between the ready line and the committer's inbox. `failed` is told when a slot itself breaks."""

    def __init__(
        self,
        count: int,
        ready: Ready,
        inbox: SimpleQueue[list[Finished] | None],
        runner: Runner,
        tally: Tally,
        clock: Clock,
        failed: Callable[[BaseException], None],
        call: Call | None = None,
    ) -> None:
        """`call` runs an attempt's handler; in the slot's own thread by default."""
        self.place_count = count
        self.ready = ready
        self._call = call
        self._inbox = inbox
        self._runner = runner
        self._tally = tally
        self._clock = clock
        self._failed = failed
        self._slots = [_Slot() for _ in range(count)]

    def start(self) -> None:
        for number, slot in enumerate(self._slots):
            threading.Thread(target=self._run, args=(slot,), name=f"slot-{number}", daemon=True).start()

    @property
    def busy_count(self) -> int:
        """Slots whose handler runs at this moment."""
        return sum(slot.current is not None for slot in self._slots)

    def running(self) -> list[Delivery]:
        """The deliveries whose handlers run at this moment."""
        return [delivery for slot in self._slots if (delivery := slot.current) is not None]

    def relieve(self) -> None:
        """Where a handler has been running for long: hand over what its slot has finished, let other slots have what waits behind it."""
        now_s = self._clock.monotonic()
        for slot in self._slots:
            if slot.current is not None and now_s - slot.began_s >= HAND_OVER_S:
                self._hand_over(slot)
                for delivery in self.ready.put_back(_drained(slot.waiting)):
                    self._inbox.put([GoesBack(delivery.ack_id)])

    def reclaim(self) -> None:
        """The end: what is finished goes to the committer, what has not started goes back."""
        for slot in self._slots:
            self._hand_over(slot)
            not_started: list[Finished] = [GoesBack(delivery.ack_id) for delivery in _drained(slot.waiting)]
            if not_started:
                self._inbox.put(not_started)

    def _run(self, slot: _Slot) -> None:
        try:
            while chunk := self.ready.take(self._chunk_size):
                slot.waiting.extend(chunk)
                self.round(slot)
        except BaseException as error:  # noqa: BLE001 - a slot that dies in silence would leave its messages to expire
            self._failed(error)

    def _chunk_size(self, waiting: int) -> int:
        return chunk_size(slots=len(self._slots), ready=waiting, mean_s=self._tally.mean_s)

    def round(self, slot: _Slot) -> None:
        """Run what the slot has taken. Once the worker is stopping, what has not started goes back."""
        began_s = handed_s = self._clock.monotonic()
        longest_s = 0.0
        count = 0
        while (delivery := _next(slot.waiting)) is not None:
            if self._runner.stopping.is_set():
                slot.finished.append(GoesBack(delivery.ack_id))
                continue
            slot.began_s = self._clock.monotonic()
            slot.current = delivery
            slot.finished.append(self._runner.run(delivery, self._call))
            slot.current = None
            count += 1
            now_s = self._clock.monotonic()
            longest_s = max(longest_s, now_s - slot.began_s)
            if now_s - handed_s >= HAND_OVER_S:
                self._hand_over(slot)
                handed_s = now_s
        self._tally.ran(count, self._clock.monotonic() - began_s, longest_s)
        self._hand_over(slot)

    def _hand_over(self, slot: _Slot) -> None:
        finished = _drained(slot.finished)
        if finished:
            self._inbox.put(finished)


def _next(waiting: deque[Delivery]) -> Delivery | None:
    """Each message goes to one taker only: `popleft` is one step for whoever calls it."""
    try:
        return waiting.popleft()
    except IndexError:
        return None


def _drained(line: deque[T]) -> list[T]:
    items: list[T] = []
    while line:
        try:
            items.append(line.popleft())
        except IndexError:
            break
    return items
