"""One delivery through its handler: from bytes to what becomes of it. Does no acks and writes no outcomes; whatever a handler
does, it returns a value, so a bad task never stops a worker."""

from __future__ import annotations

import asyncio
import inspect
import random
import threading
import traceback
from dataclasses import dataclass, field, replace
from typing import Any

from batch.attempts import MAX_TRACEBACK_CHARS, NONE, AttemptError, Attempts, add_failure, read_attempts
from batch.clock import Clock, iso
from batch.config import WorkerSettings
from batch.context import Context
from batch.deadletters import MAX_REASON_BYTES, cut, dead_letter
from batch.errors import DependencyError, FanoutError, MessageRefused, NameRefused, Permanent, Retry, Snooze, Superseded, text_of
from batch.events import log
from batch.message import Task, decode, readable_task_id, shard_of
from batch.objects import ObjectStore
from batch.outcomes import Outcome, to_line
from batch.registry import Handler, Registry
from batch.subscription import MAX_EXTENSION_S, Delivery
from batch.worker.finished import Ended, Finished, GoesBack

DEPENDENCY_WAIT_S = 10.0
"""How long a task waits after a service failed under it."""
FAULT_WAIT_S = 60.0
"""How long a message waits that we could not deal with ourselves; the subscription's dead-letter policy bounds how often."""
EARLY_S = 1.0
"""A message may come back this much before its time and still run: the broker's deadlines are not exact."""
MAX_LINE_BYTES = 64 * 1024
JITTER = 0.1


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One run of a handler: `before` are the failed attempts on record, `began_s` is monotonic."""

    delivery: Delivery
    task: Task
    began_s: float
    before: Attempts = NONE

    @property
    def number(self) -> int:
        return self.before.attempt_count + 1


@dataclass(slots=True)
class Runner:
    """Runs deliveries for one worker; used by all its slots at once. `end_s` is when every handler must be through (monotonic)."""

    settings: WorkerSettings
    registry: Registry
    store: ObjectStore
    clock: Clock
    chance: random.Random
    end_s: float
    stopping: threading.Event = field(default_factory=threading.Event)

    def run(self, delivery: Delivery) -> Finished:
        """What becomes of this delivery."""
        began_s = self.clock.monotonic()
        try:
            return self._run(delivery, began_s)
        except FanoutError as error:
            # Of ours only a service's errors come this far; one that says the request was wrong is no fault of the task either.
            log("dependency_failed", message_id=delivery.message_id, error=text_of(error))
            return replace(_back(delivery, DEPENDENCY_WAIT_S), dependency=text_of(error))
        except Exception as error:  # noqa: BLE001 - a fault of ours must not take the other messages along
            log("runner_fault", message_id=delivery.message_id, error=text_of(error), exception=traceback.format_exc())
            return _back(delivery, FAULT_WAIT_S)

    def _run(self, delivery: Delivery, began_s: float) -> Finished:
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
            return self._dead(_Attempt(delivery, self._unreadable(delivery), began_s), 0, error.kind, str(error))
        before = NONE if delivery.delivery_attempt == 1 else read_attempts(self.store, task.task_id)[0]
        run = _Attempt(delivery, task, began_s, before)
        if before.attempt_count > handler.retries:
            # Its last attempt is on record, and whoever ran it was gone before the outcome was.
            return self._exhausted(run, handler, before)
        early_s = before.not_before - self.clock.now()
        return _back(delivery, early_s) if early_s > EARLY_S else self._handle(run, handler, payload)

    def _handle(self, run: _Attempt, handler: Handler, payload: Any) -> Finished:
        """Call the handler, and turn what it returns or raises into a value. Only DependencyError passes through."""
        deadline_s = self.end_s if handler.timeout_s is None else min(self.end_s, run.began_s + handler.timeout_s)
        ctx = Context(run.task, self.store, self.clock, run.number, deadline_s, payload, self.stopping)
        try:
            result = handler.function(run.task, ctx)
            if inspect.iscoroutine(result):
                result = asyncio.run(result)
        except DependencyError:
            raise
        except Superseded as signal:
            return self._ended(run, Outcome("", "", "superseded", "", attempt_count=run.number, reason=text_of(signal)))
        except Snooze as signal:
            return _back(run.delivery, signal.after_s)
        except Permanent as signal:
            return self._dead(run, run.number, "permanent", text_of(signal) or "the handler gave no reason")
        except (NameRefused, MessageRefused) as error:
            return self._dead(run, run.number, "invalid", text_of(error))
        except BaseException as error:  # noqa: BLE001 - whatever user code raises is this task's failure, not the worker's
            return self._failed(run, handler, error)
        output = ctx.outputs[-1].name if ctx.outputs else ""
        return self._ended(run, Outcome("", "", "succeeded", "", attempt_count=run.number, output=output, result=result))

    def _failed(self, run: _Attempt, handler: Handler, error: BaseException) -> Finished:
        """A failed attempt is on record before the task goes back; the last one makes it dead."""
        asked_s = error.after_s if isinstance(error, Retry) else None
        delay_s = handler.backoff.delay_s(run.number) * (1 + JITTER * self.chance.random()) if asked_s is None else max(0.0, asked_s)
        failure = AttemptError(
            at=iso(self.clock.now()),
            error_type=type(error).__name__,
            reason=cut(text_of(error), MAX_REASON_BYTES),
            execution=self.settings.execution,
            index=self.settings.index,
            traceback=_traceback(error)[-MAX_TRACEBACK_CHARS:],
            message_id=run.delivery.message_id,
        )
        attempts = add_failure(self.store, run.task.task_id, failure, delay_s, self.clock.now())
        facts = {"task_id": run.task.task_id, "task_type": run.task.task_type, "attempt": attempts.attempt_count}
        log("attempt_failed", **facts, error_type=failure.error_type, reason=failure.reason)
        if attempts.attempt_count <= handler.retries:
            return _back(run.delivery, delay_s)
        return self._exhausted(run, handler, attempts)

    def _exhausted(self, run: _Attempt, handler: Handler, attempts: Attempts) -> Ended:
        """No attempt is left: dead, with the last error on record."""
        last = attempts.errors[-1] if attempts.errors else None
        what = f"{last.error_type}: {last.reason}" if last else "no error is on record"
        reason = f"{what} (attempt {attempts.attempt_count} of {handler.retries + 1}, the last)"
        return self._dead(run, attempts.attempt_count, last.error_type if last else "unknown", reason)

    def _unreadable(self, delivery: Delivery) -> Task:
        """What can be told of a message that is not a task."""
        return Task(
            task_id=readable_task_id(delivery.data, delivery.attributes, delivery.message_id),
            task_type=delivery.attributes.get("task_type", "unknown"),
            submitted_at=iso(delivery.published_s),
            lane=self.settings.lane_name,
            shard=shard_of(delivery.attributes, lane=self.settings.lane_name, published_s=delivery.published_s),
        )

    def _dead(self, run: _Attempt, attempt_count: int, error_type: str, reason: str) -> Ended:
        reason = cut(reason, MAX_REASON_BYTES)
        log("dead_lettered", task_id=run.task.task_id, task_type=run.task.task_type, error_type=error_type, reason=reason)
        letter = dead_letter(
            run.delivery.data,
            run.delivery.attributes,
            task_id=run.task.task_id,
            error_type=error_type,
            reason=reason,
            attempt_count=attempt_count,
            execution=self.settings.execution,
            index=self.settings.index,
        )
        ended = self._ended(run, Outcome("", "", "dead", "", attempt_count=attempt_count, error_type=error_type, reason=reason))
        return replace(ended, dead_letter=letter)

    def _ended(self, run: _Attempt, facts: Outcome) -> Ended:
        """`facts` with who, when and where filled in, as a line that is ready to be written."""
        outcome = replace(
            facts,
            task_id=run.task.task_id,
            task_type=run.task.task_type,
            finished_at=iso(self.clock.now()),
            duration_s=max(0.0, self.clock.monotonic() - run.began_s),
            execution=self.settings.execution,
            index=self.settings.index,
            retry=self.settings.retry,
            message_id=run.delivery.message_id,
        )
        return Ended(run.delivery.ack_id, run.task.shard, outcome, _line(outcome))


def _back(delivery: Delivery, after_s: float) -> GoesBack:
    return GoesBack(delivery.ack_id, min(max(0.0, after_s), MAX_EXTENSION_S))


def _traceback(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))
    except Exception:  # noqa: BLE001 - an error whose text cannot be had has no printable traceback either
        return "".join(traceback.format_tb(error.__traceback__))


def _line(outcome: Outcome) -> bytes:
    """The outcome's line; a result too large for a line is left out, and the line says so."""
    line = to_line(outcome)
    if len(line) <= MAX_LINE_BYTES:
        return line
    return to_line(replace(outcome, result={"left_out": f"the result had {len(line)} bytes, at most {MAX_LINE_BYTES} are kept"}))
