"""Lanes that were poked are ticked at once: of each lane at most one such tick runs and one waits, however many pokes come in.

A poke that comes while a tick waits is answered at once: that tick counts it too. So is one that comes shortly after a launch; then a
timer ticks the lane once that pause is over, where no scheduled tick comes before.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from batch.events import log
from batch.model.errors import DependencyError, FanoutError
from controller.act.state import load
from controller.lanes.lanes import lanes_of
from controller.model.lane import Lane
from controller.service.poke_marks import LONGEST_PAUSE_S, Pause, came_count, pause_of, pause_s, record
from controller.service.pokes import Poke, lane_for
from controller.service.ticker import Answer, Late, Ticker, answer_json, ended_within, start
from controller.tick.outside import Outside
from controller.tick.results import Round

EVERY_S = 2.0
"""Minimum time between the beginnings of two ticks of a lane that pokes ask for. The first one begins at once."""
LANES_KNOWN_S = 30.0
STAND_DOWNS = 3
"""How often a tick is tried again if another one was faster: that one may not have known of the poke."""
MOST_WAITING = 500
"""Pokes of one lane that may wait. More are dropped: the gauge shows their messages later."""


@dataclass(slots=True)
class _Queue:
    """One lane's pokes that no tick has taken yet."""

    waiting: deque[Poke] = field(default_factory=deque)
    asked: bool = False
    """Whether a tick waits to take them."""
    turn: threading.Lock = field(default_factory=threading.Lock)
    began_at: float | None = None
    drain_within_s: float = 0.0
    timed: bool = False
    """Whether a timer will tick the lane."""


