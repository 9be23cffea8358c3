"""Verdicts: from a handler's answer to what becomes of the message. Writes the record of a failed attempt; acks nothing."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from batch.answer import Answer, Said
from batch.attempts import AttemptError, Attempts, add_failure
from batch.clock import Clock, iso
from batch.config import WorkerSettings
from batch.deadletters import MAX_REASON_BYTES, cut, dead_letter
from batch.events import log
from batch.message import Task
from batch.objects import ObjectStore
from batch.outcomes import Outcome, to_line
from batch.subscription import MAX_EXTENSION_S, Delivery
from batch.worker.attempt import Attempt
from batch.worker.finished import Ended, Finished, GoesBack

DEPENDENCY_WAIT_S = 10.0
"""How long a task waits after a service failed under it."""
FAULT_WAIT_S = 60.0
"""How long a message waits that we could not deal with ourselves; the subscription's dead-letter policy bounds how often."""
MAX_LINE_BYTES = 64 * 1024
JITTER = 0.1


@dataclass(slots=True)
class Verdicts:
    """Used by all executors at once."""

    settings: WorkerSettings
    store: ObjectStore
    clock: Clock
    chance: random.Random

    def finished(self, attempt: Attempt, answer: Answer) -> Finished:
        """What becomes of the attempt's message. Raises DependencyError when a failure cannot be recorded."""
        if answer.said is Said.RETURNED:
            facts = Outcome("", "", "succeeded", "", attempt_count=attempt.number, output=answer.output, result=answer.result)
            return self._ended(attempt.task, attempt.delivery, attempt.began_s, facts)
        if answer.said is Said.SUPERSEDED:
            facts = Outcome("", "", "superseded", "", attempt_count=attempt.number, reason=answer.reason)
            return self._ended(attempt.task, attempt.delivery, attempt.began_s, facts)
        if answer.said is Said.SNOOZED:
            return back(attempt.delivery, answer.after_s or 0.0)
        if answer.said in (Said.PERMANENT, Said.INVALID):
            return self._dead(attempt, attempt.number, answer.said.value, answer.reason)
        if answer.said is Said.DEPENDENCY:
            return self.unserved(attempt.delivery, answer.reason)
        return self._failed(attempt, answer)

    def unserved(self, delivery: Delivery, error: str) -> GoesBack:
        """A service failed: the message goes back, and the breaker hears of it."""
        log("dependency_failed", message_id=delivery.message_id, error=error)
        return replace(back(delivery, DEPENDENCY_WAIT_S), dependency=error)

    def _failed(self, attempt: Attempt, answer: Answer) -> Finished:
        """A failed attempt is on record before the task goes back; the last one makes it dead."""
        handler = attempt.handler
        delay_s = max(0.0, answer.after_s) if answer.after_s is not None else self._backoff_s(attempt)
        failure = AttemptError(
            at=iso(self.clock.now()),
            error_type=answer.error_type,
            reason=cut(answer.reason, MAX_REASON_BYTES),
            execution=self.settings.execution,
            index=self.settings.index,
            traceback=answer.traceback,
            message_id=attempt.delivery.message_id,
        )
        attempts = add_failure(self.store, attempt.task.task_id, failure, delay_s, self.clock.now())
        facts = {"task_id": attempt.task.task_id, "task_type": attempt.task.task_type, "attempt": attempts.attempt_count}
        log("attempt_failed", **facts, error_type=failure.error_type, reason=failure.reason)
        if attempts.attempt_count <= handler.retries:
            return back(attempt.delivery, delay_s)
        return self.exhausted(attempt, attempts)

    def _backoff_s(self, attempt: Attempt) -> float:
        return attempt.handler.backoff.delay_s(attempt.number) * (1 + JITTER * self.chance.random())

    def exhausted(self, attempt: Attempt, attempts: Attempts) -> Ended:
        """No attempt is left: dead, with the last error on record."""
        last = attempts.errors[-1] if attempts.errors else None
        what = f"{last.error_type}: {last.reason}" if last else "no error is on record"
        reason = f"{what} (attempt {attempts.attempt_count} of {attempt.handler.retries + 1}, the last)"
        return self._dead(attempt, attempts.attempt_count, last.error_type if last else "unknown", reason)

    def _dead(self, attempt: Attempt, attempt_count: int, error_type: str, reason: str) -> Ended:
        return self.dead(attempt.task, attempt.delivery, attempt.began_s, attempt_count, error_type, reason)

    def dead(self, task: Task, delivery: Delivery, began_s: float, attempt_count: int, error_type: str, reason: str) -> Ended:
        """`task` as far as it could be read."""
        reason = cut(reason, MAX_REASON_BYTES)
        log("dead_lettered", task_id=task.task_id, task_type=task.task_type, error_type=error_type, reason=reason)
        letter = dead_letter(
            delivery.data,
            delivery.attributes,
            task_id=task.task_id,
            error_type=error_type,
            reason=reason,
            attempt_count=attempt_count,
            execution=self.settings.execution,
            index=self.settings.index,
        )
        facts = Outcome("", "", "dead", "", attempt_count=attempt_count, error_type=error_type, reason=reason)
        return replace(self._ended(task, delivery, began_s, facts), dead_letter=letter)

    def _ended(self, task: Task, delivery: Delivery, began_s: float, facts: Outcome) -> Ended:
        """`facts` with who, when and where filled in, as a line that is ready to be written."""
        outcome = replace(
            facts,
            task_id=task.task_id,
            task_type=task.task_type,
            finished_at=iso(self.clock.now()),
            duration_s=max(0.0, self.clock.monotonic() - began_s),
            execution=self.settings.execution,
            index=self.settings.index,
            retry=self.settings.retry,
            message_id=delivery.message_id,
        )
        return Ended(delivery.ack_id, task.shard, outcome, _line(outcome))


def back(delivery: Delivery, after_s: float) -> GoesBack:
    return GoesBack(delivery.ack_id, min(max(0.0, after_s), MAX_EXTENSION_S))


def _line(outcome: Outcome) -> bytes:
    """The outcome's line; a result too large for a line is left out, and the line says so."""
    line = to_line(outcome)
    if len(line) <= MAX_LINE_BYTES:
        return line
    return to_line(replace(outcome, result={"left_out": f"the result had {len(line)} bytes, at most {MAX_LINE_BYTES} are kept"}))
