"""Starts: what this worker writes down before it runs a task that may have killed a worker, and what it makes of others' starts.

A start is written only for messages that were delivered before without an attempt to show for it. It is taken out again when the run
ends, however it ends; so a start whose worker is gone tells which tasks were running when it went.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from enum import Enum

from batch.events import log
from batch.model.attempts import Attempts, Marker
from batch.model.clock import Clock, iso
from batch.model.errors import FanoutError, PreconditionFailed
from batch.model.names import progress_object
from batch.model.progress import from_metadata, interval_s
from batch.services.ports import ObjectStore
from batch.settings import WorkerSettings
from batch.worker.attempt import Attempt
from batch.worker.records import end_start, write_attempts

STALE_S = 60.0
"""A worker whose progress is older than this, and than three writes of it, counts as ended."""
RECORDS_IN_FLIGHT = 32
"""So many requests about records are under way at a time."""
LET_GO_S = 1.5
"""How long a worker that ends may take to take out the starts of what it hands back."""


class Standing(Enum):
    """What a start in a record means."""

    FREE = "free"
    """There is none, or only one of ours that has ended."""
    RUNNING = "running"
    """The task may be running at this moment."""
    LOST = "lost"
    """Its worker has ended without ending it."""


@dataclass(slots=True)
class Starts:
    """The starts of one worker try; used by all executors at once."""

    settings: WorkerSettings
    store: ObjectStore
    clock: Clock
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(RECORDS_IN_FLIGHT, thread_name_prefix="records"))
    """Where requests about records run that nobody waits for. It has no threads before the first."""
    _leaving: set[Future[None]] = field(default_factory=set)
    _in_hand: dict[str, tuple[Attempts, int]] = field(default_factory=dict)
    """By task id: the record as it was written, and its generation (0: it is about to be)."""
    _ended: set[tuple[str, int, int]] = field(default_factory=set)

    def standing(self, task_id: str, start: Marker | None) -> Standing:
        """Raises DependencyError."""
        if start is None:
            return Standing.FREE
        if self._is_ours(start):
            return Standing.RUNNING if task_id in self._in_hand else Standing.FREE
        return Standing.LOST if self._has_ended(start) else Standing.RUNNING

    def begin(self, attempt: Attempt, known: Attempts, generation: int, *, lost: bool) -> bool:
        """Write down that this attempt begins; `lost`: the start on record was never ended. False when the record has changed
        meanwhile: read it again. Raises DependencyError."""
        settings, task_id = self.settings, attempt.task.task_id
        start = Marker(settings.execution, settings.index, settings.retry, iso(self.clock.now()))
        before = (*known.lost, known.in_progress) if lost and known.in_progress is not None else known.lost
        attempts = replace(known, in_progress=start, lost=before)
        self._in_hand[task_id] = attempts, 0
        try:
            self._in_hand[task_id] = attempts, write_attempts(self.store, task_id, attempts, generation)
        except PreconditionFailed:
            del self._in_hand[task_id]
            return False
        except BaseException:
            del self._in_hand[task_id]
            raise
        attempt.before = attempts
        attempt.marked = True
        return True

    def end(self, attempt: Attempt, *, done: bool) -> None:
        """The run has ended: take its start out, as well as can be. `done`: the task will not run again, and nobody waits until the start
        is out; else it is when this returns, for whoever gets the message next would take the task for running."""
        written = self._in_hand.pop(attempt.task.task_id, None)
        attempt.marked = False
        if written is None:
            return
        if not done:
            self._take_out(attempt.task.task_id, *written, done=False)
            return
        leaving = self.pool.submit(self._take_out, attempt.task.task_id, *written, done=True)
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)

    def settle(self) -> None:
        """The worker ends: wait for starts that are being taken out, and take out those of what went back unrun. Takes at most twice
        LET_GO_S."""
        wait(list(self._leaving), timeout=LET_GO_S)
        self.let_go()
        self.pool.shutdown(wait=False, cancel_futures=True)

    def forget(self, attempt: Attempt) -> None:
        """A failure was recorded, and the start has gone with it."""
        self._in_hand.pop(attempt.task.task_id, None)
        attempt.marked = False

    def let_go(self) -> None:
        """The worker ends and has handed back what still runs: that is no sign against those tasks. Takes at most LET_GO_S."""
        left = list(self._in_hand.items())
        threads = [
            threading.Thread(target=self._let_go, args=(left[at::8],), name="let-go", daemon=True) for at in range(min(8, len(left)))
        ]
        until_s = self.clock.monotonic() + LET_GO_S
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, until_s - self.clock.monotonic()))

    def _let_go(self, starts: Iterable[tuple[str, tuple[Attempts, int]]]) -> None:
        for task_id, (written, generation) in starts:
            self._take_out(task_id, written, generation, done=False)

    def _take_out(self, task_id: str, written: Attempts, generation: int, *, done: bool) -> None:
        try:
            end_start(self.store, task_id, written, generation, done=done)
        except FanoutError as error:
            # It stays, and with a worker that has ended it makes the task run alone once more than needed.
            log("start_left", task_id=task_id, error=str(error))

    def _is_ours(self, start: Marker) -> bool:
        settings = self.settings
        return (start.execution, start.index, start.retry) == (settings.execution, settings.index, settings.retry)

    def _has_ended(self, start: Marker) -> bool:
        who = (start.execution, start.index, start.retry)
        if who not in self._ended and self._looks_ended(start):
            self._ended.add(who)
        return who in self._ended

    def _looks_ended(self, start: Marker) -> bool:
        """By what its worker's progress says, and whether a later try of it exists; a worker without progress is none."""
        settings = self.settings
        if (start.execution, start.index) == (settings.execution, settings.index):
            return start.retry < settings.retry
        info = self.store.info(progress_object(start.execution, start.index, start.retry))
        if info is None:
            return True
        try:
            progress = from_metadata(info.metadata)
        except ValueError:
            return True
        if progress.exit_reason or self.store.info(progress_object(start.execution, start.index, start.retry + 1)) is not None:
            return True
        return self.clock.now() - progress.updated_at > max(STALE_S, 3 * interval_s(settings.progress_interval_s, settings.count))
