"""The stage before an executor's queue: a message that was delivered before becomes an attempt here, once, ahead of the executor.

Records are read, and in-progress markers written, several at a time: no executor waits for the bucket. But never further ahead than what
starts soon, for a marker says that its task may have been running should the worker be killed. Quarantined tasks leave here for an
executor of their own.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

from batch.model.delayed import asks_bucket
from batch.model.delivery import Delivery
from batch.worker.admission.markers import RECORDS_IN_FLIGHT, Markers
from batch.worker.attempt import Attempt, Finished, Work
from batch.worker.executors.quarantine import Quarantine
from batch.worker.executors.runner import Parts
from batch.worker.flow import wanted_count
from batch.worker.ready_queue import Changes, ReadyQueue

AHEAD_S = 0.25
"""Markers are written for what begins within this time at the measured rate, and for what waiting takers would take."""


class Redelivered:
    """The stage of one executor of `concurrency`; it makes the executor's queue, and counts with it what waits. Thread-safe."""

    def __init__(self, markers: Markers, quarantine: Quarantine, changes: Changes, concurrency: int, parts: Parts) -> None:
        self.queue = ReadyQueue(changes, self._advance)
        self._markers, self._quarantine = markers, quarantine
        self._runner, self._inbox, self._tally = parts.runner, parts.inbox, parts.tally
        self._unstarted = parts.unstarted
        self._changes = changes
        self._concurrency = concurrency
        self._waiting: deque[Attempt] = deque()
        self._admitting: set[Attempt] = set()
        """Their records are being read, or their markers written."""
        self._closed = False
        self._state = threading.Lock()

    def __len__(self) -> int:
        return len(self.queue) + len(self._waiting) + len(self._admitting)

    def put(self, deliveries: Sequence[Delivery]) -> None:
        """Into the queue at once, but for those that were delivered before, or may have been."""
        redelivered = [one for one in deliveries if asks_bucket(one)]
        if not redelivered:
            self.queue.put(deliveries)
            return
        fresh = [one for one in deliveries if not asks_bucket(one)]
        if fresh:
            self.queue.put(fresh)
        decoded = [self._runner.decoded(one) for one in redelivered]
        unrun = [one for one in decoded if not isinstance(one, Attempt)]
        if unrun:
            self._inbox.put(unrun)
        attempts = [one for one in decoded if isinstance(one, Attempt)]
        with self._state:
            self._waiting.extend(attempts)
        self._advance()
        self._changes.tell()

    def close(self) -> list[Work]:
        """Start nothing more; returns what may be nacked at once. What has a marker in the bucket, or may have one in a moment, is left to
        `Unstarted`."""
        with self._state:
            self._closed = True
            left = self.queue.close()
            marked = [one for one in left if isinstance(one, Attempt) and one.marked]
            unmarked = [one for one in left if not isinstance(one, Attempt) or not one.marked]
            unmarked += self._waiting
            self._waiting.clear()
            leaving = [*marked, *self._admitting]
        if leaving:
            self._unstarted.nack_soon(marked, leaving)
        return unmarked

    # --- records

    def _advance(self) -> None:
        """Begin to admit what starts soon: nothing more once the worker is stopping."""
        if not self._waiting or self._runner.stopping.is_set():
            return
        with self._state:
            most = self._ahead_count()
            while self._waiting and not self._closed and len(self._admitting) + self.queue.attempt_count < most:
                attempt = self._waiting.popleft()
                self._admitting.add(attempt)
                self._markers.pool.submit(self._admit, attempt)

    def _ahead_count(self) -> int:
        soon = wanted_count(concurrency=self._concurrency, busy=self._concurrency, mean_s=self._tally.mean_s, prefetch_s=AHEAD_S)
        return max(1, min(self._concurrency, self.queue.wanted_count), min(RECORDS_IN_FLIGHT, soon))

    def _admit(self, attempt: Attempt) -> None:
        unrun = self._runner.put_off(attempt) or self._runner.readmitted(attempt, mark_quarantined=False)
        with self._state:
            # In one step with its next place: one that is in neither when the worker ends would be nacked by nobody.
            self._admitting.discard(attempt)
            closed = self._closed
            if not closed:
                self._hand_on(attempt, unrun)
        if closed:
            self._unstarted.release(attempt)
        if unrun is not None:
            self._changes.tell()  # there is room for another
        self._advance()

    def _hand_on(self, attempt: Attempt, unrun: Finished | None) -> None:
        if unrun is not None:
            self._inbox.put([unrun])
        elif attempt.quarantined:
            self._quarantine.put(attempt, self._enter)
        else:
            self.queue.put_front([attempt])

    def _enter(self, attempt: Attempt) -> None:
        if self.queue.put_front([attempt]):
            self._unstarted.release(attempt)
