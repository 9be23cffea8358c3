"""Ends what workers leave behind outside their process group: in a container nothing outlives the first process.

Sweeping looks at all processes of the machine. So a thread of its own does it, for all workers that have ended since, and at most a few
times a second.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection

EVERY_S = 0.25


class Sweeper:
    """Calls `kill_rest(logs)` with the logs of workers that have ended. Safe from several threads; `close` stops the thread."""

    def __init__(self, kill_rest: Callable[[Collection[str]], object]) -> None:
        self._kill_rest = kill_rest
        self._condition = threading.Condition()
        self._ended: set[str] = set()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def sweep(self, log: str) -> None:
        """End soon what is left of the worker with this log; the worker has ended."""
        with self._condition:
            self._ended.add(log)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)
                self._thread.start()
            self._condition.notify_all()

    def close(self) -> None:
        """What was not swept yet is left to the caller."""
        with self._condition:
            self._closed.set()
            self._condition.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._closed.wait(EVERY_S):
            with self._condition:
                self._condition.wait_for(lambda: self._ended or self._closed.is_set())
                ended, self._ended = self._ended, set()
            if ended and not self._closed.is_set():
                self._kill_rest(ended)
