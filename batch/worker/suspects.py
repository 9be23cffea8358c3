"""Suspects: tasks that were running when their worker ended. Each runs alone, in a fresh child with a limit of time and memory, whatever
its handler's kind: if it was the one, it takes nobody along again."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from batch.answer import Answer, Said
from batch.config import WorkerSettings
from batch.events import log
from batch.worker.attempt import Attempt
from batch.worker.isolation import Isolation

TURN_WAIT_S = 10.0
"""How long a suspect waits for the one before it; then it goes back, so that it blocks no slot for long."""
TURN_BACK_S = 30.0
LOOK_S = 0.25


@dataclass(slots=True)
class Suspects:
    """One at a time in each worker."""

    settings: WorkerSettings
    isolation: Isolation
    stopping: threading.Event
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def call(self, attempt: Attempt) -> Answer:
        """Run it when its turn comes; an answer without a run when that does not come soon."""
        if not self._wait_turn():
            return Answer(Said.SNOOZED, after_s=0.0 if self.stopping.is_set() else TURN_BACK_S)
        try:
            handler, settings, before = attempt.handler, self.settings, attempt.before
            facts = {"task_id": attempt.task.task_id, "task_type": attempt.task.task_type}
            log("suspect_alone", **facts, reason=f"it was running in {'; '.join(map(str, before.lost))}")
            return self.isolation.alone(
                attempt, handler.timeout_s or settings.suspect_timeout_s, handler.memory_mb or settings.suspect_memory_mb
            )
        finally:
            self._turn.release()

    def _wait_turn(self) -> bool:
        for _ in range(int(TURN_WAIT_S / LOOK_S)):
            if self.stopping.is_set():
                return False
            if self._turn.acquire(timeout=LOOK_S):
                return True
        return False
