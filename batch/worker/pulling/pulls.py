"""Which pulls are open, and which one to open next: a table without I/O or threads, so that simulated time can drive it.

What open pulls have asked for is reserved: all together never ask for more than the share, or the memory, has room for. Several are
open while there is more to want than one brings; a single one once the subscription looks empty.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from batch.services.drain import MIN_WAIT_S, TOLERANCE, DrainProof
from batch.worker.flow import MAX_OPEN_PULLS, affordable_count, pull_size

WEIGHT = 0.3
"""How much the newest pull counts in the running means."""
EARLY_PAUSE_S = 0.05
"""After an empty pull that did not wait; twice as long for each further one."""
FAILURE_PAUSE_S = 0.25
"""After a failed pull; twice as long for each further one in a row."""
MAX_PULL_FAILURES = 7
"""Failed pulls, one after the other, before the subscription counts as broken: 16 s with the pauses between them, or more."""


@dataclass(frozen=True, slots=True)
class Pull:
    """An open pull: at most `max_messages`, waiting at most `wait_s`; `began_s` is monotonic."""

    number: int
    max_messages: int
    wait_s: float
    began_s: float


@dataclass(frozen=True, slots=True)
class Need:
    """What a worker wants now: `wanted` messages waiting or on their way, of which `ready` wait; no more than `allowed` in all pulls;
    `outstanding_bytes` of data are outstanding. `until_s` (monotonic) is when a pull must have ended."""

    wanted: int
    ready: int
    allowed: int
    outstanding_bytes: int = 0
    until_s: float = float("inf")


@dataclass(slots=True)
class Pulls:
    """Not thread-safe: one thread opens pulls and tells how they ended."""

    proof: DrainProof
    max_bytes: int
    failure_count: int = field(default=0, init=False)
    mean_bytes: float = field(default=0.0, init=False)
    asked: int = field(default=0, init=False)
    """How many messages the open pulls may bring."""
    _open: dict[int, Pull] = field(default_factory=dict, init=False)
    _brings: float | None = field(default=None, init=False)
    _number: int = field(default=0, init=False)
    _not_before_s: float = field(default=0.0, init=False)
    _failed_s: float = field(default=0.0, init=False)
    _early_count: int = field(default=0, init=False)

    @property
    def open(self) -> list[Pull]:
        return list(self._open.values())

    def size(self, now_s: float, need: Need) -> int:
        """How many messages one more pull would ask for now; 0 when none is to be opened."""
        if now_s < self._not_before_s or need.until_s - now_s < MIN_WAIT_S:
            return 0
        room = affordable_count(
            max_bytes=self.max_bytes, outstanding_bytes=need.outstanding_bytes, mean_bytes=self.mean_bytes, asked=self.asked
        )
        return pull_size(
            wanted=need.wanted,
            ready=need.ready,
            asked=self.asked,
            allowed=min(need.allowed, room),
            brings=self._brings,
            open_pulls=len(self._open),
            max_open=1 if self.proof.quiet or self.failure_count else MAX_OPEN_PULLS,
        )

    def begin(self, now_s: float, need: Need) -> Pull | None:
        """The pull to open now, from here on counted as open."""
        size = self.size(now_s, need)
        if size == 0:
            return None
        self._number += 1
        pull = Pull(self._number, size, min(self.proof.next_wait_s(now_s), need.until_s - now_s), now_s)
        self._open[pull.number] = pull
        self.asked += pull.max_messages
        return pull

    def ended(self, pull: Pull, now_s: float, count: int, byte_count: int, idle_since_s: float | None) -> None:
        """A pull has brought `count` messages with `byte_count` bytes of data; `idle_since_s` as in DrainProof."""
        self._close(pull)
        self.failure_count = 0
        if count:
            # One that brought all it was asked for would have brought more.
            self._brings = _mean(self._brings, count if count < pull.max_messages else 2 * count)
            # A pull of larger messages counts at once, one of smaller ones slowly: too much room is the mistake that costs.
            self.mean_bytes = max(byte_count / count, _mean(self.mean_bytes or None, byte_count / count))
            self.proof.saw_messages(now_s)
            self._early_count = 0
            return
        self.proof.saw_empty(pull.began_s, now_s, idle_since_s)
        early = now_s - pull.began_s < TOLERANCE * pull.wait_s
        self._early_count = self._early_count + 1 if early else 0
        if early:
            # An answer of the moment: the next look is at another moment.
            self._not_before_s = max(self._not_before_s, now_s + min(self.proof.next_wait_s(now_s), EARLY_PAUSE_S * 2.0**self._early_count))

    def failed(self, pull: Pull, now_s: float) -> float:
        """A pull has failed; returns the seconds in which no other is opened. Those that were open beside it are no further failures."""
        self._close(pull)
        self.proof.saw_failure()
        if pull.began_s >= self._failed_s:
            self.failure_count += 1
            self._failed_s = now_s
            self._not_before_s = now_s + FAILURE_PAUSE_S * 2.0 ** (self.failure_count - 1)
        return max(0.0, self._not_before_s - now_s)

    @property
    def broken(self) -> bool:
        return self.failure_count >= MAX_PULL_FAILURES

    @property
    def drained(self) -> bool:
        """Whether it is proven that nothing is left: never while a pull is open that may still bring something."""
        return not self._open and self.proof.proven

    def _close(self, pull: Pull) -> None:
        del self._open[pull.number]
        self.asked -= pull.max_messages


def _mean(before: float | None, newest: float) -> float:
    return float(newest) if before is None else (1 - WEIGHT) * before + WEIGHT * newest
