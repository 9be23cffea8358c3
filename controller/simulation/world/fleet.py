"""Simulated executions and their workers: what each has taken and done, and the progress that it has written so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from batch.model.exit import ExitReason
from batch.model.progress import MARK_EVERY_S, MARKS_KEPT, RUNNING_KEPT, Progress, RunningTask, interval_s
from batch.settings import WorkerSettings
from controller.model.execution import ExecutionInfo
from controller.simulation.world.messages import Taken


@dataclass(slots=True, eq=False)
class Execution:
    """One launch. `begun_count` of its workers have begun, `ended_count` have ended, `failed_count` of them
    failed."""

    full_name: str
    created_at: float
    env: Mapping[str, str]
    workers: list[Worker] = field(default_factory=list)
    begun_at: float | None = None
    begun_count: int = 0
    ended_count: int = 0
    failed_count: int = 0
    completed_at: float | None = None

    @property
    def info(self) -> ExecutionInfo:
        """As Cloud Run shows it."""
        return ExecutionInfo(
            self.full_name,
            len(self.workers),
            self.created_at,
            started_at=self.begun_at,
            completed_at=self.completed_at,
            running_count=self.begun_count - self.ended_count,
            succeeded_count=self.ended_count - self.failed_count,
            failed_count=self.failed_count,
            env=self.env,
        )


@dataclass(slots=True, eq=False)
class Worker:
    """One worker. `share` messages are its own, None: it goes on until the queue is empty; after its share it takes more until
    `paid_until`, at most `limit` in all; one that `stays` ends only when
    it is stopped. What it writes of itself is as old as its last progress."""

    execution: Execution
    index: int
    threads: int
    share: int | None
    limit: int | None = None
    stays: bool = False
    begun_at: float = 0.0
    paid_until: float = 0.0
    taken: int = 0
    acked: int = 0
    returned: int = 0
    handled: int = 0
    handler_s: float = 0.0
    longest_s: float = 0.0
    last_acked_at: float = 0.0
    ended_at: float | None = None
    retired: int = 0
    is_quiet: bool = False
    idle: set[int] = field(default_factory=set)
    busy: dict[int, tuple[float, Taken]] = field(default_factory=dict)
    deferred: list[tuple[int, int]] = field(default_factory=list)
    woken: int = 0
    _marks: list[tuple[int, int]] = field(default_factory=list)
    _mark_at: float = 0.0
    _write_at: float = 0.0
    _every_s: float = 15.0
    _written: Progress | None = None
    _flush_s: float | None = None

    @property
    def has_had_share(self) -> bool:
        """Whether it was promised messages, and has taken as many."""
        return self.share is not None and self.taken >= self.share

    def begin(self, now: float, phase: float, flush_s: float) -> None:
        """It has begun; `phase` (0 to 1) keeps the writes of workers apart. It writes once more when its first outcomes are flushed."""
        self.begun_at, self._flush_s = now, flush_s
        self._every_s = interval_s(WorkerSettings.progress_interval_s, len(self.execution.workers))
        self._mark_at = (now // MARK_EVERY_S + 1) * MARK_EVERY_S
        self._write_at = now + self._every_s * (0.9 + 0.2 * phase)
        self._written = self._seen(now)

    def handle(self, now: float, count: int, seconds: float) -> None:
        """It has done some of its messages; after the first ones it tells where their outcomes will lie."""
        self.handled += count
        self.handler_s += seconds
        self.longest_s = max(self.longest_s, seconds / count)
        if self._flush_s is not None:
            self._write_at, self._flush_s = min(self._write_at, now + self._flush_s), None

    def roll(self, now: float) -> None:
        """Marks and writes that were due before its counts change at `now`."""
        while self.begun_at and (self._mark_at <= now or self._write_at <= now):
            if self._mark_at <= self._write_at:
                self._marks.append((int(self._mark_at), self.acked))
                del self._marks[:-MARKS_KEPT]
                self._mark_at += MARK_EVERY_S
            else:
                self._written = self._seen(self._write_at)
                self._write_at += self._every_s

    def progress(self, now: float) -> Progress | None:
        """What it has written by `now`; None before it has begun."""
        if self.ended_at is None and self.begun_at:
            self.roll(now)
        return self._written

    def end(self, now: float, reason: ExitReason) -> None:
        """It writes its last progress, if it has begun."""
        self.roll(now)
        self.ended_at = now
        self._written = self._seen(now, reason.value) if self.begun_at else None

    def _seen(self, at: float, reason: str = "") -> Progress:
        oldest = sorted((since, thread) for thread, (since, _) in self.busy.items())[:RUNNING_KEPT]
        return Progress(
            share=self.taken if self.share is None else self.share,
            started_at=self.begun_at,
            updated_at=at,
            taken=self.taken,
            acked=self.acked,
            returned=self.returned,
            succeeded=self.acked,
            handler_s=self.handler_s,
            handled=self.handled,
            longest_s=self.longest_s,
            marks=tuple(self._marks),
            deferred=tuple(self.deferred),
            exit_reason=reason,
            last_acked_at=self.last_acked_at,
            running=tuple(RunningTask(f"{self.index}-{thread}", "simulated", int(since)) for since, thread in oldest),
        )
