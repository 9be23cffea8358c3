"""Attempts: how often a task's handler has run, and with which errors. Only failing tasks, and quarantined tasks, have a record.

The broker's delivery count cannot serve: it also counts hand-backs and expired leases, and may start again at zero. A record may also
hold a start: who runs the task now. A start whose worker is gone puts the task into quarantine, for it may have taken that worker along.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, TypeVar

from batch.model.clock import iso
from batch.model.errors import ObjectMissing, PreconditionFailed
from batch.model.names import attempts_object
from batch.services.ports import ObjectStore

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
class Start:
    """A run that began: in which try of which worker, and when (ISO 8601)."""

    execution: str
    index: int
    retry: int
    at: str

    def __str__(self) -> str:
        return f"worker {self.execution}/{self.index}, try {self.retry}, at {self.at}"


@dataclass(frozen=True, slots=True)
class Attempts:
    """`attempt_count` runs have failed; the next may not begin before `not_before` (Unix seconds); `errors` oldest first. `started` is
    the run that has begun and not ended; `lost` are those whose worker was gone before they ended, oldest first."""

    attempt_count: int = 0
    not_before: float = 0.0
    errors: tuple[AttemptError, ...] = ()
    started: Start | None = None
    lost: tuple[Start, ...] = ()

    @property
    def quarantined(self) -> bool:
        """Whether the task may have killed a worker."""
        return bool(self.lost)

    def after(self, error: AttemptError, not_before: float) -> Attempts:
        """With one more failed attempt: the start of the worker that tells it has ended by it, another worker's has not."""
        started = self.started
        if started is not None and (started.execution, started.index) == (error.execution, error.index):
            started = None
        return Attempts(self.attempt_count + 1, not_before, (*self.errors, error)[-ERRORS_KEPT:], started, self.lost)


NONE = Attempts()
Noted = TypeVar("Noted", AttemptError, Start)


def read_attempts(store: ObjectStore, task_id: str) -> tuple[Attempts, int]:
    """The record and its generation; `NONE` and 0 when there is none. Raises DependencyError."""
    try:
        data, info = store.read_with_info(attempts_object(task_id))
    except ObjectMissing:
        return NONE, 0
    return _parsed(data), info.generation


def write_attempts(store: ObjectStore, task_id: str, attempts: Attempts, if_generation: int) -> int:
    """Replace the record at exactly this generation (0: there is none); returns the new one. Raises PreconditionFailed, DependencyError."""
    body = {**asdict(attempts), "task_id": task_id, "not_before_time": iso(attempts.not_before)}
    data = json.dumps({name: value for name, value in body.items() if name not in ("started", "lost") or value}, ensure_ascii=False)
    name = attempts_object(task_id)
    return store.write(name, data.encode(), content_type="application/json", if_generation=if_generation).generation


def add_failure(store: ObjectStore, task_id: str, error: AttemptError, delay_s: float, now_s: float) -> Attempts:
    """Record one more failed attempt, also while another worker records one. Raises DependencyError."""
    for _ in range(MAX_ROUNDS):
        known, generation = read_attempts(store, task_id)
        if known.errors and known.errors[-1] == error:
            # The answer to our own write was lost: one run is one attempt.
            return known
        attempts = known.after(error, now_s + delay_s)
        try:
            write_attempts(store, task_id, attempts, generation)
            return attempts
        except PreconditionFailed:
            continue
    raise RuntimeError(f"{attempts_object(task_id)} changed {MAX_ROUNDS} times while a failure was added to it")


def postpone(store: ObjectStore, task_id: str, not_before: float) -> None:
    """Note that the task may not run before this time (Unix seconds); no attempt is spent. Raises DependencyError."""
    for _ in range(MAX_ROUNDS):
        known, generation = read_attempts(store, task_id)
        if known.not_before >= not_before:
            return
        try:
            write_attempts(store, task_id, replace(known, not_before=not_before), generation)
            return
        except PreconditionFailed:
            continue
    raise RuntimeError(f"{attempts_object(task_id)} changed {MAX_ROUNDS} times while a wait was added to it")


def end_start(store: ObjectStore, task_id: str, written: Attempts, generation: int, *, done: bool) -> None:
    """Take the start of `written`, the record as its writer left it, out of it; when nothing is left to remember, the record as well.
    It is read again only where it has changed since. `done`: the task will not run again. Raises DependencyError."""
    start, known = written.started, written
    for round_number in range(MAX_ROUNDS):
        if round_number:
            known, generation = read_attempts(store, task_id)
        if known.started != start:
            return
        left = replace(known, started=None, lost=() if done else known.lost)
        if done and known.attempt_count == 0:
            left = NONE
        try:
            if left == NONE:
                store.delete(attempts_object(task_id), if_generation=generation)
            else:
                write_attempts(store, task_id, left, generation)
            return
        except PreconditionFailed:
            continue


def _parsed(data: bytes) -> Attempts:
    """A record that cannot be read counts as none: the task starts over, rather than stopping whoever meets it."""
    try:
        body: dict[str, Any] = json.loads(data)
        count, not_before = int(body["attempt_count"]), float(body["not_before"])
        errors = tuple(_checked(AttemptError(**error)) for error in body["errors"])
        started = _checked(Start(**body["started"])) if body.get("started") else None
        lost = tuple(_checked(Start(**start)) for start in body.get("lost", ()))
    except (ValueError, TypeError, KeyError, RecursionError, AttributeError, OverflowError):
        return NONE
    return Attempts(count, not_before, errors, started, lost) if count >= 0 and abs(not_before) < MAX_TIME_S else NONE


def _checked(one: Noted) -> Noted:
    """Whoever reads it relies on the types of its fields. Raises TypeError, or UnicodeEncodeError for text that cannot be written again."""
    for of in fields(one):
        value = getattr(one, of.name)
        if not isinstance(value, str if of.type == "str" else int):
            raise TypeError(f"{of.name} is {value!r}")
        str(value).encode()
    return one
