"""The executor of quarantined tasks: those that were running when their worker ended. Each runs alone, in a fresh child with a limit of
time and memory, whatever its handler's kind: if it was the one, it takes nobody along again."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from batch.events import log
from batch.handling.answer import Answer
from batch.settings import WorkerSettings
from batch.worker.attempt import Attempt, Nack, Work, nack_after
from batch.worker.executors.processes import Isolation
from batch.worker.executors.runner import Parts
from batch.worker.executors.running import Running

MAX_WAITING = 32
"""Quarantined tasks that one worker holds; more go back, for a worker that has time for them."""
MAX_WAIT_S = 60.0
"""How long one waits for its turn. Later another worker may have time for it."""
NACK_S = 30.0


@dataclass(frozen=True, slots=True)
class _Waiting:
    """`leave` takes the attempt if it is not quarantined any more when its turn comes."""

    attempt: Attempt
    since_s: float
    leave: Callable[[Attempt], None]


class Quarantine:
    """One thread, made when the first task comes; nothing is on record of a task before its turn."""

    def __init__(self, settings: WorkerSettings, isolation: Isolation, parts: Parts) -> None:
        self._settings = settings
        self._isolation = isolation
        self._runner, self._inbox, self._tally, self._clock = parts.runner, parts.inbox, parts.tally, parts.clock
        self._failed = parts.failed
        self._waiting: deque[_Waiting] = deque()
        self._running: Attempt | None = None
        self._began_s = 0.0
        self._state = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def put(self, attempt: Attempt, leave: Callable[[Attempt], None]) -> None:
        """Let a task wait for its turn, whose record was read and that has no marker yet."""
        with self._state:
            full = self._closed or len(self._waiting) + (self._running is not None) >= MAX_WAITING
            if not full:
                self._waiting.append(_Waiting(attempt, self._clock.monotonic(), leave))
                if self._thread is None:
                    self._thread = threading.Thread(target=self._serve, name="quarantine", daemon=True)
                    self._thread.start()
                self._state.notify_all()
        if full:
            self._inbox.put([nack_after(attempt, NACK_S)])

    def running(self) -> list[Running]:
        """The task that runs, if one does."""
        one = self._running
        return [] if one is None else [Running([one], self._began_s, partial(self._isolation.where, one.ack_id))]

    def flush(self) -> None:
        """Nack those that have waited for long."""
        if not self._waiting:
            return
        with self._state:
            late_s = self._clock.monotonic() - MAX_WAIT_S
            late = [one.attempt for one in self._waiting if one.since_s <= late_s]
            self._waiting = deque(one for one in self._waiting if one.since_s > late_s)
        if late:
            self._inbox.put([nack_after(one, NACK_S) for one in late])

    def close(self) -> list[Work]:
        """Start nothing more; returns those that still wait."""
        with self._state:
            self._closed = True
            left: list[Work] = [one.attempt for one in self._waiting]
            self._waiting.clear()
            self._state.notify_all()
        return left

    def shut_down(self) -> None:
        """What still runs was nacked: end its process, and let nothing be said of its attempt."""
        self._isolation.abandon()

    def _serve(self) -> None:
        try:
            while (one := self._next()) is not None:
                self._run(one)
                self._running = None
        except BaseException as error:  # noqa: BLE001 - carried to the worker, which ends
            self._failed(error)

    def _next(self) -> _Waiting | None:
        """The next whose turn it is, None once closed."""
        with self._state:
            while not self._waiting and not self._closed:
                self._state.wait()
            if not self._waiting:
                return None
            one = self._waiting.popleft()
            self._running, self._began_s = one.attempt, self._clock.monotonic()
            return one

    def _run(self, one: _Waiting) -> None:
        attempt, began_s = one.attempt, self._began_s
        if self._runner.stopping.is_set():
            self._inbox.put([Nack(attempt)])
            return
        finished = self._runner.readmitted(attempt)
        if finished is None and not attempt.quarantined:
            # Another worker has run it meanwhile.
            one.leave(attempt)
            return
        if finished is None:
            finished = self._runner.run(attempt, self._call)
            took_s = self._clock.monotonic() - began_s
            self._tally.ran(1, took_s, took_s)
        self._inbox.put([finished])

    def _call(self, attempt: Attempt) -> Answer:
        handler, settings = attempt.handler, self._settings
        facts = {"task_id": attempt.task.task_id, "task_type": attempt.task.task_type}
        log("quarantined_task_runs", **facts, reason=f"it was running in {'; '.join(map(str, attempt.before.lost))}")
        return self._isolation.alone(
            attempt, handler.timeout_s or settings.quarantine_timeout_s, handler.memory_mb or settings.quarantine_memory_mb
        )
