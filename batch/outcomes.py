"""Outcomes: one JSON line for each task that ended, and what holds when a task has several.

A line is written before the message is acknowledged, so a task may have two lines (a kill in between, a redelivery) and
never none. Precedence decides: succeeded, superseded, cancelled, dead.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

PRECEDENCE = ("succeeded", "superseded", "cancelled", "dead")
_RANK = {name: rank for rank, name in enumerate(PRECEDENCE)}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a task. `finished_at` is ISO 8601; `duration_s` the last attempt's; `output` the object written last;
    `result` what the handler returned; `error_type` and `reason` only for the dead (and superseded)."""

    task_id: str
    task_type: str
    outcome: str
    finished_at: str
    duration_s: float = 0.0
    attempt_count: int = 1
    execution: str = ""
    index: int = 0
    retry: int = 0
    message_id: str = ""
    output: str = ""
    result: Any = None
    error_type: str = ""
    reason: str = ""

    def __post_init__(self) -> None:
        if self.outcome not in _RANK:
            raise ValueError(f"outcome must be one of {', '.join(PRECEDENCE)}, got {self.outcome!r}")


def to_line(outcome: Outcome) -> bytes:
    """One line with its line end; empty fields are left out. A result that is not JSON is written as its text."""
    values = {name: getattr(outcome, name) for name in Outcome.__dataclass_fields__}
    body = {name: value for name, value in values.items() if value is not None and not (isinstance(value, str) and not value)}
    body["duration_s"] = round(outcome.duration_s, 6)
    for result in (lambda: outcome.result, lambda: str(outcome.result)):
        try:
            return _line({**body, "result": result()} if "result" in body else body)
        except Exception:  # noqa: BLE001 - a result is what user code returned: turning it into text may raise anything
            continue
    return _line({**body, "result": {"left_out": f"a {type(outcome.result).__name__} that cannot be written as JSON"}})


def _line(body: dict[str, Any]) -> bytes:
    text = json.dumps(body, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_plain)
    return text.encode(errors="backslashreplace") + b"\n"  # half a surrogate pair becomes the escape that JSON has for it


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)


def from_line(line: bytes) -> Outcome:
    """Raises ValueError on a line that is no outcome."""
    body = json.loads(line)
    try:
        known = {name: body[name] for name in Outcome.__dataclass_fields__ if name in body}
        return Outcome(**known)
    except TypeError as error:
        raise ValueError(f"not an outcome line: {error}") from error


def from_lines(data: bytes) -> Iterator[Outcome]:
    """All outcomes of one shard object."""
    for line in data.splitlines():
        if line.strip():
            yield from_line(line)


def stronger(one: Outcome, other: Outcome) -> Outcome:
    """Which of two outcomes of the same task holds; the first on a tie."""
    return other if _RANK[other.outcome] < _RANK[one.outcome] else one


def merged(outcomes: Iterable[Outcome]) -> dict[str, Outcome]:
    """The outcome that holds, by task id."""
    final: dict[str, Outcome] = {}
    for outcome in outcomes:
        known = final.get(outcome.task_id)
        final[outcome.task_id] = outcome if known is None else stronger(known, outcome)
    return final
