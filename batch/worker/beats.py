"""Beats: which parts of a worker have come round lately. A table without I/O or threads; the watchdog looks at it.

Every remote call has a deadline, so a part that does not come round within a few minutes stands still for good.
"""

from __future__ import annotations

from collections.abc import Sequence

LOOK_EVERY_S = 1.0
MAX_LOOK_S = 5.0
"""Between two looks. After a longer time the whole process stood still, not one part of it: the machine was paused, or a handler held
the interpreter. All parts get that time again."""


class Beats:
    """Parts by name, and when each must have come round at the latest (monotonic). Safe from any thread: each name has one writer."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self._due_s: dict[str, float] = {}
        self._looked_s: float | None = None

    def beat(self, part: str, now_s: float, again_within_s: float = 0.0) -> None:
        """`part` has come round, and means to do so again within `again_within_s`."""
        if self._looked_s is None:
            self._looked_s = now_s  # or a pause before the first look would not be seen as one
        self._due_s[part] = now_s + again_within_s + self.limit_s

    def leave(self, part: str) -> None:
        """`part` has ended; nobody waits for it."""
        self._due_s.pop(part, None)

    def stalled(self, now_s: float) -> Sequence[str]:
        """The parts that are overdue; to be asked every LOOK_EVERY_S."""
        asleep_s = 0.0 if self._looked_s is None else now_s - self._looked_s
        self._looked_s = now_s
        if asleep_s > MAX_LOOK_S:
            for part, due_s in list(self._due_s.items()):
                if part in self._due_s:
                    self._due_s[part] = max(due_s, self._due_s[part]) + asleep_s
            return []
        return sorted(part for part, due_s in list(self._due_s.items()) if now_s > due_s)
