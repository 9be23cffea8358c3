"""In-progress markers: what a worker writes down before it runs a task that may have killed a worker, and what others' markers mean.

A marker is written only for a message that was delivered before without a failed attempt on record. It is removed when the run ends,
however it ends; so a marker whose worker has ended names a task that was running at that moment.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial

from batch.events import log
from batch.model.attempts import Attempts, Marker
from batch.model.clock import Clock, iso
from batch.model.errors import FanoutError, PreconditionFailed
from batch.model.names import progress_object
from batch.model.progress import from_metadata, interval_s
from batch.services.ports import ObjectStore
from batch.settings import WorkerSettings
from batch.worker.admission.records import end_marker, write_attempts
from batch.worker.attempt import Attempt

STALE_S = 60.0
"""A worker whose progress is older than this, and than three writes of it, counts as ended."""
RECORDS_IN_FLIGHT = 32
"""Requests about records that are open at a time."""
UNMARK_S = 1.5
"""How long a worker that ends may take to remove the markers of what it nacks."""


class Standing(Enum):
    """What the marker in a record means."""

    FREE = "free"
    """There is none, or one that this worker wrote for a run that has ended."""
    RUNNING = "running"
    """The task may be running at this moment."""
    LOST = "lost"
    """Its worker has ended without removing it."""


@dataclass(slots=True)
class Markers:
    """The in-progress markers of one worker try; used by all executors at once."""

    settings: WorkerSettings
    store: ObjectStore
    clock: Clock
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(RECORDS_IN_FLIGHT, thread_name_prefix="records"))
    """Where requests about records run, beside the executors. It has no threads before the first."""
    _removals: set[Future[None]] = field(default_factory=set)
    _marked: dict[str, Attempt] = field(default_factory=dict)
    """By task id: of two messages of one task only the first gets a marker."""
    _ended: set[tuple[str, int, int]] = field(default_factory=set)

    def standing(self, attempt: Attempt, marker: Marker | None) -> Standing:
        """What `marker`, on record of this attempt's task, means. Raises DependencyError."""
        if self._marked.get(attempt.task.task_id, attempt) is not attempt:
            return Standing.RUNNING
        if marker is None or self._is_ours(marker):
            return Standing.FREE
        return Standing.LOST if self._has_ended(marker) else Standing.RUNNING

    def mark(self, attempt: Attempt, known: Attempts, generation: int, *, lost: bool) -> bool:
        """Write down that this attempt begins; `lost`: the worker of the marker on record has ended without removing it. False when the
        record has changed meanwhile, or another message of the task was first: look again. Raises DependencyError."""
        settings, task_id = self.settings, attempt.task.task_id
        marker = Marker(settings.execution, settings.index, settings.retry, iso(self.clock.now()))
        before = (*known.lost, known.in_progress) if lost and known.in_progress is not None else known.lost
        if self._marked.setdefault(task_id, attempt) is not attempt:
            return False
        attempt.before, attempt.marker_generation, attempt.has_record = replace(known, in_progress=marker, lost=before), 0, True
        try:
            attempt.marker_generation = write_attempts(self.store, task_id, attempt.before, generation)
        except BaseException as error:
            attempt.before, attempt.marker_generation = known, None
            del self._marked[task_id]
            if isinstance(error, PreconditionFailed):
                return False
            raise
        return True

    def unmark(self, attempt: Attempt, *, done: bool) -> None:
        """The run has ended: remove its marker; a failure is logged. `done`: the task will not run again, and the marker may go later.
        Else it is gone when this returns: the worker that gets the message next would take the task for running."""
        if self._marked.get(attempt.task.task_id) is not attempt:
            return  # `forget` was first
        del self._marked[attempt.task.task_id]
        if not done:
            self._remove(attempt, done=False)
        else:
            self.aside(partial(self._remove, attempt, done=True))

    def aside(self, request: Callable[[], None]) -> None:
        """Make a request that nobody waits for but the worker's end."""
        removal = self.pool.submit(request)
        self._removals.add(removal)
        removal.add_done_callback(self._removals.discard)

    def forget(self, attempt: Attempt) -> None:
        """A failure was recorded, and the marker has gone with it."""
        attempt.marker_generation = None
        if self._marked.get(attempt.task.task_id) is attempt:
            del self._marked[attempt.task.task_id]

    def settle(self, limit_s: float) -> None:
        """The worker ends: wait at most `limit_s` for markers that are being removed, then remove those of what went back unrun, which
        takes at most UNMARK_S."""
        wait(list(self._removals), timeout=limit_s)
        self.unmark_all()
        self.pool.shutdown(wait=False, cancel_futures=True)

    def unmark_all(self) -> None:
        """The worker ends and has nacked what still runs: that is no sign against those tasks. Takes at most UNMARK_S."""
        left = list(self._marked.values())
        threads = [
            threading.Thread(target=self._unmark, args=(left[at::8],), name="unmark", daemon=True) for at in range(min(8, len(left)))
        ]
        until_s = self.clock.monotonic() + UNMARK_S
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, until_s - self.clock.monotonic()))

    def _unmark(self, attempts: Iterable[Attempt]) -> None:
        for attempt in attempts:
            self._remove(attempt, done=False)

    def _remove(self, attempt: Attempt, *, done: bool) -> None:
        generation, attempt.marker_generation = attempt.marker_generation, None
        if generation is None:
            return  # once is enough: the record may be another worker's by now, or gone with the task
        try:
            attempt.has_record = end_marker(self.store, attempt.task.task_id, attempt.before, generation, done=done)
        except FanoutError as error:
            # It stays, and with a worker that has ended it makes the task run alone once more than needed.
            log("marker_left", task_id=attempt.task.task_id, error=str(error))

    def _is_ours(self, marker: Marker) -> bool:
        settings = self.settings
        return (marker.execution, marker.index, marker.retry) == (settings.execution, settings.index, settings.retry)

    def _has_ended(self, marker: Marker) -> bool:
        who = (marker.execution, marker.index, marker.retry)
        if who not in self._ended and self._looks_ended(marker):
            self._ended.add(who)
        return who in self._ended

    def _looks_ended(self, marker: Marker) -> bool:
        """True if the worker has ended, by its progress, or because a later try of it exists; without a progress object it never pulled."""
        settings = self.settings
        if (marker.execution, marker.index) == (settings.execution, settings.index):
            return marker.retry < settings.retry
        info = self.store.info(progress_object(marker.execution, marker.index, marker.retry))
        if info is None:
            return True
        try:
            progress = from_metadata(info.metadata)
        except ValueError:
            return True
        if progress.exit_reason or self.store.info(progress_object(marker.execution, marker.index, marker.retry + 1)) is not None:
            return True
        return self.clock.now() - progress.updated_at > max(STALE_S, 3 * interval_s(settings.progress_interval_s, settings.count))
