"""The proof that a subscription is drained. One empty pull proves nothing: the service answers empty while there is backlog.

Drained means: `pulls` empty pulls in a row, over at least `least_s` seconds, each ending while this worker held no message.
"""

from __future__ import annotations

from dataclasses import dataclass, field

FIRST_WAIT_PART = 0.25
MIN_WAIT_S = 0.05
MAX_WAIT_S = 5.0
"""Each pull in a row waits a quarter of `least_s` longer for a message than the one before, never longer than this: a worker
that is told to stop collects its open pull first."""


@dataclass(slots=True)
class DrainProof:
    """Fed with what the pulls saw, by monotonic seconds. `not_before_s` is when the proof may hold at the earliest: a worker that
    was promised messages keeps asking while the minute that is paid for anyway lasts."""

    pulls: int = 3
    least_s: float = 5.0
    not_before_s: float = 0.0
    _empty_count: int = field(default=0, init=False)
    _since_s: float = field(default=0.0, init=False)

    def saw_messages(self) -> None:
        self._empty_count = 0

    def saw_empty(self, pull_began_s: float, held_count: int) -> None:
        """An empty pull that began at `pull_began_s` has ended; `held_count` messages were in hand at its end."""
        if held_count > 0:
            self._empty_count = 0
            return
        if self._empty_count == 0:
            self._since_s = pull_began_s
        self._empty_count += 1

    def proven(self, now_s: float) -> bool:
        return self._empty_count >= self.pulls and now_s - self._since_s >= self.least_s and now_s >= self.not_before_s

    @property
    def next_wait_s(self) -> float:
        """How long the next pull may wait."""
        return min(MAX_WAIT_S, max(MIN_WAIT_S, self.least_s * FIRST_WAIT_PART * (self._empty_count + 1)))
