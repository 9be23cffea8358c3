"""Attempts: how often a task's handler has run, and with which errors. Only failing tasks have a record.

The broker's delivery count cannot serve: it also counts hand-backs and expired leases, and may start again at zero.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from batch.clock import iso
from batch.errors import ObjectMissing, PreconditionFailed
from batch.names import attempts_object
from batch.objects import ObjectStore

ERRORS_KEPT = 20
MAX_TRACEBACK_CHARS = 4000
MAX_ROUNDS = 10


@dataclass(frozen=True, slots=True)
class AttemptError:
    """One failed attempt."""

    at: str
    error_type: str
    reason: str
    execution: str
    index: int
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Attempts:
    """`attempt_count` runs have failed; the next may not begin before `not_before` (Unix seconds); `errors` oldest first."""

    attempt_count: int = 0
    not_before: float = 0.0
    errors: tuple[AttemptError, ...] = ()

    def after(self, error: AttemptError, not_before: float) -> Attempts:
        return Attempts(self.attempt_count + 1, not_before, (*self.errors, error)[-ERRORS_KEPT:])


NONE = Attempts()


def read_attempts(store: ObjectStore, task_id: str) -> tuple[Attempts, int]:
    """The record and its generation; `NONE` and 0 when the task never failed. Raises DependencyError."""
    try:
        data, info = store.read_with_info(attempts_object(task_id))
    except ObjectMissing:
        return NONE, 0
    return _parsed(json.loads(data)), info.generation


def add_failure(store: ObjectStore, task_id: str, error: AttemptError, delay_s: float, now_s: float) -> Attempts:
    """Record one more failed attempt, also while another worker records one. Raises DependencyError."""
    for _ in range(MAX_ROUNDS):
        known, generation = read_attempts(store, task_id)
        attempts = known.after(error, now_s + delay_s)
        body = {**asdict(attempts), "task_id": task_id, "not_before_time": iso(attempts.not_before)}
        try:
            store.write(
                attempts_object(task_id),
                json.dumps(body, ensure_ascii=False).encode(),
                content_type="application/json",
                if_generation=generation,
            )
            return attempts
        except PreconditionFailed:
            continue
    raise RuntimeError(f"{attempts_object(task_id)} changed {MAX_ROUNDS} times while a failure was added to it")


def _parsed(body: dict[str, Any]) -> Attempts:
    return Attempts(body["attempt_count"], body["not_before"], tuple(AttemptError(**error) for error in body["errors"]))
