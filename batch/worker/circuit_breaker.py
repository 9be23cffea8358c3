"""The breaker: tells what fails for everybody from a broken task. What fails for everybody stops the worker, not its tasks.

Two rows are counted. Dependency failures in a row, without one task coming through in between. And failed attempts of different
tasks in a row, all with the same error, while nothing else ended: then it is not the tasks either. Only first attempts count there: what
failed before and fails again says nothing new, and a tail of broken tasks must be able to end.

A dependency failure spends no attempt. A common error does, before it is known to be common: one attempt of each of the
`common_limit` tasks in the row, and of those that failed before the committer had heard of these: what all places can fail in a
quarter of a second. Never two of one task, for a failed one goes back with its delay.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from batch.worker.fingerprint import fingerprint

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
    _noted: dict[str, tuple[str, str, str] | None] = field(default_factory=dict, init=False)

    def note(self, ack_id: str, task_id: str, error_type: str, reason: str, *, again: bool = False) -> None:
        """From any thread, before the message is handed over: its attempt failed by an error of its handler, which may be a common one;
        not for what says that the task itself is wrong. `again`: it was not the task's first."""
        self._noted[ack_id] = None if again else (task_id, error_type, reason)

    def ended(self, ack_id: str) -> None:
        """A task has an outcome."""
        self._in_a_row = 0
        if not self._task_failed(ack_id):
            self.answered()

    def went_back(self, ack_id: str, dependency: str = "", *, snoozed: bool = False) -> None:
        """A message is handed back: its attempt failed, a dependency failed under it, its handler asked to wait, or it never ran."""
        if dependency:
            self.failed(dependency)
        elif not self._task_failed(ack_id) and snoozed:
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

    def _task_failed(self, ack_id: str) -> bool:
        """Whether a failure was noted for this message; a first one counts."""
        if ack_id not in self._noted:
            return False
        noted = self._noted.pop(ack_id)
        if noted is None:
            return True
        task_id, error_type, reason = noted
        error = fingerprint(error_type, reason)
        if error != self._error:
            self._error = error
            self._tasks.clear()
        self._tasks.add(task_id)
        if len(self._tasks) >= self.common_limit:
            self.trip(
                f"most tasks fail with {error_type}: {reason[:500]} ({len(self._tasks)} different tasks in a row, and nothing else ended"
                " in between); mend the handler, or what it needs; what had not ended was handed back"
            )
        return True

    def trip(self, reason: str) -> None:
        """Open at once; the first reason stays."""
        self.reason = self.reason or reason

    @property
    def open(self) -> bool:
        return bool(self.reason)
