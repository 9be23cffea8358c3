"""Admission: from a delivery to an attempt that may begin, or to what becomes of the message without one.

Reads the bucket only for messages that were delivered before: a healthy first delivery costs no request.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from batch.events import log
from batch.formats.forms import Decode, Forms
from batch.formats.read import EventUnwanted
from batch.handling.registry import Kind, Registry
from batch.model.attempts import Attempts
from batch.model.clock import Clock
from batch.model.delayed import DELAYED, as_first_published, due_of
from batch.model.delivery import MAX_EXTENSION_S, Delivery
from batch.model.errors import MessageRefused
from batch.model.message import BUILT_IN, TASK_ID_PATTERN, replaced_task_id, short
from batch.services.ports import ObjectStore
from batch.settings import WorkerSettings
from batch.worker.admission.markers import Markers, Standing
from batch.worker.admission.records import MAX_ROUNDS, read_attempts
from batch.worker.admission.verdicts import Verdicts
from batch.worker.attempt import Attempt, Finished, Nack, Work, later, nack_after

EARLY_S = 1.0
"""A message may come back this much before its time and still run: the broker's deadlines are not exact."""
SKEW_S = 60.0
"""How much longer than Pub/Sub can hold a message one may seem to wait that a worker published again: its due time is in whole seconds, by
another clock. Such a message does not go to the bucket."""
RUNNING_WAIT_S = 30.0
"""How long a message waits whose task may be running in another worker, or twice in this one."""
MAX_LOST = 5
"""Worker deaths allowed for one task before it is dead-lettered; the last times it ran alone in a process of its own."""


