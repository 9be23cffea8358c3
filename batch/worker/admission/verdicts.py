"""Verdicts: from a handler's answer to what becomes of the message. Writes the record of a failed attempt; acks nothing."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from batch.events import log
from batch.handling.answer import CAME_THROUGH, Answer, Said, raised
from batch.handling.cancels import Cancel, Cancels
from batch.logs import TRACEPARENT, trace_id_in
from batch.model.attempts import AttemptError, Attempts
from batch.model.clock import Clock, iso
from batch.model.deadletters import MAX_REASON_BYTES, cut, dead_letter, fingerprint_of
from batch.model.delivery import GOOGLE_TRACEPARENT, Delivery
from batch.model.message import Task
from batch.model.names import attempts_object
from batch.model.outcomes import MAX_LINE_BYTES, Lines, left_out, with_trace
from batch.model.result import ResultRefused
from batch.services.ports import ObjectStore
from batch.settings import WorkerSettings
from batch.telemetry.ports import AttemptWatch
from batch.worker.admission.failures import log_dead, log_failed
from batch.worker.admission.markers import Markers
from batch.worker.admission.records import add_failure
from batch.worker.admission.slowed_types import SlowedTypes
from batch.worker.attempt import Attempt, Ended, Finished, Nack, Work, delivery_of, later, nack_after

DEPENDENCY_WAIT_S = 10.0
"""How long a task waits after a service failed under it."""
FAULT_WAIT_S = 60.0
"""How long a message waits that we could not deal with ourselves; the subscription's dead-letter policy bounds how often."""
JITTER = 0.1
RETURNED = Said.RETURNED.value


