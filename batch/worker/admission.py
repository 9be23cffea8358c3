"""Admission: from a delivery to an attempt whose turn has come, or to what becomes of the message without one.

Reads the bucket only for messages that were delivered before: a healthy first delivery costs no request.
"""

from __future__ import annotations

from dataclasses import dataclass

from batch.attempts import NONE, read_attempts
from batch.clock import Clock, iso
from batch.config import WorkerSettings
from batch.errors import MessageRefused
from batch.message import Task, decode, readable_task_id, shard_of
from batch.objects import ObjectStore
from batch.registry import Registry
from batch.subscription import Delivery
from batch.worker.attempt import Attempt
from batch.worker.finished import Finished
from batch.worker.verdicts import Verdicts, back

EARLY_S = 1.0
"""A message may come back this much before its time and still run: the broker's deadlines are not exact."""


@dataclass(slots=True)
class Admission:
    """`end_s` is when every handler must be through (monotonic). Used by all executors at once."""

    settings: WorkerSettings
    registry: Registry
    store: ObjectStore
    clock: Clock
    verdicts: Verdicts
    end_s: float

    def attempt(self, delivery: Delivery) -> Attempt | Finished:
        """Raises DependencyError when the bucket does not answer."""
        began_s = self.clock.monotonic()
        try:
            task = decode(
                delivery.data,
                delivery.attributes,
                message_id=delivery.message_id,
                published_s=delivery.published_s,
                lane=self.settings.lane_name,
            )
            handler = self.registry[task.task_type]
            payload = handler.validated(task)
        except MessageRefused as error:
            return self.verdicts.dead(self._unreadable(delivery), delivery, began_s, 0, error.kind, str(error))
        deadline_s = self.end_s if handler.timeout_s is None else min(self.end_s, began_s + handler.timeout_s)
        attempt = Attempt(delivery, task, handler, payload, began_s, deadline_s)
        return attempt if delivery.delivery_attempt == 1 else self._met_before(attempt)

    def _met_before(self, attempt: Attempt) -> Attempt | Finished:
        """A message that was delivered before, or may have been: its record decides."""
        before, _generation = read_attempts(self.store, attempt.task.task_id)
        if before is NONE:
            return attempt
        attempt.before = before
        if before.attempt_count > attempt.handler.retries:
            # Its last attempt is on record, and whoever ran it was gone before the outcome was.
            return self.verdicts.exhausted(attempt, before)
        early_s = before.not_before - self.clock.now()
        return back(attempt.delivery, early_s) if early_s > EARLY_S else attempt

    def _unreadable(self, delivery: Delivery) -> Task:
        """What can be told of a message that is not a task."""
        return Task(
            task_id=readable_task_id(delivery.data, delivery.attributes, delivery.message_id),
            task_type=delivery.attributes.get("task_type", "unknown"),
            submitted_at=iso(delivery.published_s),
            lane=self.settings.lane_name,
            shard=shard_of(delivery.attributes, lane=self.settings.lane_name, published_s=delivery.published_s),
        )
