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
MAX_ROUNDS = 10
MAX_TIME_S = 1e11
"""A time beyond the year 5000 is none."""


@dataclass(frozen=True, slots=True)
class AttemptError:
    """One failed attempt."""

    at: str
    error_type: str
    reason: str
    execution: str
    index: int
    traceback: str = ""
    message_id: str = ""


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
    return _parsed(data), info.generation


def add_failure(store: ObjectStore, task_id: str, error: AttemptError, delay_s: float, now_s: float) -> Attempts:
    """Record one more failed attempt, also while another worker records one. Raises DependencyError."""
    for _ in range(MAX_ROUNDS):
        known, generation = read_attempts(store, task_id)
        if known.errors and known.errors[-1] == error:
            # The answer to our own write was lost: one run is one attempt.
            return known
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


def _parsed(data: bytes) -> Attempts:
    """A record that cannot be read counts as none: the task starts over, rather than stopping whoever meets it."""
    try:
        body: dict[str, Any] = json.loads(data)
        count, not_before = int(body["attempt_count"]), float(body["not_before"])
        errors = tuple(AttemptError(**error) for error in body["errors"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return NONE
    return Attempts(count, not_before, errors) if count >= 0 and abs(not_before) < MAX_TIME_S else NONE
