"""Quarantine: tasks that were running when their worker ended. Each runs alone, in a fresh child with a limit of time and memory, whatever
its handler's kind: if it was the one, it takes nobody along again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from batch.events import log
from batch.handling.answer import Answer
from batch.model.delivery import Delivery
from batch.settings import WorkerSettings
from batch.worker.attempt import Attempt
from batch.worker.committing.verdicts import back
from batch.worker.executors.processes import Isolation
from batch.worker.finished import Finished

WAIT_BESIDE_S = 60.0
"""One that waits beside its line blocks none. Later another worker may have time for it."""
TURN_BACK_S = 30.0
LOOK_S = 0.25


@dataclass(slots=True)
class Quarantine:
    """One at a time in each worker."""

    settings: WorkerSettings
    isolation: Isolation
    stopping: threading.Event
    _turn: threading.Lock = field(default_factory=threading.Lock)
    _in_hand: dict[str, Delivery] = field(default_factory=dict)
    """Those that wait beside a line or run, by ack id. `pop` is one step: whoever takes one out says what becomes of it."""

    def enter(self, delivery: Delivery, most: int) -> bool:
        """Whether one more may wait beside its line, of at most so many."""
        if len(self._in_hand) >= most:
            return False
        self._in_hand[delivery.ack_id] = delivery
        return True

    def leave(self, delivery: Delivery) -> bool:
        """False when it was given back meanwhile."""
        return self._in_hand.pop(delivery.ack_id, None) is not None

    def reclaim(self) -> list[Delivery]:
        """The end: what still waits or runs. What may still become of it comes too late."""
        return [one for ack_id in list(self._in_hand) if (one := self._in_hand.pop(ack_id, None)) is not None]

    def in_turn(self, delivery: Delivery, run: Callable[[Delivery], Finished | None]) -> Finished | None:
        """Run it when its turn comes, in this thread, with nothing on record of it before that; it goes back when that does not come
        soon."""
        if not self._wait_turn(WAIT_BESIDE_S):
            return back(delivery, 0.0 if self.stopping.is_set() else TURN_BACK_S)
        try:
            return run(delivery)
        finally:
            self._turn.release()

    def call(self, attempt: Attempt) -> Answer:
        """Run it; its turn has come."""
        handler, settings, before = attempt.handler, self.settings, attempt.before
        facts = {"task_id": attempt.task.task_id, "task_type": attempt.task.task_type}
        log("quarantined_task_runs", **facts, reason=f"it was running in {'; '.join(map(str, before.lost))}")
        return self.isolation.alone(
            attempt, handler.timeout_s or settings.quarantine_timeout_s, handler.memory_mb or settings.quarantine_memory_mb
        )

    def _wait_turn(self, most_s: float) -> bool:
        for _ in range(int(most_s / LOOK_S)):
            if self.stopping.is_set():
                return False
            if self._turn.acquire(timeout=LOOK_S):
                return True
        return False
