"""Nacks what has not started; an in-progress marker is removed before: as long as it is there, no other worker runs the task."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from queue import SimpleQueue

from batch.worker.admission.markers import UNMARK_S, Markers
from batch.worker.attempt import Attempt, Finished, Nack, Work


class Unstarted:
    """Used by all stages and executors of a worker that ends. Nothing here waits but `release` and `join`; each attempt is nacked once."""

    def __init__(self, markers: Markers, inbox: SimpleQueue[list[Finished] | None]) -> None:
        self._markers, self._inbox = markers, inbox
        self._state = threading.Condition(threading.Lock())
        self._threads: list[threading.Thread] = []

    def nack(self, works: Iterable[Work]) -> None:
        """Those without a marker at once, the others within UNMARK_S, after their markers were removed."""
        marked: list[Attempt] = []
        going: list[Finished] = []
        for one in works:
            if isinstance(one, Attempt) and one.marked:
                marked.append(one)
            else:
                going.append(Nack(one))
        if going:
            self._inbox.put(going)
        if marked:
            self.nack_soon(marked, marked)

    def nack_soon(self, marked: Sequence[Attempt], leaving: Sequence[Attempt]) -> None:
        """Release those of `leaving` that are `marked`; nack within UNMARK_S those that are not released by then."""
        thread = threading.Thread(target=self._leave, args=(marked, leaving), name="unmark", daemon=True)
        with self._state:
            self._threads.append(thread)
        thread.start()

    def release(self, attempt: Attempt) -> None:
        """Remove its marker, if it has one, then nack it."""
        if attempt.marked:
            self._markers.unmark(attempt, done=False)
        self._nack([attempt])

    def join(self) -> None:
        """Return when every message given to `nack_soon` is nacked: at most UNMARK_S after it was given."""
        with self._state:
            threads = list(self._threads)
        for thread in threads:
            thread.join(2 * UNMARK_S)

    def _leave(self, marked: Sequence[Attempt], leaving: Sequence[Attempt]) -> None:
        for attempt in marked:
            self._markers.pool.submit(self.release, attempt)
        with self._state:
            self._state.wait_for(lambda: all(one.nacked for one in leaving), timeout=UNMARK_S)
        self._nack(leaving)

    def _nack(self, attempts: Sequence[Attempt]) -> None:
        """Each once."""
        with self._state:
            going: list[Finished] = [Nack(one) for one in attempts if not one.nacked]
            for one in attempts:
                one.nacked = True
            if going:
                self._inbox.put(going)  # here, for who sees all of them nacked may end the inbox
            self._state.notify_all()
