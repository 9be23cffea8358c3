"""Attempts: how often a task's handler has run, and with which errors. Only tasks that failed or are quarantined have a record.

The broker's delivery count cannot serve: it also counts nacks and expired leases, and may start again at zero. A record may also hold an
in-progress marker: who runs the task now. A task whose marker was left by a worker that has ended is quarantined, for it may have killed
that worker.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

from batch.model.clock import iso

ERRORS_KEPT = 20
MAX_TIME_S = 1e11
"""A record with a time beyond the year 5000 is damaged."""


@dataclass(frozen=True, slots=True)
class AttemptError:
    """One failed attempt; `at` is ISO 8601, `index` the worker's."""

    at: str
    error_type: str
    reason: str
    execution: str
    index: int
    traceback: str = ""
    message_id: str = ""


@dataclass(frozen=True, slots=True)
class Marker:
    """The in-progress marker of a run: in which try of which worker it began, and when (ISO 8601)."""

    execution: str
    index: int
    retry: int
    at: str

    def __str__(self) -> str:
        return f"worker {self.execution}/{self.index}, try {self.retry}, at {self.at}"


@dataclass(frozen=True, slots=True)
class Attempts:
    """`attempt_count` runs have failed; the next may not begin before `not_before` (Unix seconds); `errors` oldest first. `in_progress`
    marks the run that has begun and not ended; `lost` holds the markers of runs whose worker ended before them, oldest first.
    `replay_number`: of which replay of the task the attempts are counted; the errors of all are kept."""

    attempt_count: int = 0
    not_before: float = 0.0
    errors: tuple[AttemptError, ...] = ()
    in_progress: Marker | None = None
    lost: tuple[Marker, ...] = ()
    replay_number: int = 0

    def of_replay(self, number: int) -> Attempts:
        """As they count for the task's replay with this number: a later one begins anew, and keeps the errors."""
        return Attempts(errors=self.errors, replay_number=number) if number > self.replay_number else self

    def after(self, error: AttemptError, not_before: float) -> Attempts:
        """With one more failed attempt. The marker of the worker that reports the error goes; another worker's stays."""
        marker = self.in_progress
        if marker is not None and (marker.execution, marker.index) == (error.execution, error.index):
            marker = None
        errors = (*self.errors, error)[-ERRORS_KEPT:]
        return Attempts(self.attempt_count + 1, not_before, errors, marker, self.lost, self.replay_number)


NONE = Attempts()
Part = TypeVar("Part", AttemptError, Marker)


def to_json(attempts: Attempts, task_id: str) -> bytes:
    """The record as it is stored."""
    body = {**asdict(attempts), "task_id": task_id, "not_before_time": iso(attempts.not_before)}
    kept = {name: value for name, value in body.items() if name not in ("in_progress", "lost", "replay_number") or value}
    return json.dumps(kept, ensure_ascii=False).encode()


def from_json(data: bytes) -> Attempts:
    """The record as it was stored. One that cannot be read counts as `NONE`: the task starts over, and does not stop the worker that
    reads it."""
    try:
        body: dict[str, Any] = json.loads(data)
        count, not_before = int(body["attempt_count"]), float(body["not_before"])
        errors = tuple(_checked(AttemptError(**error)) for error in body["errors"])
        marker = _checked(Marker(**body["in_progress"])) if body.get("in_progress") else None
        lost = tuple(_checked(Marker(**one)) for one in body.get("lost", ()))
        replay_number = int(body.get("replay_number", 0))
    except (ValueError, TypeError, KeyError, RecursionError, AttributeError, OverflowError):
        return NONE
    right = count >= 0 and replay_number >= 0 and abs(not_before) < MAX_TIME_S
    return Attempts(count, not_before, errors, marker, lost, replay_number) if right else NONE


def _checked(part: Part) -> Part:
    """Raises TypeError for a field of another type than it has, UnicodeEncodeError for text that cannot be written again."""
    for of in fields(part):
        value = getattr(part, of.name)
        if not isinstance(value, str if of.type == "str" else int):
            raise TypeError(f"{of.name} is {value!r}")
        str(value).encode()
    return part
