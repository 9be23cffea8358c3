"""Admission: from a delivery to an attempt whose turn has come, or to what becomes of the message without one.

Reads the bucket only for messages that were delivered before: a healthy first delivery costs no request.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from batch.handling.registry import Kind, Registry
from batch.model.attempts import Attempts
from batch.model.clock import Clock, iso
from batch.model.delayed import DELAYED, as_first_published, due_of
from batch.model.delivery import Delivery
from batch.model.errors import MessageRefused
from batch.model.message import Task, decode, readable_task_id, shard_of
from batch.services.ports import ObjectStore
from batch.settings import WorkerSettings
from batch.worker.attempt import Attempt
from batch.worker.committing.delaying import later
from batch.worker.committing.verdicts import Verdicts, back
from batch.worker.finished import Finished
from batch.worker.records import MAX_ROUNDS, read_attempts
from batch.worker.starts import Standing

EARLY_S = 1.0
"""A message may come back this much before its time and still run: the broker's deadlines are not exact."""
RUNNING_WAIT_S = 30.0
"""How long a message waits whose task may be running in another worker, or twice in this one."""
MAX_LOST = 5
"""So often a task may have been running when its worker went: the last times alone in a process of its own."""


@dataclass(frozen=True, slots=True)
class _Prepared:
    """What `attempt` need not find out any more: `found`, or the error that it raises. `taken` is called when it takes it."""

    found: Attempt | Finished | Exception
    taken: Callable[[], None]


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
    _prepared: dict[str, _Prepared] = field(default_factory=dict)
    """By ack id: what was found out ahead of `attempt`."""

    def attempt(self, delivery: Delivery) -> Attempt | Finished:
        """Raises DependencyError when the bucket does not answer."""
        prepared = self._prepared.pop(delivery.ack_id, None) if self._prepared else None
        found = self._found(delivery) if prepared is None else self._taken(prepared)
        return self._ready(found) if isinstance(found, Attempt) else found

    def prepare(self, delivery: Delivery, taken: Callable[[], None]) -> bool:
        """Do ahead of `attempt` what of it may have to wait for the bucket; `taken` is called when `attempt` is. False in quarantine:
        nothing was done then, for its start must not stand in the bucket while it waits for its turn."""
        found: Attempt | Finished | Exception
        try:
            found = self._found(delivery, mark_quarantined=False)
        except Exception as error:  # noqa: BLE001 - raised by `attempt`
            found = error
        if isinstance(found, Attempt) and found.quarantined:
            return False
        self._prepared[delivery.ack_id] = _Prepared(found, taken)
        return True

    def keep(self, attempt: Attempt, taken: Callable[[], None]) -> None:
        """Let `attempt` return this once more, as after `prepare`."""
        self._prepared[attempt.delivery.ack_id] = _Prepared(attempt, taken)

    def forget(self, ack_id: str) -> Attempt | None:
        """What was prepared will not run; returns the attempt, if it was to be one."""
        prepared = self._prepared.pop(ack_id, None)
        return prepared.found if prepared is not None and isinstance(prepared.found, Attempt) else None

    def _taken(self, prepared: _Prepared) -> Attempt | Finished:
        prepared.taken()
        if isinstance(prepared.found, Exception):
            raise prepared.found
        if isinstance(prepared.found, Attempt):
            prepared.found.began_s = self.clock.monotonic()
        return prepared.found

    def _found(self, delivery: Delivery, *, mark_quarantined: bool = True) -> Attempt | Finished:
        began_s = self.clock.monotonic()
        if DELAYED in delivery.attributes:
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
        attempt = Attempt(delivery, task, handler, None, began_s, self.end_s)
        if self.asks(delivery):
            unrun = self._met_before(attempt, mark_quarantined=mark_quarantined)
            if unrun is not None:
                return unrun
        return attempt

    def _ready(self, attempt: Attempt) -> Attempt | Finished:
        """Its time counts from now."""
        handler = attempt.handler
        if handler.timeout_s is not None:
            attempt.deadline_s = min(self.end_s, attempt.began_s + handler.timeout_s)
        if attempt.quarantined or handler.kind is Kind.PROCESS:
            # In a child: its time counts from when the child is ready, and the child validates, for a payload model is user code.
            return attempt
        if handler.timeout_s is not None:
            self.timed(attempt.delivery.ack_id, attempt.deadline_s)
        return attempt if handler.payload is None else self._with_payload(attempt)

    def asks(self, delivery: Delivery) -> bool:
        """Whether `attempt` asks the bucket about this delivery, and so may have to wait."""
        return delivery.delivery_attempt != 1 or DELAYED in delivery.attributes

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

    def _met_before(self, attempt: Attempt, *, mark_quarantined: bool) -> Finished | None:
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
            standing = starts.standing(attempt.task.task_id, known.in_progress)
            if standing is Standing.RUNNING:
                return back(attempt.delivery, RUNNING_WAIT_S)
            lost = standing is Standing.LOST
            if lost and len(known.lost) + 1 >= MAX_LOST:
                return self.verdicts.worker_died(attempt, known)
            attempt.quarantined = lost or known.quarantined
            if attempt.quarantined and not mark_quarantined:
                return None
            if not (attempt.quarantined or self._unexplained(attempt.delivery, known)) or starts.begin(
                attempt, known, generation, lost=lost
            ):
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