class PokedLanes:
    """Takes pokes in, and ticks the lanes that they are for. Safe from any thread."""

    def __init__(
        self,
        outside: Outside,
        ticker: Ticker,
        *,
        every_s: float = EVERY_S,
        later: Callable[[float, Callable[[], None]], None] | None = None,
    ) -> None:
        """`later(seconds, call)` returns at once and calls after so long, unless `stop` was called; by default in a thread of its own."""
        self._outside, self._ticker, self._every_s = outside, ticker, every_s
        self._later = later or self._wait_and_call
        self._queues: dict[str, _Queue] = {}
        self._lock = threading.Lock()
        self._lanes_lock = threading.Lock()
        self._lanes: tuple[Lane, ...] = ()
        self._lanes_read_at: float | None = None
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Drop the pokes that wait, and the timers: the gauge shows their messages later."""
        self._stopping.set()

    def take(self, pokes: Sequence[Poke]) -> dict[str, Any]:
        """Tick their lanes; returns what became of each, within the deadline of ticks. Raises DependencyError when the lanes cannot be
        listed."""
        until_s = self._outside.clock.monotonic() + self._ticker.deadline_s
        by_lane: dict[str, tuple[Lane, list[Poke]]] = {}
        unknown: list[str] = []
        for poke in pokes:
            found = self._lane(poke)
            if found is None:
                unknown.append(poke.topic or poke.lane)
            elif poke.accepted_count:
                by_lane.setdefault(found.name, (found, []))[1].append(poke)
        started = {name: self._join_or_start(lane, own) for name, (lane, own) in by_lane.items()}
        answers: dict[str, Mapping[str, Any]] = {}
        for lane, run in started.items():
            if run is None:
                answers[lane] = {"status": "joined", "reason": "a tick of this lane is waiting already and takes this poke with it"}
            elif not ended_within(until_s - self._outside.clock.monotonic(), run):
                answers[lane] = {"status": "running", "reason": f"it is not over after {self._ticker.deadline_s:g} s and goes on"}
            else:
                answers[lane] = run.result()
        return {"lanes": answers, "unknown": sorted(set(unknown))}

    def _lane(self, poke: Poke) -> Lane | None:
        """The lane that a poke is for. Lanes change seldom: they are listed again only after a while, or if a poke fits none of them."""
        with self._lanes_lock:
            now = self._outside.clock.monotonic()
            age_s = None if self._lanes_read_at is None else now - self._lanes_read_at
            found = lane_for(poke, self._lanes)
            if age_s is None or age_s > LANES_KNOWN_S or (found is None and age_s > self._every_s):
                lanes, _ = lanes_of(self._outside.runner.jobs(), self._outside.home, self._outside.memory.lane_of)
                self._lanes, self._lanes_read_at = tuple(lanes), now
                found = lane_for(poke, self._lanes)
            return found

    def _join_or_start(self, lane: Lane, pokes: Sequence[Poke]) -> Future[Mapping[str, Any]] | None:
        """None: a tick waits already, and counts these too."""
        with self._lock:
            queue = self._queues.setdefault(lane.name, _Queue())
            queue.drain_within_s = lane.policy.drain_within_s
            room = MOST_WAITING - len(queue.waiting)
            queue.waiting.extend(pokes[:room])
            if len(pokes) > room:
                dropped = f"{len(pokes) - room} pokes were dropped, {MOST_WAITING} wait; the gauge will tell"
                log("pokes_dropped", f"lane {lane.name}: {dropped}", lane=lane.name)
            if queue.asked:
                return None
            queue.asked = True
        return start(partial(self._run, lane.name, queue), f"poked-{lane.name}")

    def _run(self, lane: str, queue: _Queue) -> Mapping[str, Any]:
        """Errors of services become part of the answer, for a poke is only a hint."""
        with queue.turn:
            clock = self._outside.clock
            if queue.began_at is not None:
                clock.wait(self._stopping, queue.began_at + self._every_s - clock.monotonic())
            with self._lock:
                pokes = list(queue.waiting)
                queue.waiting.clear()
                queue.asked = False
            if self._stopping.is_set():
                return {"status": "dropped", "reason": "the controller ends; the gauge will tell"}
            queue.began_at = clock.monotonic()
            return self._record_and_tick(lane, pokes, queue)

    def _record_and_tick(self, lane: str, pokes: Sequence[Poke], queue: _Queue) -> Mapping[str, Any]:
        outside = self._outside
        try:
            done, state = record(outside.store, outside.memory, lane, pokes, outside.clock.now(), outside.rng)
        except FanoutError as error:
            log("pokes_dropped", f"lane {lane}: {len(pokes)} pokes could not be kept, the gauge will tell: {error}", lane=lane)
            return {"status": "not_kept", "reason": str(error)}
        counts = {"accepted_count": done.accepted_count, "repeated_count": done.repeated_count, "left_out_count": done.left_out_count}
        if not done.accepted_count:
            return {"status": "nothing_new", **counts}
        log("poke_counted", f"lane {lane}: the front door accepted {done.accepted_count} tasks", lane=lane, **counts)
        pause = pause_of(state, outside.clock.now(), self._pause_s(queue))
        if pause is not None:
            self._set_timer(lane, queue, pause)
            return {"status": "counted", "reason": pause.reason, **counts}
        try:
            return {**answer_json(self._tick(lane), self._ticker.deadline_s), **counts}
        except FanoutError as error:
            return {"status": "not_ticked", "reason": str(error), **counts}

    def _pause_s(self, queue: _Queue) -> float:
        return pause_s(queue.drain_within_s, self._every_s)

    def _set_timer(self, lane: str, queue: _Queue, pause: Pause) -> None:
        """One a lane, and none where the scheduled tick is there as soon."""
        if self._pause_s(queue) >= LONGEST_PAUSE_S:
            return
        with self._lock:
            if queue.timed:
                return
            queue.timed = True
        self._later(pause.until - self._outside.clock.now(), partial(self._pause_over, lane, queue))

    def _wait_and_call(self, seconds: float, call: Callable[[], None]) -> None:
        def run() -> None:
            if not self._outside.clock.wait(self._stopping, seconds):
                call()

        start(run, "after-pause")

    def _pause_over(self, lane: str, queue: _Queue) -> None:
        """Tick the lane, unless it was launched again for all that came."""
        outside = self._outside
        with queue.turn:
            with self._lock:
                queue.timed = False
            try:
                state = load(outside.store, lane).state.pruned(outside.clock.now())
                if self._stopping.is_set() or not came_count(state):
                    return
                pause = pause_of(state, outside.clock.now(), self._pause_s(queue))
                if pause is not None:
                    self._set_timer(lane, queue, pause)
                    return
                queue.began_at = outside.clock.monotonic()
                self._tick(lane)
            except FanoutError as error:
                log("tick_failed", f"lane {lane} was not ticked after its pause: {error}", lane=lane, error=str(error))

    def _tick(self, lane: str) -> Answer:
        """Tick it after a tick that runs already, which may not know of the pokes, and again while another controller is faster."""
        deadline_s = self._ticker.deadline_s
        answer = self._ticker.tick(lane, "a poke", deadline_s)
        for _ in range(STAND_DOWNS):
            if isinstance(answer, Late) or (isinstance(answer, Round) and not any(result.stood_down for result in answer.results)):
                return answer
            if not self._ticker.wait_free(lane, deadline_s):
                raise DependencyError(f"a tick of lane {lane} does not end; the next one knows of the poke")
            answer = self._ticker.tick(lane, "a poke", deadline_s)
        return answer
