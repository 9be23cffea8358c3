"""Slots: the threads that run handlers. Daemon threads, not a pool: a pool's exit waits for a handler that is stuck."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

from batch.clock import Clock
from batch.flow import chunk_size
from batch.subscription import Delivery
from batch.worker.finished import Finished, GoesBack
from batch.worker.ready import Ready
from batch.worker.runner import Runner
from batch.worker.tally import Tally

HAND_OVER_S = 0.25
"""A slot hands over what is finished at least this often, also in the middle of a list."""


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
    ) -> None:
        self._count = count
        self._ready = ready
        self._inbox = inbox
        self._runner = runner
        self._tally = tally
        self._clock = clock
        self._failed = failed
        self._running: dict[int, Delivery] = {}

    def start(self) -> None:
        for number in range(self._count):
            threading.Thread(target=self._run, args=(number,), name=f"slot-{number}", daemon=True).start()

    def running(self) -> list[Delivery]:
        """The deliveries whose handlers run at this moment."""
        return list(self._running.values())

    def _run(self, number: int) -> None:
        try:
            while chunk := self._ready.take(self._chunk_size):
                self.round(number, chunk)
        except BaseException as error:  # noqa: BLE001 - a slot that dies in silence would leave its messages to expire
            self._failed(error)

    def _chunk_size(self, waiting: int) -> int:
        return chunk_size(slots=self._count, ready=waiting, mean_s=self._tally.mean_s)

    def round(self, number: int, chunk: list[Delivery]) -> None:
        """Run one list. Once the worker is stopping, what has not started goes back."""
        finished: list[Finished] = []
        began_s = handed_s = self._clock.monotonic()
        longest_s = 0.0
        count = 0
        for delivery in chunk:
            if self._runner.stopping.is_set():
                finished.append(GoesBack(delivery.ack_id))
                continue
            self._running[number] = delivery
            one_began_s = self._clock.monotonic()
            finished.append(self._runner.run(delivery))
            self._running.pop(number, None)
            count += 1
            now_s = self._clock.monotonic()
            longest_s = max(longest_s, now_s - one_began_s)
            if now_s - handed_s >= HAND_OVER_S:
                self._inbox.put(finished)
                finished, handed_s = [], now_s
        self._tally.ran(count, self._clock.monotonic() - began_s, longest_s)
        if finished:
            self._inbox.put(finished)
