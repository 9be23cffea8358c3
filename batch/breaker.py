"""The breaker: tells a broken dependency from a broken task. A dependency that fails for everybody stops the worker, not its tasks."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Breaker:
    """Opens after `limit` dependency failures in a row, without one task coming through in between."""

    limit: int
    _in_a_row: int = field(default=0, init=False)
    reason: str = field(default="", init=False)

    def failed(self, reason: str) -> None:
        self._in_a_row += 1
        if self._in_a_row >= self.limit:
            self.trip(reason)

    def trip(self, reason: str) -> None:
        """Open at once; the first reason stays."""
        self.reason = self.reason or reason

    def succeeded(self) -> None:
        self._in_a_row = 0

    @property
    def open(self) -> bool:
        return bool(self.reason)
