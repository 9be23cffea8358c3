"""The circuit breaker: tells when a service that the worker needs fails. Then the worker stops, not its tasks.

Only what a service did opens it: dependency failures in a row, without one task that came to its end in between. None of them spends an
attempt. What handlers and clients do wrong never opens it, however often: see `admission.slowing`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

DEFAULT_LIMIT = 20


def limit_of(concurrency: int, share: int) -> int:
    """How many dependency failures open the breaker: a small share must be able to show that nothing works."""
    return min(max(DEFAULT_LIMIT, 2 * concurrency), max(1, share))


@dataclass(slots=True)
class CircuitBreaker:
    """Told by the committer, asked by many. `limit` counts dependency failures."""

    limit: int
    reason: str = field(default="", init=False)
    _in_a_row: int = field(default=0, init=False)

    def ended(self) -> None:
        """A task has an outcome."""
        self._in_a_row = 0

    def failed(self, reason: str) -> None:
        """A dependency failed under a task."""
        self._in_a_row += 1
        if self._in_a_row >= self.limit:
            self.trip(reason)

    def trip(self, reason: str) -> None:
        """Open at once; the first reason stays."""
        self.reason = self.reason or reason

    @property
    def open(self) -> bool:
        return bool(self.reason)
