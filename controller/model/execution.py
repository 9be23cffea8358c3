"""An execution of a job as Cloud Run shows it, and the progress of its workers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from batch.model.progress import Progress

MAX_WORKERS_PER_EXECUTION = 10_000
"""The limit of Cloud Run on the task count of an execution."""
COUNT_DIGITS = 18
"""A person may start an execution with any settings: a longer number is not a count that a worker would accept."""

Tries = Mapping[int, Sequence[Progress]]
"""Progress by worker index; the tries of a worker in the order of their retries."""


NumberedTries = Mapping[tuple[int, int], Progress]
"""Progress by worker index and number of the try."""


@dataclass(frozen=True, slots=True)
class ExecutionInfo:
    """One execution. `full_name` is `projects/P/locations/R/jobs/J/executions/E`; times are Unix seconds; `env` is that of its own
    template, overrides merged in. `cannot_start`: why no worker of it can start, in Cloud Run's words, where its conditions say so; else
    empty. They say so since `cannot_start_since`."""

    full_name: str
    task_count: int
    created_at: float
    started_at: float | None = None
    completed_at: float | None = None
    running_count: int = 0
    succeeded_count: int = 0
    failed_count: int = 0
    cancelled_count: int = 0
    retried_count: int = 0
    env: Mapping[str, str] = field(default_factory=dict)
    cannot_start: str = ""
    cannot_start_since: float | None = None

    @property
    def name(self) -> str:
        """The short name: what workers see as CLOUD_RUN_EXECUTION."""
        return self.full_name.rsplit("/", 1)[-1]

    @property
    def live(self) -> bool:
        """Whether it has not ended."""
        return self.completed_at is None

    @property
    def live_worker_count(self) -> int:
        """Workers that run or have yet to start."""
        done_count = self.succeeded_count + self.failed_count + self.cancelled_count
        return max(0, self.task_count - done_count) if self.live else 0

    @property
    def pending_worker_count(self) -> int:
        """Workers that have yet to start."""
        return max(0, self.live_worker_count - self.running_count)

    @property
    def decision_id(self) -> str:
        """Empty when a person launched it."""
        return self.env.get("DECISION_ID", "")

    def begun_at(self, *, is_delayed: bool) -> float | None:
        """From when its workers are paid for: its launch, start-up included; of a delayed job its start, None while that is not known."""
        return self.started_at if is_delayed else self.created_at

    def count_setting(self, name: str) -> int | None:
        """A count among its settings; None if it is not set, or not a count that a worker would accept."""
        return count_in(self.env, name)


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """One worker as Cloud Run shows it. `exit_code`, `term_signal` and `message` are of its try that ended last: how earlier ones ended is
    not kept. Times are Unix seconds; `completed_at` is None while it, or a retry of it, may still work."""

    index: int
    retried_count: int = 0
    started_at: float | None = None
    completed_at: float | None = None
    exit_code: int | None = None
    term_signal: int | None = None
    message: str = ""
    log_uri: str = ""

    @property
    def last_ended(self) -> int:
        """The number of the try that ended last; -1 if none has."""
        return self.retried_count if self.completed_at is not None else self.retried_count - 1


@dataclass(frozen=True, slots=True)
class Worked:
    """An execution and the progress of its workers, as far as they have written any. `ended`: when (Unix seconds) single workers ended for
    good, by index; it is read only while an execution with failed or cancelled workers lives. `start_signal`: the signal that ended
    all workers that failed, where none of the execution has written progress; 0: something else did."""

    info: ExecutionInfo
    tries: Tries = field(default_factory=dict)
    ended: Mapping[int, float] = field(default_factory=dict)
    start_signal: int = 0

    @property
    def progress(self) -> Iterator[Progress]:
        """Of every try of every worker."""
        return (one for tries in self.tries.values() for one in tries)

    def ended_at(self, index: int) -> float | None:
        """Unix seconds; None while this worker, or a retry of it, may still work."""
        return self.ended.get(index, self.info.completed_at)


def count_in(env: Mapping[str, str], name: str) -> int | None:
    """A count among these settings; None if it is not set, or not a count that a worker would accept."""
    text = env.get(name, "")
    return int(text) if text.isdecimal() and len(text) <= COUNT_DIGITS else None
