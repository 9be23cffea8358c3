"""Slowed task types: many different tasks of one type fail alike, and none of it comes through. What fails there is not known: the handler,
what it needs, or what clients sent. So only that type is slowed, and no lane is held for it.

The rule: only what a service did opens the circuit breaker. When many different tasks of one type fail alike and none of that type comes
through, that type is slowed: now and then one of its tasks is tried, the others are nacked unrun with a growing delay and spend no
attempt, until one ends other than by failing. Other types never notice.

So an hour in which a handler's database is down costs its tasks few attempts, also over many workers. Pure: no I/O, no clock.
"""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from batch.handling.signals import alone

DEFAULT_LIMIT = 20
LEAST_LIMIT = 5
"""Of a worker with fewer tasks than the limit; and how many tasks that had failed before slow their type when they fail alike again."""
FIRST_DELAY_S = 10.0
LONGEST_DELAY_S = 600.0
"""The longest that Pub/Sub can hold a message: a slowed task never waits in the bucket."""
UNRUN_PER_TRY = 3
"""After as many unrun tasks as a third of all so far, one is tried: among thousands few, and a good one beside bad ones is soon found."""
LEAST_WAIT_S = 1.0
MAX_AT_ONCE = 1 << 20
NEVER = 1 << 62
MAX_TASKS = 1000
"""How many are remembered that had their turn."""


def limit_of(concurrency: int, share: int) -> int:
    """How many different tasks must fail alike: what all threads can fail at once shows nothing."""
    return min(max(DEFAULT_LIMIT, 2 * concurrency), max(LEAST_LIMIT, share))