@dataclass(slots=True)
class Admission:
    """`end_s` is when every handler must be through (monotonic); `timed` is told when an attempt with a time limit must have ended.
    Used by all executors at once."""

    settings: WorkerSettings
    registry: Registry
    store: ObjectStore
    clock: Clock
    verdicts: Verdicts
    markers: Markers
    end_s: float
    timed: Callable[[str, float], None] = lambda _ack_id, _deadline_s: None
    forms: Forms = field(init=False)
    _decode: Decode = field(init=False)
    _replacement_told: threading.Lock = field(default_factory=threading.Lock, init=False)
    """Taken by the first that tells of a replaced task id, and kept."""

    def __post_init__(self) -> None:
        self.forms = self.settings.forms
        self._decode = self.forms.decode

    def decoded(self, delivery: Delivery, *, at_any_time: bool = False) -> Attempt | Finished:
        """The attempt that a message asks for; a dead letter when it asks for none. One that was published again must wait where it comes
        before its time, unless `at_any_time`. Makes no request."""
        began_s = self.clock.monotonic()
        not_before = 0.0
        if DELAYED in delivery.attributes:
            not_before, delivery = due_of(delivery.attributes), as_first_published(delivery)
        try:
            task = self._decode(
                delivery.data,
                delivery.attributes,
                message_id=delivery.message_id,
                published_s=delivery.published_s,
                lane=self.settings.lane_name,
            )
            handler = self.registry[task.task_type]
        except EventUnwanted as error:
            return self.verdicts.unwanted(error.task, delivery, began_s, str(error))
        except MessageRefused as error:
            return self._refused(delivery, began_s, error)
        if task.task_id.startswith("message-"):
            self._tell_replaced(task.task_id, delivery)
        attempt = Attempt(delivery, task, handler, None, began_s, self.end_s)
        return (self._early(attempt, not_before) or attempt) if not_before and not at_any_time else attempt

    def _early(self, attempt: Attempt, not_before: float) -> Finished | None:
        """Who published it again has reported that it waits."""
        now = self.clock.now()
        if not_before - now <= EARLY_S:
            return None
        if (cancelled := self.verdicts.unstarted(attempt)) is not None:
            return cancelled
        if not_before - now <= MAX_EXTENSION_S + SKEW_S:
            not_before = min(not_before, now + MAX_EXTENSION_S)
        early = later(attempt, not_before, now)
        return replace(early, reported=True) if isinstance(early, Nack) else early

    def begin(self, attempt: Attempt) -> Finished | None:
        """Its time counts from now. None when its handler may be called; a dead letter when its payload is refused."""
        handler = attempt.handler
        if handler.timeout_s is not None:
            attempt.deadline_s = min(self.end_s, attempt.began_s + handler.timeout_s)
        if attempt.quarantined or handler.kind is Kind.PROCESS:
            # In a child: its time counts from when the child is ready, and the child validates, for a payload model is user code.
            return None
        if handler.timeout_s is not None:
            self.timed(attempt.ack_id, attempt.deadline_s)
        if handler.payload is None:
            return None
        try:
            attempt.payload = handler.validated(attempt.task)
        except MessageRefused as error:
            if attempt.marked:
                self.markers.unmark(attempt, done=True)
            return self.verdicts.dead(attempt.task, attempt.delivery, attempt.began_s, 0, error.kind, str(error))
        return None

    def readmit(self, attempt: Attempt, *, mark_quarantined: bool = True) -> Finished | None:
        """What the record says about a message that was delivered before. None when it may run: its in-progress marker is in the bucket
        then, where one is needed. Without `mark_quarantined` a quarantined one gets none, so that nothing is said against it while it
        waits for its turn. Raises DependencyError."""
        for _ in range(MAX_ROUNDS):
            known, generation = read_attempts(self.store, attempt.task.task_id)
            if known.replay_number > attempt.task.replay_number:
                return self.verdicts.overtaken(attempt, known)
            known = known.of_replay(attempt.task.replay_number)
            attempt.before, attempt.quarantined, attempt.has_record = known, False, generation != 0
            if known.attempt_count > attempt.handler.retries:
                # Its last attempt is on record, but the worker that ran it ended before it wrote the outcome.
                return self.verdicts.exhausted(attempt, known)
            now = self.clock.now()
            if known.not_before - now > EARLY_S:
                return later(attempt, known.not_before, now)
            standing = self.markers.standing(attempt, known.in_progress)
            if standing is Standing.RUNNING:
                return nack_after(attempt, RUNNING_WAIT_S)
            lost = standing is Standing.LOST
            if lost and len(known.lost) + 1 >= MAX_LOST:
                return self.verdicts.worker_died(attempt, known)
            # Fanout's own task types publish, which no child can: they never run alone, and are dead after as many workers.
            attempt.quarantined = (lost or bool(known.lost)) and not attempt.task.task_type.startswith(BUILT_IN)
            needs_marker = mark_quarantined if attempt.quarantined else self._unexplained(attempt.delivery, known)
            if not needs_marker or self.markers.mark(attempt, known, generation, lost=lost):
                return None
        return nack_after(attempt, RUNNING_WAIT_S)

    def given_up(self, work: Work, reason: str) -> Finished:
        """A dead letter, with this reason, of a message that can be neither run now nor nacked once more."""
        found = work if isinstance(work, Attempt) else self.decoded(work, at_any_time=True)
        if not isinstance(found, Attempt):
            return found
        return self.verdicts.dead(found.task, found.delivery, found.began_s, found.before.attempt_count, "undeliverable", reason)

    def _unexplained(self, delivery: Delivery, known: Attempts) -> bool:
        """Whether there was a delivery that no failed attempt accounts for; of what was published again the broker counts anew, so those
        from before account for none. Where the broker does not count, only a retry of a worker has reason to think so."""
        if delivery.delivery_attempt == 0:
            return self.settings.retry > 0
        accounted_count = 0 if DELAYED in delivery.attributes else known.attempt_count
        return delivery.delivery_attempt > accounted_count + 1

    def _tell_replaced(self, task_id: str, delivery: Delivery) -> None:
        """Once: a client that publishes such ids does so in each message."""
        given = None if self._replacement_told.locked() else replaced_task_id(delivery.data)
        if given is not None and self._replacement_told.acquire(blocking=False):
            told = f"task_id {short(given)} cannot be used: this task is called {task_id}, and is another task each time it is published"
            text = f"{told}; publish a text that matches {TASK_ID_PATTERN}. Other such messages are not logged"
            log("task_id_replaced", text, task_id=task_id, given=short(given), message_id=delivery.message_id)

    def _refused(self, delivery: Delivery, began_s: float, error: MessageRefused) -> Finished:
        """A dead letter, with what can be told of a message that is not a task, or one without a handler."""
        task, _ = self.forms.told(
            delivery.data,
            delivery.attributes,
            message_id=delivery.message_id,
            published_s=delivery.published_s,
            lane=self.settings.lane_name,
        )
        return self.verdicts.dead(task, delivery, began_s, 0, error.kind, str(error))
