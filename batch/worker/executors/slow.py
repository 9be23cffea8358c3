"""The watch over handlers that do not come back: a warning for each, with its stack, after a while and then at twice the time each time.

It costs a healthy, quick message nothing: it looks a few times a second at what has been running for longer than a second, and learns from
when such a run is gone how long runs of its task type usually take.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from batch.events import log
from batch.handling.context import HowFar
from batch.model.clock import Clock
from batch.model.progress import RUNNING_KEPT, RunningTask
from batch.worker.attempt import Attempt, Work
from batch.worker.executors.runner import Runner
from batch.worker.executors.running import Running, Where

LOOK_EVERY_S = 0.25
SHORT_S = 1.0
"""Runs that end sooner are never seen."""
TIMES_USUAL = 10.0
RUNS_KEPT = 20
LEAST_RUNS = 3
"""Of one task type, before they say what is usual."""
WAIT_FOR_STACK_S = 1.0
MAX_LINES = 10
LINES_EVERY_S = 60.0
"""At most MAX_LINES warnings in this time, the longest runs first: when all of a worker's handlers hang, a few stacks say why."""


@dataclass(slots=True)
class Usual:
    """How long runs take, by task type: the median of the newest that were longer than SHORT_S; None before there are a few."""

    _runs: dict[str, deque[float]] = field(default_factory=dict)

    def note(self, task_type: str, took_s: float) -> None:
        """One run has ended."""
        self._runs.setdefault(task_type, deque(maxlen=RUNS_KEPT)).append(took_s)

    def of(self, task_type: str) -> float | None:
        """Seconds."""
        runs = sorted(self._runs.get(task_type, ()))
        return runs[len(runs) // 2] if len(runs) >= LEAST_RUNS else None


@dataclass(slots=True)
class _Seen:
    """A run that is watched. `due_s` (monotonic): when it is warned about next."""

    attempt: Attempt
    began_s: float
    due_s: float


class SlowWatch:
    """Of one worker. One thread calls `look`; `longest` may be called by any."""

    def __init__(self, slow_after_s: float, at_latest_s: float, runner: Runner, clock: Clock) -> None:
        """No run is warned about before `slow_after_s`; each is at `at_latest_s`, however long others of its type usually take."""
        self._slow_after_s, self._at_latest_s = slow_after_s, max(slow_after_s, at_latest_s)
        self._runner, self._clock = runner, clock
        self._short_s = min(SHORT_S, slow_after_s)
        self._usual = Usual()
        self._seen: dict[str, _Seen] = {}
        self._next_look_s = 0.0
        self._told_s: deque[float] = deque(maxlen=MAX_LINES)

    def look(self, running: Callable[[], Sequence[Running]]) -> None:
        """Called often: looks every LOOK_EVERY_S."""
        now_s = self._clock.monotonic()
        if now_s < self._next_look_s:
            return
        self._next_look_s = now_s + LOOK_EVERY_S
        found = {one.first.ack_id: one for one in running() if now_s - one.began_s >= self._short_s}
        for ack_id in [one for one in self._seen if one not in found]:
            self._learn(self._seen.pop(ack_id), now_s)
        for ack_id, one in found.items():
            if ack_id not in self._seen and (attempt := self._attempt(one.first)) is not None:
                self._seen[ack_id] = _Seen(attempt, one.began_s, one.began_s + self._limit_s(attempt))
        self._warn(found, now_s)

    def longest(self, running: Sequence[Running]) -> tuple[RunningTask, ...]:
        """The tasks that have been running longest, for the worker's progress."""
        since = self._clock.now() - self._clock.monotonic()
        oldest = sorted(running, key=lambda one: one.began_s)[:RUNNING_KEPT]
        attempts = ((self._attempt(one.first), one) for one in oldest)
        return tuple(RunningTask(at.task.task_id, at.task.task_type, int(since + one.began_s)) for at, one in attempts if at is not None)

    def _attempt(self, work: Work) -> Attempt | None:
        """A thread names a fresh message as it came: what it asks for is read again, which costs those nothing that are quick."""
        found = work if isinstance(work, Attempt) else self._runner.decoded(work)
        return found if isinstance(found, Attempt) else None

    def _limit_s(self, attempt: Attempt) -> float:
        usual_s = self._usual.of(attempt.task.task_type) or 0.0
        return min(self._at_latest_s, max(self._slow_after_s, TIMES_USUAL * usual_s))

    def _learn(self, one: _Seen, now_s: float) -> None:
        """A run is gone. One that was ended by its time limit does not say what is usual."""
        took_s, timeout_s = now_s - one.began_s, one.attempt.handler.timeout_s
        if timeout_s is None or took_s < timeout_s:
            self._usual.note(one.attempt.task.task_type, took_s)

    def _warn(self, found: dict[str, Running], now_s: float) -> None:
        slow = [(one, found[ack_id]) for ack_id, one in self._seen.items() if now_s - one.began_s >= self._limit_s(one.attempt)]
        slow.sort(key=lambda pair: pair[0].began_s)
        for one, running in slow:
            if now_s < one.due_s:
                continue
            if len(self._told_s) < MAX_LINES or now_s - self._told_s[0] >= LINES_EVERY_S:
                where = _where(running)
                if where is None and now_s < one.due_s + WAIT_FOR_STACK_S:
                    continue
                self._told_s.append(now_s)
                self._tell(one, len(running.works), now_s, where or Where("its process did not answer"), len(slow))
            one.due_s = now_s + (now_s - one.began_s)

    def _tell(self, one: _Seen, count: int, now_s: float, where: Where, slow_count: int) -> None:
        task, running_s = one.attempt.task, round(now_s - one.began_s, 1)
        usual_s, how_far = self._usual.of(task.task_type), self._runner.how_far.get(task.task_id)
        progress = where.progress or _text(how_far)
        usually = "" if usual_s is None else f"; tasks of this type that take long usually take {usual_s:.0f} s"
        said = f"; it has said: {progress}" if progress else ""
        log(
            "handler_slow",
            f"the handler of task {task.task_id} ({task.task_type}) has been running for {running_s:.0f} s{usually}{said}",
            task_id=task.task_id,
            task_type=task.task_type,
            attempt=one.attempt.number,
            running_s=running_s,
            usual_s=None if usual_s is None else round(usual_s, 1),
            timeout_s=one.attempt.handler.timeout_s,
            task_count=count,
            progress=progress,
            slow_count=slow_count,
            stack=where.stack,
        )


def _where(running: Running) -> Where | None:
    """Whatever a handler awaits, and however it is made: the line comes."""
    try:
        return running.where()
    except Exception as error:  # noqa: BLE001 - frames of user code are followed, with its own objects
        return Where(f"it could not be read: {type(error).__name__}")


def _text(how_far: HowFar | None) -> str:
    try:
        return "" if how_far is None else str(how_far)
    except Exception:  # noqa: BLE001 - its numbers are the handler's own, and may be of a class of its own
        return ""
