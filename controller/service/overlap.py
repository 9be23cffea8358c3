"""Ticks that overlap: who ticks what, and since when. Of one scope (a lane, or all of them) only one tick runs at a time in a process.

Nothing depends on it: of two controllers only one can save its intent. It keeps a slow service from piling up ticks.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from batch.model.clock import Clock, iso

ALL_LANES = ""


@dataclass(frozen=True, slots=True)
class Holder:
    """A running tick: of which lane (`ALL_LANES` for all), for whom, since when (Unix seconds)."""

    scope: str
    who: str
    since: float

    @property
    def text(self) -> str:
        return f"a tick of {f'lane {self.scope}' if self.scope else 'all lanes'}, asked for by {self.who}, runs since {iso(self.since)}"


class Overlap:
    """The ticks that run now. Safe from any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._holders: dict[str, Holder] = {}
        self._changed = threading.Condition()

    def take(self, scope: str, who: str) -> Holder | None:
        """None: the scope is the caller's, who gives it back. Else who has it."""
        with self._changed:
            if scope in self._holders:
                return self._holders[scope]
            self._holders[scope] = Holder(scope, who, self._clock.now())
            return None

    def give_back(self, scope: str) -> None:
        with self._changed:
            del self._holders[scope]
            self._changed.notify_all()

    def running(self) -> tuple[Holder, ...]:
        with self._changed:
            return tuple(self._holders.values())

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until nothing runs."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._holders, timeout_s)

    def wait_free(self, scope: str, timeout_s: float) -> bool:
        """Wait until nothing runs in this scope."""
        with self._changed:
            return self._changed.wait_for(lambda: scope not in self._holders, timeout_s)

    @contextmanager
    def given_back(self, scope: str) -> Iterator[None]:
        """Gives the scope back at the end, whatever happens."""
        try:
            yield
        finally:
            self.give_back(scope)
