"""The proof that a subscription is drained. One empty pull proves nothing: the service answers empty while there is backlog.

Drained means: `pulls` empty pulls, one after the other, over at least `least_s` seconds in which this worker held no message. Pulls
that are open at the same time are one look, not several: of a pull only the time counts that no pull before it has covered, and only
when that is as long as the proof would have asked of its next pull.
"""

from __future__ import annotations

from dataclasses import dataclass, field

FIRST_WAIT_PART = 0.25
MIN_WAIT_S = 0.05
MAX_WAIT_S = 5.0
"""Each pull in a row waits a quarter of `least_s` longer for a message than the one before, never longer than this: a worker
that is told to stop collects its open pulls first."""
TOLERANCE = 0.9
"""A pull that came back this part of its time early has still waited: deadlines of calls are not exact."""


@dataclass(slots=True)
class DrainProof:
    """Fed with what the pulls saw, by monotonic seconds. `not_before_s` is when the proof may hold at the earliest: a worker that
    was promised messages keeps asking while the minute that is paid for anyway lasts."""

    pulls: int = 3
    least_s: float = 5.0
    not_before_s: float = 0.0
    quiet: bool = field(default=False, init=False)
    """Whether the last pull that ended found nothing."""
    _empty_count: int = field(default=0, init=False)
    _since_s: float = field(default=0.0, init=False)
    _covered_s: float = field(default=0.0, init=False)

    def saw_messages(self, now_s: float) -> None:
        self.quiet = False
        self._begin_anew(now_s)

    def saw_empty(self, pull_began_s: float, now_s: float, idle_since_s: float | None) -> None:
        """A pull that began at `pull_began_s` has found nothing; since `idle_since_s` nothing was in hand (None: something still is)."""
        self.quiet = True
        if idle_since_s is None:
            self._begin_anew(now_s)
            return
        began_s = max(pull_began_s, self._covered_s, idle_since_s)
        if began_s > pull_began_s and now_s - began_s < TOLERANCE * self._wait_s:
            return
        if self._empty_count == 0:
            self._since_s = began_s
        self._empty_count += 1
        self._covered_s = now_s

    def _begin_anew(self, now_s: float) -> None:
        self._empty_count = 0
        self._covered_s = now_s

    @property
    def proven(self) -> bool:
        """Holds from the end of a pull on: what nobody looked at in between proves nothing."""
        looked_s = self._covered_s - self._since_s
        return self._empty_count >= self.pulls and looked_s >= self.least_s and self._covered_s >= self.not_before_s

    def next_wait_s(self, now_s: float) -> float:
        """How long the next pull may wait. Before anything was found missing: as long as the proof takes."""
        wait_s = self._wait_s if self.quiet else self.least_s
        until_floor_s = self.not_before_s - now_s
        if until_floor_s > 0:
            wait_s = min(wait_s, until_floor_s)
        return min(MAX_WAIT_S, max(MIN_WAIT_S, wait_s))

    @property
    def _wait_s(self) -> float:
        return min(MAX_WAIT_S, max(MIN_WAIT_S, self.least_s * FIRST_WAIT_PART * (self._empty_count + 1)))