@dataclass(slots=True)
class Slowed:
    """A type that is slowed. `error` is what its tasks fail with, `task_count` of them before it was slowed; `next_s` is when one is tried
    at the latest, and the delay grows then. Times are Unix seconds."""

    error: str
    task_count: int
    since_s: float
    next_s: float
    delay_s: float = FIRST_DELAY_S
    tried_count: int = 0
    unrun_count: int = 0
    at_once: int = 1
    left_count: int = 0
    """How many are tried when a try is due; twice as many each time once the delay is at its longest. So the tasks of a broken handler
    come to their end before Pub/Sub drops their messages."""
    next_at: int = 0
    """A task is tried when so many went back unrun."""
    submissions: set[str] = field(default_factory=set)
    tasks: set[str] = field(default_factory=set)
    """Those that failed or were tried, in this round: each try is another task's."""

    def tries(self, task_id: str, submission_id: str, now_s: float) -> bool:
        """Whether this task is tried now. The first of each submission is, up to a bound: what one client sent says nothing about
        another's."""
        known = task_id in self.tasks
        if now_s >= self._due_s(known=known):
            if self.delay_s >= LONGEST_DELAY_S:
                self.at_once = min(2 * self.at_once, MAX_AT_ONCE)
            self.delay_s = min(2 * self.delay_s, LONGEST_DELAY_S)
            self.next_s = now_s + self.delay_s
            self.left_count = self.at_once
        unknown = submission_id not in self.submissions and len(self.submissions) < DEFAULT_LIMIT
        if self.left_count:
            self.left_count -= 1
        elif known or not (unknown or self.unrun_count >= self.next_at):
            return False
        if unknown:
            self.submissions.add(submission_id)
        self.next_at = max(self.next_at, self.unrun_count + 1 + self.unrun_count // UNRUN_PER_TRY)
        if known or len(self.tasks) >= MAX_TASKS:
            self.tasks.clear()  # all have had their turn: another round, in which only time counts
            self.next_at = NEVER
        self.tasks.add(task_id)
        self.tried_count += 1
        return True

    def wait_s(self, task_id: str, now_s: float) -> float:
        """Until the next try is due: so all of the type come together, and one of them finds out for all."""
        return min(max(LEAST_WAIT_S, self._due_s(known=task_id in self.tasks) - now_s), LONGEST_DELAY_S)

    def _due_s(self, *, known: bool) -> float:
        """One that has failed already is tried only when no other came for a while: each try is another task's."""
        return self.next_s + self.delay_s if known else self.next_s


@dataclass(slots=True)
class _Row:
    """Different tasks of one type that failed in a row, all with one error; `again` are those of them that had failed before."""

    error: str
    tasks: set[str] = field(default_factory=set)
    again: set[str] = field(default_factory=set)
    submissions: set[str] = field(default_factory=set)


class Slowing:
    """Told how attempts end, asked where they begin, by all executors at once.

    `failing` and `slowed` are by task type, and empty while all is well: who tells and asks looks at that first, without a lock.
    """

    def __init__(self, limit: int) -> None:
        self.failing: dict[str, _Row] = {}
        self.slowed: dict[str, Slowed] = {}
        self._limit = limit
        self._lock = threading.Lock()

    def failed(
        self, task_type: str, task_id: str, submission_id: str, error_type: str, reason: str, now_s: float, *, again: bool = False
    ) -> Slowed | None:
        """A task has failed; returned when its type is slowed from now on. `again`: it had failed before."""
        error = fingerprint(error_type, reason)
        with self._lock:
            row = self.failing.get(task_type)
            if row is None or (row.error != error and task_type not in self.slowed):
                row = self.failing[task_type] = _Row(error)
            row.tasks.add(task_id)
            row.submissions.add(submission_id)
            if again:
                row.again.add(task_id)
            if task_type in self.slowed or (len(row.tasks) < self._limit and len(row.again) < LEAST_LIMIT):
                return None
            slowed = self.slowed[task_type] = Slowed(f"{error_type}: {reason}", len(row.tasks), now_s, now_s + FIRST_DELAY_S)
            slowed.submissions |= row.submissions
            slowed.tasks |= row.tasks
            return slowed

    def came_through(self, task_type: str) -> Slowed | None:
        """A task has ended other than by failing; returned when its type was slowed until now."""
        with self._lock:
            self.failing.pop(task_type, None)
            return self.slowed.pop(task_type, None)

    def recall(self, task_type: str, slowed: Slowed) -> None:
        """An earlier worker has slowed the type."""
        with self._lock:
            if task_type not in self.slowed:
                self.failing.setdefault(task_type, _Row(""))
                self.slowed[task_type] = slowed

    def wait_s(self, task_type: str, task_id: str, submission_id: str, now_s: float) -> float:
        """How long the message of a task goes back for, unrun; 0 when it may begin."""
        with self._lock:
            slowed = self.slowed.get(task_type)
            if slowed is None or slowed.tries(task_id, submission_id, now_s):
                return 0.0
            slowed.unrun_count += 1
            return slowed.wait_s(task_id, now_s)

    def least_wait_s(self, task_type: str, task_id: str, now_s: float) -> float:
        """How long a task that failed waits at least; 0 when its type is not slowed."""
        slowed = self.slowed.get(task_type)
        return 0.0 if slowed is None else slowed.wait_s(task_id, now_s)


def to_json(slowed: Slowed) -> bytes:
    """As it is kept for the workers that come after."""
    body = {name: getattr(slowed, name) for name in _KEPT}
    return json.dumps({**body, "submissions": sorted(slowed.submissions), "tasks": sorted(slowed.tasks)}).encode()


def from_json(data: bytes) -> Slowed:
    """Raises ValueError."""
    try:
        body: dict[str, Any] = json.loads(data)
        numbers = {name: kind(body[name]) for name, kind in _KEPT.items()}
        submissions, tasks = ({str(one) for one in body[name]} for name in ("submissions", "tasks"))
        slowed = Slowed(**numbers, submissions=submissions, tasks=tasks)
    except (KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"not a slowed type: {error!r}"[:300]) from error
    counts = (slowed.task_count, slowed.tried_count, slowed.unrun_count, slowed.next_at)
    times = (slowed.since_s, slowed.next_s)
    if (
        min(counts) < 0
        or not 1 <= slowed.at_once <= MAX_AT_ONCE
        or not 0 < slowed.delay_s <= LONGEST_DELAY_S
        or not all(map(isfinite, times))
    ):
        raise ValueError(f"not a slowed type: {data[:200]!r}")
    return slowed


_KEPT: dict[str, type[Any]] = {
    "error": str,
    "task_count": int,
    "since_s": float,
    "next_s": float,
    "delay_s": float,
    "tried_count": int,
    "unrun_count": int,
    "at_once": int,
    "next_at": int,
}

MAX_CHARS = 200
_VARYING = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9a-fA-F]*[0-9][0-9a-fA-F]*"
"""UUIDs, and runs of hexadecimal digits with a decimal one in them: numbers and hashes."""


def fingerprint(error_type: str, reason: str) -> str:
    """The same for two errors that differ only in numbers and ids: `KeyError: no row # in table t`."""
    return f"{error_type}: {re.sub(_VARYING, '#', alone(reason)[: 4 * MAX_CHARS])[:MAX_CHARS]}"
