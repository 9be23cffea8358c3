"""The slowed task types of one worker: verdicts tell it, admission asks it, and the bucket keeps it for the workers that come after.

Without that memory each new worker would have to find out anew, at the price of the attempts of many tasks. What is kept is only a hint:
without it, or where it cannot be read or written, tasks are tried sooner.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from batch.events import log
from batch.model.attempts import AttemptError
from batch.model.clock import Clock, iso
from batch.model.errors import FanoutError, ObjectMissing
from batch.model.names import slowed_object
from batch.services.ports import ObjectStore
from batch.settings import WorkerSettings
from batch.worker.admission.markers import Markers
from batch.worker.admission.slowing import LONGEST_DELAY_S, Slowing, from_json, limit_of, to_json
from batch.worker.attempt import Attempt, Nack, nack_after

FORGOTTEN_S = 3 * LONGEST_DELAY_S
"""What an earlier worker has kept counts until so long after a try was due: nothing of the type came since. A try that is due later than in
so long was noted by a clock that was wrong."""


@dataclass(slots=True)
class SlowedTypes:
    """Used by all executors at once. `slowing.failing` and `slowing.slowed` are empty while all is well: look at them before you call."""

    settings: WorkerSettings
    store: ObjectStore
    clock: Clock
    markers: Markers
    slowing: Slowing = field(init=False)
    _recalled: set[str] = field(default_factory=set)
    _kept: dict[str, int] = field(default_factory=dict)
    """By type: how many were tried when it was written last."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.slowing = Slowing(limit_of(self.settings.concurrency, self.settings.share))

    def failed(self, attempt: Attempt, failure: AttemptError) -> None:
        """An attempt has failed by an error of its handler."""
        task_type, task_id = attempt.task.task_type, attempt.counts_as or attempt.task.task_id
        error_type, reason, now = failure.error_type, failure.reason, self.clock.now()
        told = (task_type, task_id, attempt.task.submission_id, error_type, reason, now)
        slowed = self.slowing.failed(*told, again=attempt.number > 1)
        if slowed is not None:
            log(
                "type_slowed",
                f"task type {task_type} is slowed: {slowed.task_count} different tasks in a row failed with {error_type}: {reason[:500]}, "
                "none came through; a few of its tasks are tried, the others wait; mend the handler, what it needs, or what is submitted",
                task_type=task_type,
                error_type=error_type,
                reason=reason,
                task_count=slowed.task_count,
            )
        slowed = self.slowing.slowed.get(task_type)
        if slowed is not None and self._kept.get(task_type) != slowed.tried_count:
            self._kept[task_type] = slowed.tried_count
            self._aside(lambda: self.store.write(self._name(task_type), to_json(slowed), content_type="application/json"))

    def came_through(self, attempt: Attempt) -> None:
        """Its handler has ended other than by failing: if its type was slowed, it is not any more."""
        task_type = attempt.task.task_type
        slowed = self.slowing.came_through(task_type) if task_type in self.slowing.failing else None
        if slowed is not None:
            facts = {"tried_count": slowed.tried_count, "unrun_count": slowed.unrun_count, "slowed_since": iso(slowed.since_s)}
            log(
                "type_resumed", f"task type {task_type} is not slowed any more: one of its tasks came through", task_type=task_type, **facts
            )
            self._kept.pop(task_type, None)
            self._aside(lambda: self.store.delete(self._name(task_type)))

    def put_off(self, attempt: Attempt) -> Nack | None:
        """Its message goes back, unrun, while its type is slowed; None when it may begin. Makes no request."""
        task = attempt.task
        if task.task_type not in self.slowing.slowed:
            return None
        wait_s = self.slowing.wait_s(task.task_type, task.task_id, task.submission_id, self.clock.now())
        return nack_after(attempt, wait_s) if wait_s else None

    def put_off_again(self, attempt: Attempt) -> Nack | None:
        """As `put_off`, for one that was delivered before; the first of its type asks the bucket for what earlier workers know."""
        task_type = attempt.task.task_type
        if task_type not in self._recalled:
            with self._lock:
                if task_type not in self._recalled:
                    self._recall(task_type)
                    self._recalled.add(task_type)
        return self.put_off(attempt)

    def _recall(self, task_type: str) -> None:
        try:
            slowed = from_json(self.store.read(self._name(task_type)))
        except (ObjectMissing, FanoutError, ValueError):
            return
        if abs(self.clock.now() - slowed.next_s) < FORGOTTEN_S:
            self._kept[task_type] = slowed.tried_count
            self.slowing.recall(task_type, slowed)

    def _name(self, task_type: str) -> str:
        return slowed_object(self.settings.subscription_name, task_type)

    def _aside(self, request: Callable[[], object]) -> None:
        def tried() -> None:
            try:
                request()
            except FanoutError as error:
                log("slowing_not_kept", error=str(error))

        self.markers.aside(tried)