@dataclass(slots=True)
class Verdicts:
    """Used by all executors at once."""

    settings: WorkerSettings
    store: ObjectStore
    clock: Clock
    rng: random.Random
    markers: Markers
    watch: AttemptWatch | None = None
    cancels: Cancels = field(default_factory=Cancels)
    slowed_types: SlowedTypes = field(init=False)
    _lines: Lines = field(init=False)

    def __post_init__(self) -> None:
        self.slowed_types = SlowedTypes(self.settings, self.store, self.clock, self.markers)
        self._lines = Lines(self.settings.execution, self.settings.index, self.settings.retry)

    def finished(self, attempt: Attempt, answer: Answer) -> Finished:
        """What becomes of the attempt's message; its in-progress marker, if it has one, is removed. Raises DependencyError when a failure
        cannot be recorded."""
        if attempt.marker_generation is None:
            if answer.said is Said.RETURNED:
                try:
                    return self.returned(attempt, answer)
                except ResultRefused as refused:
                    return self._failed(attempt, self._told(attempt, raised(refused.error)))
            return self._finished(attempt, answer)
        done = False
        try:
            finished = self._finished(attempt, answer)
            done = isinstance(finished, Ended)
            return finished
        finally:
            self.markers.unmark(attempt, done=done)

    def _finished(self, attempt: Attempt, answer: Answer) -> Finished:
        if answer.said is Said.RETURNED:
            try:
                return self.returned(attempt, answer)
            except ResultRefused as refused:
                return self._failed(attempt, self._told(attempt, raised(refused.error)))
        self._told(attempt, answer)
        if answer.said in CAME_THROUGH:
            self.slowed_types.came_through(attempt)
        if answer.said is Said.SUPERSEDED:
            return self._superseded(attempt, attempt.number, answer.reason)
        if answer.said is Said.SNOOZED:
            return self._again(attempt, self.clock.now() + (answer.after_s or 0.0), on_record=False)
        if answer.said in (Said.PERMANENT, Said.INVALID):
            return self._dead(attempt, attempt.number, answer.said.value, answer.reason)
        if answer.said is Said.DEPENDENCY:
            return self.unserved(attempt, answer.reason)
        if answer.said is Said.CANCELLED:
            if (entry := self.cancelled_by(attempt)) is not None:
                return self._cancelled(attempt, entry, attempt.number)
            answer.reason = f"nobody has cancelled this task: look at ctx.cancelled before you raise it. {answer.reason}".strip()
        return self._failed(attempt, answer)

    def _told(self, attempt: Attempt, answer: Answer) -> Answer:
        """The same answer; telemetry has heard of it."""
        if self.watch is not None:
            seconds = self.clock.monotonic() - attempt.began_s
            said = (answer.said.value, seconds, attempt.span, answer.error_type, cut(answer.reason, MAX_REASON_BYTES), answer.traceback)
            self.watch.ended(attempt.task.task_type, *said)
        return answer

    def returned(self, attempt: Attempt, answer: Answer) -> Ended:
        """The handler has returned. Raises ResultRefused: then the attempt has failed."""
        clock = self.clock
        ended_s = clock.monotonic()
        ended = self._returned(attempt, answer.result, answer.output, self._shared(attempt, iso(clock.now()), ended_s))
        if self.watch is not None:
            self.watch.ended(attempt.task.task_type, RETURNED, ended_s - attempt.began_s, attempt.span)
        if self.slowed_types.slowing.failing:
            self.slowed_types.came_through(attempt)
        return ended

    def together(self, attempts: Sequence[Attempt], results: Sequence[Any], outputs: Sequence[str]) -> list[Finished]:
        """As `finished`, for attempts of one handler that one call has ended, none of them marked: all have returned. Raises
        ResultRefused."""
        finished_at, ended_s = iso(self.clock.now()), self.clock.monotonic()
        shared: dict[tuple[float, int, int], str] = {}
        finished: list[Finished] = []
        for attempt, result, output in zip(attempts, results, outputs, strict=True):
            key = (attempt.began_s, attempt.before.attempt_count, attempt.task.replay_number)
            known = shared.get(key)
            if known is None:
                known = shared[key] = self._shared(attempt, finished_at, ended_s)
            finished.append(self._returned(attempt, result, output, known))
        if self.watch is not None and attempts:
            spans = [one.span for one in attempts if one.span is not None]
            self.watch.ended_together(attempts[0].task.task_type, RETURNED, ended_s - attempts[0].began_s, len(attempts), spans)
        if self.slowed_types.slowing.failing and attempts:
            self.slowed_types.came_through(attempts[0])
        return finished

    def _shared(self, attempt: Attempt, finished_at: str, ended_s: float) -> str:
        task, number = attempt.task, attempt.before.attempt_count + 1
        return self._lines.shared(task.task_type, "succeeded", finished_at, ended_s - attempt.began_s, number, task.replay_number)

    def _returned(self, attempt: Attempt, result: Any, output: str, shared: str) -> Ended:
        """With a line that is ready to be written; a result too large for one is left out, and the line says so."""
        task, delivery = attempt.task, attempt.delivery
        line = self._lines.of(task.task_id, shared, delivery.message_id, output, result)
        if len(line) > MAX_LINE_BYTES:
            line = self._lines.of(task.task_id, shared, delivery.message_id, output, left_out(line))
        if TRACEPARENT in delivery.attributes or GOOGLE_TRACEPARENT in delivery.attributes:
            line = with_trace(line, trace_id_in(delivery.attributes))
        ended = Ended(delivery.ack_id, task.shard, task.task_id, delivery.message_id, "succeeded", line)
        if task.submission_id:
            ended.submission_id = task.submission_id
        if delivery.delivery_attempt > 1:
            ended.delivery = delivery
        return ended

    def unserved(self, work: Work, error: str) -> Nack:
        """A service failed: the message is nacked, and the breaker hears of it."""
        log("dependency_failed", message_id=delivery_of(work).message_id, error=error)
        return replace(nack_after(work, DEPENDENCY_WAIT_S), dependency=error)

    def _failed(self, attempt: Attempt, answer: Answer) -> Finished:
        """A failed attempt is on record before the task goes back; the last one makes it dead."""
        handler = attempt.handler
        delay_s = max(0.0, answer.after_s) if answer.after_s is not None else self._backoff_s(attempt)
        delay_s = max(delay_s, self.slowed_types.slowing.least_wait_s(attempt.task.task_type, attempt.task.task_id, self.clock.now()))
        failure = AttemptError(
            at=iso(self.clock.now()),
            error_type=answer.error_type,
            reason=cut(answer.reason, MAX_REASON_BYTES),
            execution=self.settings.execution,
            index=self.settings.index,
            traceback=answer.traceback,
            message_id=attempt.delivery.message_id,
        )
        number = attempt.task.replay_number
        attempts = add_failure(self.store, attempt.task.task_id, failure, delay_s, self.clock.now(), number)
        self.markers.forget(attempt)
        if attempts.replay_number > number:
            return self.overtaken(attempt, attempts)
        log_failed(attempt, failure, attempts.attempt_count)
        self.slowed_types.failed(attempt, failure)
        attempt.before, attempt.has_record = attempts, True
        if attempt.quarantined and answer.said is Said.CRASHED:
            return self.worker_died(attempt, attempts, f"then it was run alone in a process of its own, and {answer.reason}")
        if attempts.attempt_count <= handler.retries:
            return self._again(attempt, attempts.not_before)
        return self.exhausted(attempt, attempts)

    def overtaken(self, attempt: Attempt, attempts: Attempts) -> Ended:
        """The message comes late: a later replay of its task is under way, or through, and whatever this one does counts no more."""
        return self._superseded(attempt, attempts.attempt_count, f"replay {attempts.replay_number} of this task is on record")

    def _superseded(self, attempt: Attempt, attempt_count: int, reason: str) -> Ended:
        return self._ended(attempt.task, attempt.delivery, attempt.began_s, "superseded", attempt_count, reason=reason)

    def cancelled_by(self, attempt: Attempt) -> Cancel | None:
        """The entry that cancels an attempt's task; None when nothing does."""
        cancels, task = self.cancels, attempt.task
        return cancels.entry_for(task.task_id, task.submission_id, attempt.delivery.attributes) if cancels.by_id else None

    def unstarted(self, attempt: Attempt) -> Ended | None:
        """The outcome of a cancelled task whose attempt has not begun; its in-progress marker, if it has one, is removed. None when it is
        not cancelled."""
        entry = self.cancelled_by(attempt)
        if entry is not None and attempt.marked:
            self.markers.unmark(attempt, done=True)
        return None if entry is None else self._cancelled(attempt, entry, attempt.before.attempt_count)

    def unwanted(self, task: Task, delivery: Delivery, began_s: float, reason: str) -> Ended:
        """The outcome of a task that no handler of its lane is to have."""
        return self._ended(task, delivery, began_s, "cancelled", 0, reason=reason)

    def _again(self, attempt: Attempt, not_before: float, *, on_record: bool = True) -> Finished:
        """It runs again, not before this time (Unix seconds), unless it was cancelled meanwhile."""
        entry = self.cancelled_by(attempt)
        if entry is not None:
            return self._cancelled(attempt, entry, attempt.number)
        return later(attempt, not_before, self.clock.now(), on_record=on_record)

    def _cancelled(self, attempt: Attempt, entry: Cancel, attempt_count: int) -> Ended:
        return self._ended(attempt.task, attempt.delivery, attempt.began_s, "cancelled", attempt_count, reason=entry.reason)

    def _backoff_s(self, attempt: Attempt) -> float:
        return attempt.handler.backoff.delay_s(attempt.number) * (1 + JITTER * self.rng.random())

    def exhausted(self, attempt: Attempt, attempts: Attempts) -> Ended:
        """No attempt is left: dead, with the last error on record."""
        last = attempts.errors[-1] if attempts.errors else None
        reason = last.reason if last else "no error is on record"
        return self._dead(attempt, attempts.attempt_count, last.error_type if last else "unknown", reason, last)

    def worker_died(self, attempt: Attempt, attempts: Attempts, evidence: str = "the last times alone in a process of its own") -> Ended:
        """Dead, because workers ended while it ran; what is known of them stands in the record of its attempts."""
        lost = list(dict.fromkeys((*attempts.lost, attempts.in_progress) if attempts.in_progress else attempts.lost))
        workers = "its worker" if len(lost) == 1 else f"each of {len(lost)} workers"
        reason = f"{workers} ended while it ran (the last: {lost[-1]}); {evidence}; see {attempts_object(attempt.task.task_id)}"
        last = attempts.errors[-1] if attempts.errors else None
        return self._dead(attempt, max(1, attempts.attempt_count), "worker_died", reason, last, on_record=True)

    def _dead(
        self,
        attempt: Attempt,
        attempt_count: int,
        error_type: str,
        reason: str,
        last: AttemptError | None = None,
        on_record: bool = False,
    ) -> Ended:
        return self.dead(attempt.task, attempt.delivery, attempt.began_s, attempt_count, error_type, reason, last, on_record)

    def dead(
        self,
        task: Task,
        delivery: Delivery,
        began_s: float,
        attempt_count: int,
        error_type: str,
        reason: str,
        last: AttemptError | None = None,
        on_record: bool = False,
    ) -> Ended:
        """`task` as far as it could be read; `last` is its last failed attempt."""
        reason = cut(reason, MAX_REASON_BYTES)
        log_dead(self.settings.job, task, delivery, attempt_count, error_type, reason, last, on_record=on_record or last is not None)
        fingerprint = fingerprint_of(error_type, reason, last.traceback if last else "")
        letter = dead_letter(
            delivery.data,
            delivery.attributes,
            task_id=task.task_id,
            error_type=error_type,
            reason=reason,
            attempt_count=attempt_count,
            execution=self.settings.execution,
            index=self.settings.index,
            lane=self.settings.lane_name,
            fingerprint=fingerprint,
            message_id=delivery.message_id,
            published_s=delivery.published_s,
        )
        ended = self._ended(task, delivery, began_s, "dead", attempt_count, error_type=error_type, reason=reason, fingerprint=fingerprint)
        ended.dead_letter = letter
        return ended

    def _ended(
        self,
        task: Task,
        delivery: Delivery,
        began_s: float,
        outcome: str,
        attempt_count: int,
        error_type: str = "",
        reason: str = "",
        fingerprint: str = "",
    ) -> Ended:
        """An outcome without a result."""
        clock, lines = self.clock, self._lines
        took_s = clock.monotonic() - began_s
        shared = lines.shared(task.task_type, outcome, iso(clock.now()), took_s, attempt_count, task.replay_number)
        line = lines.of(task.task_id, shared, delivery.message_id, error_type=error_type, reason=reason, fingerprint=fingerprint)
        line = with_trace(line, trace_id_in(delivery.attributes))
        ids = (delivery.ack_id, task.shard, task.task_id, delivery.message_id)
        return Ended(*ids, outcome, line, delivery=delivery, submission_id=task.submission_id)
