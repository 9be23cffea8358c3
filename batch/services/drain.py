"""The proof that a subscription is drained. One empty pull proves nothing: the service answers empty while there is backlog.

Drained means: `pulls` empty pulls, one after the other, over at least `least_s` seconds in which this worker held no message. Pulls
that are open at the same time are one look, not several: of a pull only the time counts that no pull before it has covered. Time that
pulls lost which failed counts only while it is the smaller half of the proof.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil

MIN_WAIT_S = 0.05
MAX_WAIT_S = 5.0
"""No pull waits longer than this for a message: a worker that is told to stop collects its open pulls first."""
LEAST_PART = 0.5
"""Minimum wait of a pull that is sent only to reach the required count, as a fraction of a normal wait."""
MOST_LOST_PART = 0.5
"""Restart the proof when failed pulls used up more than this fraction of `least_s`."""
TOLERANCE = 0.9
"""A pull that lasted this fraction of its wait counts as waited: deadlines of calls are not exact."""


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
    _since_s: float | None = field(default=None, init=False)
    """When the looks began that the proof is made of; None before the first."""
    _covered_s: float = field(default=0.0, init=False)
    _lost_s: float = field(default=0.0, init=False)
    _failed: bool = field(default=False, init=False)
    """Whether a pull has failed since `_covered_s`."""

    def saw_messages(self, now_s: float) -> None:
        """A pull has brought messages."""
        self.quiet = False
        self._begin_anew(now_s)

    def saw_failure(self) -> None:
        """A pull has failed: nothing is known of the time since the last one."""
        self._failed = True

    def saw_empty(self, pull_began_s: float, now_s: float, idle_since_s: float | None) -> None:
        """A pull that began at `pull_began_s` has found nothing; since `idle_since_s` no message was outstanding (None: one still is)."""
        self.quiet = True
        if idle_since_s is None:
            self._begin_anew(now_s)
            return
        began_s = max(pull_began_s, self._covered_s, idle_since_s)
        if self._failed and self._since_s is not None:
            self._lost_s += began_s - self._covered_s
        self._failed = False
        if self._since_s is None or self._lost_s > MOST_LOST_PART * self.least_s:
            self._since_s, self._empty_count, self._lost_s = began_s, 0, 0.0
        self._covered_s = max(began_s, now_s)
        if began_s == pull_began_s or now_s - began_s >= TOLERANCE * LEAST_PART * self._part_s(now_s):
            self._empty_count += 1

    def _begin_anew(self, now_s: float) -> None:
        self._empty_count, self._since_s, self._lost_s, self._failed = 0, None, 0.0, False
        self._covered_s = now_s

    @property
    def proven(self) -> bool:
        """True from the end of a pull on: time that no pull has covered proves nothing."""
        return self._empty_count >= self.pulls and self._looked_s >= self.least_s and self._covered_s >= self.not_before_s

    @property
    def _looked_s(self) -> float:
        return 0.0 if self._since_s is None else self._covered_s - self._since_s

    def next_wait_s(self, now_s: float) -> float:
        """How long the next pull may wait: what is left of the proof, in equal parts, so that the last of them ends with it."""
        left_s, part_s = self._left_s(now_s), self._part_s(now_s)
        least_count = self.pulls - self._empty_count
        wait_s = left_s / max(1, least_count, ceil(left_s / part_s - (1 - TOLERANCE)))
        if least_count > 0:
            wait_s = max(wait_s, LEAST_PART * part_s)
        return min(MAX_WAIT_S, max(MIN_WAIT_S, wait_s))

    def _left_s(self, now_s: float) -> float:
        return max(0.0, self.least_s - self._looked_s, self.not_before_s - now_s)

    def _part_s(self, now_s: float) -> float:
        """Seconds that each pull should wait: long while there is much time, at the end short, so that one that fails costs only a part."""
        return min(MAX_WAIT_S, max(MIN_WAIT_S, max(self.least_s, self._left_s(now_s)) / self.pulls))
