"""Takes a point of every subscription's gauges once per sampling period, on whole multiples of the period.

The rule: a point is readable only `lag_s` after it was sampled, as in the real service, so that a test fails when a reader takes a
gauge for fresh.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable

from local_cloud.clock import Clock
from local_cloud.monitoring.gauges import Gauges, Point, QueueState

CAUGHT_UP_S = 3_600.0
LEAST_COVERED_S = 0.001
"""The interval of a delta is never empty."""


def due_times(after_s: float, now_s: float, period_s: float) -> list[float]:
    """The multiples of `period_s` (more than 0) in (`after_s`, `now_s`], at most one hour back."""
    first = math.floor(max(after_s, now_s - CAUGHT_UP_S) / period_s) + 1
    last = math.floor(now_s / period_s)
    return [number * period_s for number in range(first, last + 1)]


class Sampler:
    """`read` gives the present state of all subscriptions. With `period_s` 0, every reading takes a sample first."""

    def __init__(self, read: Callable[[], Iterable[QueueState]], clock: Clock, *, period_s: float, lag_s: float) -> None:
        if period_s < 0 or lag_s < 0:
            raise ValueError(f"sampling period and visibility lag are 0 or more seconds, got {period_s} and {lag_s}")
        self.gauges = Gauges()
        self._read = read
        self._clock = clock
        self._period_s = period_s
        self._lag_s = lag_s
        self._lock = threading.Lock()
        self._sampled_s = clock.now()
        self._acked: dict[tuple[str, str], int] = {}
        self._condition = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        if period_s > 0:
            clock.on_advance(self.catch_up)
        clock.watch(self._condition)

    def prepare_reading(self, end_s: float) -> None:
        """To be called before each reading of points up to `end_s`: with period 0 it takes a sample.

        A reader asks for points until its own "now", which is a few milliseconds ago here: the sample is dated so that this reader
        sees it.
        """
        if self._period_s == 0:
            now_s = self._clock.now()
            with self._lock:
                self._sample([min(now_s, end_s)] if end_s > max(self._sampled_s, now_s - CAUGHT_UP_S) else [], now_s)

    def start(self) -> None:
        if self._period_s > 0:
            self._thread.start()

    def stop(self) -> None:
        with self._condition:
            self._stopped = True
            self._condition.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def catch_up(self) -> None:
        """Take the points that are due by now. A point of an earlier moment gets the present count, and the age as of that moment; the
        first of them has all that was acknowledged since the one before."""
        with self._lock:
            now_s = self._clock.now()
            self._sample(due_times(self._sampled_s, now_s, self._period_s), now_s)

    def _sample(self, times: list[float], now_s: float) -> None:
        if not times:
            return
        covered_s = self._period_s or max(times[-1] - self._sampled_s, LEAST_COVERED_S)
        self._sampled_s = times[-1]
        for state in self._read():
            acked_count = self._newly_acked(state)
            for time_s in times:
                age_s = max(0.0, state.oldest_age_s - (now_s - time_s))
                point = Point(time_s, time_s + self._lag_s, state.undelivered_count, age_s, acked_count, covered_s)
                self.gauges.add(state.project, state.subscription, point, now_s)
                acked_count = 0

    def _newly_acked(self, state: QueueState) -> int:
        """A subscription that was made anew counts from 0 again."""
        key = (state.project, state.subscription)
        before = self._acked.get(key, 0)
        self._acked[key] = state.acked_count
        return state.acked_count - before if state.acked_count >= before else state.acked_count

    def _run(self) -> None:
        while not self._stopped:
            self.catch_up()
            next_s = self._sampled_s - self._sampled_s % self._period_s + self._period_s
            with self._condition:
                if not self._stopped and self._clock.now() < next_s:
                    self._clock.wait_until(self._condition, next_s)
