"""The circuit breaker: tells what fails for everybody from a broken task. What fails for everybody stops the worker, not its tasks.

Two rows are counted. Dependency failures in a row, without one task coming through in between. And failed attempts of different
tasks in a row, all with the same error, while nothing else ended: then it is not the tasks either. Only first attempts count there: what
failed before and fails again says nothing new, and a tail of broken tasks must be able to end.

A dependency failure spends no attempt. A common error does, before it is known to be common: one attempt of each of the
`common_limit` tasks in the row, and of those that failed before the committer had heard of these: what all threads can fail in a
quarter of a second. Never two of one task, for a failed one is nacked with its delay.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from batch.handling.signals import alone
from batch.worker.attempt import Failure

DEFAULT_LIMIT = 20
LEAST_COMMON_LIMIT = 5
"""A worker with fewer tasks than this cannot tell a few bad ones from a common error."""


def limits(concurrency: int, share: int) -> tuple[int, int]:
    """How many dependency failures, and how many failed tasks, open the breaker: a small share must be able to show that nothing works."""
    most = max(DEFAULT_LIMIT, 2 * concurrency)
    return min(most, max(1, share)), min(most, max(LEAST_COMMON_LIMIT, share))


@dataclass(slots=True)
class CircuitBreaker:
    """Told by the committer, asked by many. `limit` counts dependency failures, `common_limit` tasks."""

    limit: int
    common_limit: int
    reason: str = field(default="", init=False)
    _in_a_row: int = field(default=0, init=False)
    _error: str = field(default="", init=False)
    _tasks: set[str] = field(default_factory=set, init=False)

    def ended(self, failure: Failure | None = None) -> None:
        """A task has an outcome; `failure`: its last attempt failed by an error of its handler, which may be a common one."""
        self._in_a_row = 0
        if failure is None:
            self.answered()
        else:
            self._task_failed(failure)

    def went_back(self, failure: Failure | None = None, dependency: str = "", *, snoozed: bool = False) -> None:
        """A message is nacked: its attempt failed, a dependency failed under it, its handler asked to wait, or it never ran."""
        if dependency:
            self.failed(dependency)
        elif failure is not None:
            self._task_failed(failure)
        elif snoozed:
            self.answered()

    def answered(self) -> None:
        """A handler did what it should."""
        if self._tasks:
            self._tasks.clear()
            self._error = ""

    def failed(self, reason: str) -> None:
        """A dependency failed under a task."""
        self._in_a_row += 1
        if self._in_a_row >= self.limit:
            self.trip(reason)

    def _task_failed(self, failure: Failure) -> None:
        """Only the first failure of a task counts."""
        if failure.again:
            return
        error = fingerprint(failure.error_type, failure.reason)
        if error != self._error:
            self._error = error
            self._tasks.clear()
        self._tasks.add(failure.task_id)
        if len(self._tasks) >= self.common_limit:
            self.trip(
                f"most tasks fail with {failure.error_type}: {failure.reason[:500]} ({len(self._tasks)} different tasks in a row, and"
                " nothing else ended in between); mend the handler, or what it needs; what had not ended was nacked"
            )

    def trip(self, reason: str) -> None:
        """Open at once; the first reason stays."""
        self.reason = self.reason or reason

    @property
    def open(self) -> bool:
        return bool(self.reason)


MAX_CHARS = 200
_VARYING = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9a-fA-F]*[0-9][0-9a-fA-F]*")
"""UUIDs, and runs of hexadecimal digits with a decimal one in them: numbers and hashes."""


def fingerprint(error_type: str, reason: str) -> str:
    """The same for two errors that differ only in numbers and ids: `KeyError: no row # in table t`."""
    return f"{error_type}: {_VARYING.sub('#', alone(reason)[: 4 * MAX_CHARS])[:MAX_CHARS]}"
