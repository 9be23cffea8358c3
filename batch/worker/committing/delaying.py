"""Delaying: a task that must wait longer than Pub/Sub can hold its message back waits in the bucket. Written first, then acknowledged.

The controller's tick publishes the message again when it is due, and deletes the object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from batch.events import log
from batch.model.delayed import DelayedMessage, to_object
from batch.model.errors import DependencyUnavailable, FanoutError, ObjectMissing, PreconditionFailed
from batch.model.message import Task
from batch.model.names import delayed_object
from batch.services.leases import LeaseKeeper
from batch.services.ports import ObjectStore, Subscription
from batch.worker.admission.records import postpone
from batch.worker.attempt import Delayed
from batch.worker.tally import Tally

WRITES_IN_FLIGHT = 8
MAX_ROUNDS = 5


@dataclass(slots=True)
class Delaying:
    """Used by the committer's thread only. `heartbeat` is called as it gets on."""

    store: ObjectStore
    subscription: Subscription
    leases: LeaseKeeper
    tally: Tally
    heartbeat: Callable[[], None] = lambda: None
    _down: str = ""

    def delay(self, delayed: Sequence[Delayed]) -> dict[str, str]:
        """Write them, several at a time, and acknowledge what is written. Returns why, by ack id, for those that could not be written:
        their messages are still outstanding."""
        self._down = ""
        errors = self._all_written(delayed)
        failed = {one.ack_id: error for one, error in zip(delayed, errors, strict=True) if error}
        written = [one for one in delayed if one.ack_id not in failed]
        if written:
            self._acknowledge(written)
        if failed:
            log("delaying_failed", message_count=len(failed), error=next(iter(failed.values())))
        return failed

    def _all_written(self, delayed: Sequence[Delayed]) -> list[str]:
        if len(delayed) == 1:
            return [self._written(delayed[0])]
        errors: list[str] = []
        with ThreadPoolExecutor(min(WRITES_IN_FLIGHT, len(delayed)), thread_name_prefix="delaying") as pool:
            for error in pool.map(self._written, delayed):
                errors.append(error)
                self.heartbeat()
        return errors

    def _written(self, one: Delayed) -> str:
        """Empty, or why it could not be written. After one that failed no more are begun: each would take a minute of retries."""
        if self._down:
            return self._down
        try:
            self._write(one)
        except FanoutError as error:
            self._down = str(error) or type(error).__name__
            return self._down
        return ""

    def _write(self, one: Delayed) -> None:
        """Once, whatever was there: our own bytes mean that an answer was lost or the message came twice, others are replaced."""
        delivery, task_id = one.attempt.delivery, one.attempt.task.task_id
        name = delayed_object(self.subscription.name, one.not_before, task_id, delivery.message_id)
        message = DelayedMessage(task_id, delivery.message_id, delivery.published_s, delivery.attributes, delivery.data)
        body, generation = to_object(message), 0
        for _ in range(MAX_ROUNDS):
            try:
                self.store.write(name, body, if_generation=generation)
                return
            except PreconditionFailed:
                try:
                    found, info = self.store.read_with_info(name)
                except ObjectMissing:
                    generation = 0
                    continue
                if found == body:
                    return
                generation = info.generation
        raise DependencyUnavailable(f"object {name} was changed {MAX_ROUNDS} times while it was written; find who writes under delayed/")

    def _acknowledge(self, written: Sequence[Delayed]) -> None:
        """Whose acknowledgement fails is delivered again, and may not run then: its time is noted where nothing tells it."""
        ack_ids = [one.ack_id for one in written]
        try:
            lost = set(self.subscription.ack(ack_ids))
        except FanoutError as error:
            log("acks_lost", message_count=len(ack_ids), error=str(error))
            lost = set(ack_ids)
        else:
            if lost:
                log("acks_lost", message_count=len(lost))
        self.note((one.attempt.task, one.not_before) for one in written if one.ack_id in lost and not one.on_record)
        self.leases.release(ack_ids)
        acked_count = len(written) - len(lost)
        self.tally.acknowledged(acked_count, (), delayed=acked_count)
        if lost:
            self.tally.nacked(len(lost))
        log("delayed", task_count=len(written), acked_count=acked_count)

    def note(self, waits: Iterable[tuple[Task, float]]) -> None:
        """Put on record before which time (Unix seconds) these tasks may not run: their messages may come back early."""
        for task, not_before in waits:
            self.heartbeat()
            try:
                postpone(self.store, task.task_id, not_before, task.replay_number)
            except FanoutError as error:
                log("wait_not_recorded", task_id=task.task_id, error=str(error))
