"""What a worker has counted and measured so far. Written per list of messages, never per message; read by everybody."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from batch.memory import growth
from batch.model.clock import Clock
from batch.model.progress import MARK_EVERY_S, MARKS_KEPT, Progress

LOOK_AGAIN_S = 0.2
WEIGHT = 0.3
"""How much the newest list counts in the running mean of seconds per message."""


class Tally:
    """Counters and measures of one worker try; thread-safe. `mean_s`: seconds a message occupies a task slot, None before the first."""

    def __init__(self, clock: Clock, share: int, most: int | None = None) -> None:
        """`share` is what the worker was promised, `most` what it may take in all."""
        self._clock = clock
        self._changed = threading.Condition()
        self._marks: list[tuple[int, int]] = []
        self._deferred: dict[int, int] = {}
        self._idle_since_s = clock.monotonic()
        self.started_at = clock.now()
        self.share, self.most = share, share if most is None else most
        self.taken = self.acked = self.returned = self.delayed = self.handled = 0
        self.outcomes = {"succeeded": 0, "superseded": 0, "cancelled": 0, "dead": 0}
        self.handler_s = self.last_acked_at = 0.0
        self.longest_s = self._longest_message_s = 0.0
        self.mean_s: float | None = None
        self.exit_reason = self.broken_by = ""

    @property
    def outstanding(self) -> int:
        return self.taken - self.acked - self.returned

    @property
    def idle_since_s(self) -> float | None:
        """Since when (monotonic) no message has been outstanding; None while one is."""
        idle_since_s = self._idle_since_s
        return idle_since_s if self.outstanding == 0 else None

    @property
    def share_left(self) -> int:
        return max(0, self.share - self.taken)

    @property
    def beyond_left(self) -> int:
        """What may still be taken once the share is done."""
        return max(0, self.most - max(self.share, self.taken))

    def took(self, count: int) -> None:
        with self._changed:
            self.taken += count

    def ran(self, count: int, total_s: float, longest_s: float, handler_s: float | None = None) -> None:
        """`count` messages occupied task slots for `total_s` seconds in all; the slowest handler took `longest_s`. `handler_s`: how long
        handlers ran, where that is another time."""
        if count == 0:
            return
        with self._changed:
            mean_s = total_s / count
            self.mean_s = mean_s if self.mean_s is None else (1 - WEIGHT) * self.mean_s + WEIGHT * mean_s
            self.handled += count
            self.handler_s += total_s if handler_s is None else handler_s
            self.longest_s = max(self.longest_s, longest_s)
            self._longest_message_s = max(self._longest_message_s, longest_s if handler_s is None else handler_s / count)
        growth.look(self._clock)

    def acknowledged(self, count: int, outcomes: Iterable[str], *, delayed: int = 0) -> None:
        """`count` messages are acknowledged; `outcomes` are what became of their tasks; `delayed` of them wait in the bucket."""
        with self._changed:
            self._mark()
            self.acked += count
            self.last_acked_at = self._clock.now() if count else self.last_acked_at
            self.delayed += delayed
            for outcome in outcomes:
                self.outcomes[outcome] += 1
            self._look_idle()

    def nacked(self, count: int, after_s: float = 0.0) -> None:
        with self._changed:
            self.returned += count
            if after_s > 0:
                due = int(self._clock.now() + after_s) + 1
                self._deferred[due] = self._deferred.get(due, 0) + count
            self._look_idle()

    def _look_idle(self) -> None:
        if self.outstanding == 0:
            self._idle_since_s = self._clock.monotonic()
        self._changed.notify_all()

    def wait_empty(self, until_s: Callable[[], float], unless: Callable[[], bool]) -> bool:
        """Wait until no message is outstanding; False when `until_s()` (monotonic) came first, or `unless()` became true. Both are asked
        again at each change, and at the latest after LOOK_AGAIN_S."""
        with self._changed:
            while self.outstanding > 0:
                left_s = until_s() - self._clock.monotonic()
                if left_s <= 0 or unless():
                    return False
                self._changed.wait(min(left_s, LOOK_AGAIN_S))
            return True

    def nudge(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def progress(self) -> Progress:
        """The counters as they are now."""
        with self._changed:
            self._mark()
            now = self._clock.now()
            self._deferred = {due: count for due, count in self._deferred.items() if due > now}
            return Progress(
                share=self.share,
                started_at=self.started_at,
                updated_at=now,
                taken=self.taken,
                acked=self.acked,
                returned=self.returned,
                **self.outcomes,  # type: ignore[arg-type]
                handler_s=self.handler_s,
                marks=tuple(self._marks),
                deferred=tuple(sorted(self._deferred.items())),
                exit_reason=self.exit_reason,
                broken_by=self.broken_by,
                handled=self.handled,
                delayed=self.delayed,
                last_acked_at=self.last_acked_at,
                longest_s=self._longest_message_s,
            )

    def _mark(self) -> None:
        """Note `acked` for each point of the 15 s grid that has passed, before it changes."""
        grid = int(self._clock.now()) // MARK_EVERY_S * MARK_EVERY_S
        if self._marks and self._marks[-1][0] >= grid:
            return
        self._marks.append((grid, self.acked))
        del self._marks[:-MARKS_KEPT]
