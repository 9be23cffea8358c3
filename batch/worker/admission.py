"""Admission: from a delivery to an attempt whose turn has come, or to what becomes of the message without one.

Reads the bucket only for messages that were delivered before: a healthy first delivery costs no request.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from batch.attempts import MAX_ROUNDS, Attempts, read_attempts
from batch.clock import Clock, iso
from batch.config import WorkerSettings
from batch.delayed import PARKED, as_first_published, due_of
from batch.errors import MessageRefused
from batch.message import Task, decode, readable_task_id, shard_of
from batch.objects import ObjectStore
from batch.registry import Kind, Registry
from batch.subscription import Delivery
from batch.worker.attempt import Attempt
from batch.worker.finished import Finished
from batch.worker.parking import later
from batch.worker.starts import Standing
from batch.worker.verdicts import Verdicts, back

EARLY_S = 1.0
"""A message may come back this much before its time and still run: the broker's deadlines are not exact."""
RUNNING_WAIT_S = 30.0
"""How long a message waits whose task may be running in another worker, or twice in this one."""
MAX_LOST = 5
"""So often a task may have been running when its worker went: the last times alone in a process of its own."""


@dataclass(slots=True)
class Admission:
    """`end_s` is when every handler must be through (monotonic); `timed` is told when an attempt with a time limit must have ended.
    Used by all executors at once."""

    settings: WorkerSettings
    registry: Registry
    store: ObjectStore
    clock: Clock
    verdicts: Verdicts
    end_s: float
    timed: Callable[[str, float], None] = lambda _ack_id, _deadline_s: None

    def attempt(self, delivery: Delivery) -> Attempt | Finished:
        """Raises DependencyError when the bucket does not answer."""
        began_s = self.clock.monotonic()
        if PARKED in delivery.attributes:
            delivery = as_first_published(delivery)
        try:
            task = decode(
                delivery.data,
                delivery.attributes,
                message_id=delivery.message_id,
                published_s=delivery.published_s,
                lane=self.settings.lane_name,
            )
            handler = self.registry[task.task_type]
        except MessageRefused as error:
            return self._refused(delivery, began_s, error)
        deadline_s = self.end_s if handler.timeout_s is None else min(self.end_s, began_s + handler.timeout_s)
        attempt = Attempt(delivery, task, handler, None, began_s, deadline_s)
        if self.asks(delivery):
            unrun = self._met_before(attempt)
            if unrun is not None:
                return unrun
        if attempt.suspect or handler.kind is Kind.PROCESS:
            # In a child: its time counts from when the child is ready, and the child validates, for a payload model is user code.
            return attempt
        if handler.timeout_s is not None:
            self.timed(delivery.ack_id, deadline_s)
        return attempt if handler.payload is None else self._with_payload(attempt)

    def asks(self, delivery: Delivery) -> bool:
        """Whether `attempt` asks the bucket about this delivery, and so may have to wait."""
        return delivery.delivery_attempt != 1 or PARKED in delivery.attributes

    def _with_payload(self, attempt: Attempt) -> Attempt | Finished:
        try:
            attempt.payload = attempt.handler.validated(attempt.task)
        except MessageRefused as error:
            if attempt.marked:
                self.verdicts.starts.end(attempt, done=True)
            return self._refused(attempt.delivery, attempt.began_s, error)
        return attempt

    def _refused(self, delivery: Delivery, began_s: float, error: MessageRefused) -> Finished:
        return self.verdicts.dead(self._unreadable(delivery), delivery, began_s, 0, error.kind, str(error))

    def _met_before(self, attempt: Attempt) -> Finished | None:
        """A message that was delivered before, or may have been: its record decides. None when its turn has come."""
        starts = self.verdicts.starts
        for _ in range(MAX_ROUNDS):
            known, generation = read_attempts(self.store, attempt.task.task_id)
            attempt.before = known
            if known.attempt_count > attempt.handler.retries:
                # Its last attempt is on record, and whoever ran it was gone before the outcome was.
                return self.verdicts.exhausted(attempt, known)
            not_before, now = max(known.not_before, due_of(attempt.delivery.attributes)), self.clock.now()
            if not_before - now > EARLY_S:
                return later(attempt, not_before, now)
            standing = starts.standing(attempt.task.task_id, known.started)
            if standing is Standing.RUNNING:
                return back(attempt.delivery, RUNNING_WAIT_S)
            lost = standing is Standing.LOST
            if lost and len(known.lost) + 1 >= MAX_LOST:
                return self.verdicts.worker_died(attempt, known)
            attempt.suspect = lost or known.suspect
            if not (attempt.suspect or self._unexplained(attempt.delivery, known)) or starts.begin(attempt, known, generation, lost=lost):
                return None
        return back(attempt.delivery, RUNNING_WAIT_S)

    def _unexplained(self, delivery: Delivery, known: Attempts) -> bool:
        """Whether there was a delivery that no failed attempt accounts for. Where the broker does not count, only a retry of a worker
        has reason to think so."""
        if delivery.delivery_attempt == 0:
            return self.settings.retry > 0
        return delivery.delivery_attempt > known.attempt_count + 1

    def _unreadable(self, delivery: Delivery) -> Task:
        """What can be told of a message that is not a task."""
        return Task(
            task_id=readable_task_id(delivery.data, delivery.attributes, delivery.message_id),
            task_type=delivery.attributes.get("task_type", "unknown"),
            submitted_at=iso(delivery.published_s),
            lane=self.settings.lane_name,
            shard=shard_of(delivery.attributes, lane=self.settings.lane_name, published_s=delivery.published_s),
        )
