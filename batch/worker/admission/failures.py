"""What is logged of a failed attempt and of a dead task: the error in the message, its traceback as Cloud Error Reporting groups it, and
where the task's record lies."""

from __future__ import annotations

from typing import Any

from batch.events import log
from batch.logs import trace_field
from batch.model.attempts import AttemptError
from batch.model.delivery import Delivery
from batch.model.message import Task
from batch.model.names import attempts_object
from batch.model.texts import is_traceback
from batch.worker.attempt import Attempt

REPORTED = "type.googleapis.com/google.devtools.clouderrorreporting.v1beta1.ReportedErrorEvent"
"""Makes an entry an error for Cloud Error Reporting, whatever resource has written it."""


def log_failed(attempt: Attempt, failure: AttemptError, attempt_count: int) -> None:
    """A failed attempt, which is on record. Error Reporting groups its traceback, where it has one, by itself."""
    facts = {**_of(attempt.task, attempt.delivery), "attempt": attempt_count, "record": attempts_object(attempt.task.task_id)}
    said = f"attempt failed: {_named(failure.error_type, failure.reason)}"
    log("attempt_failed", said, **facts, error_type=failure.error_type, reason=failure.reason, **_stack(failure))


def log_dead(
    service: str,
    task: Task,
    delivery: Delivery,
    attempt_count: int,
    error_type: str,
    reason: str,
    last: AttemptError | None,
    *,
    on_record: bool,
) -> None:
    """A task that is dead, with its last failed attempt, if it has one. Without a traceback it is grouped by task and error type."""
    facts = {**_of(task, delivery), "attempt": attempt_count} | ({"record": attempts_object(task.task_id)} if on_record else {})
    report: dict[str, Any] = {"@type": REPORTED, "serviceContext": {"service": service}}
    stack = _stack(last) if last is not None else {}
    if "stack_trace" not in stack:
        place = {"filePath": task.task_type, "lineNumber": 0, "functionName": error_type}
        report["context"] = {"reportLocation": place}
    said = f"dead lettered: {_named(error_type, reason)}"
    log("dead_lettered", said, **facts, error_type=error_type, reason=reason, **stack, **report)


def _of(task: Task, delivery: Delivery) -> dict[str, Any]:
    return {"task_id": task.task_id, "task_type": task.task_type, **trace_field(delivery.attributes)}


def _named(error_type: str, reason: str) -> str:
    """No word twice: the reason of a dead task may begin with its error."""
    if reason.startswith(error_type):
        return reason
    return f"{error_type}: {reason}" if reason else error_type


def _stack(failure: AttemptError) -> dict[str, str]:
    """What is no traceback of Python's, such as the last words of a child, must not be taken for one."""
    if not failure.traceback:
        return {}
    return {"stack_trace" if is_traceback(failure.traceback) else "stack": failure.traceback}
