"""One task of an execution: what can happen to it, its tries, and its move to another machine. Values and small rules, no clock."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum, IntEnum

WARNING_S = 10.0  # between SIGTSTP and the standstill, as the container contract says


class Phase(Enum):
    """PENDING waits for a slot; STARTING holds one while the container is made ready; RUNNING has a process."""

    PENDING = "Pending"
    STARTING = "Starting"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELLED = "Cancelled"


class Kind(Enum):
    """What can happen to an execution. All but CANCEL and DELETE are about one task. MIGRATE asks for a move, MOVED is a step of it."""

    RESERVED = "reserved"
    STARTED = "started"
    STOPPING = "stopping"
    KILLED = "killed"
    ENDED = "ended"
    MIGRATE = "migrate"
    MOVED = "moved"
    CANCEL = "cancel"
    DELETE = "delete"


class Reason(Enum):
    """Why the platform stopped a try."""

    TIMEOUT = "timeout"
    CANCEL = "cancel"
    LOST = "lost"
    START = "start"


@dataclass(frozen=True)
class Event:
    """One thing that happened, at Unix seconds `at_s`. `exit_code` or `term_signal` is set on ENDED, with what was measured; `reason` on
    STOPPING too; `delay_s`, the start-up of the try, on RESERVED; `pause_s` on MIGRATE."""

    kind: Kind
    at_s: float
    index: int = -1
    exit_code: int | None = None
    term_signal: int | None = None
    reason: Reason | None = None
    message: str = ""
    delay_s: float | None = None
    pause_s: float | None = None
    cpu_s: float | None = None
    peak_memory_bytes: int | None = None


@dataclass(frozen=True)
class Measured:
    """What the kernel says of the worker and those of its children that it waited for. `cpu_s`: user and system time.
    `peak_memory_bytes`: resident memory of the largest process; None where it was not seen."""

    cpu_s: float
    peak_memory_bytes: int | None


@dataclass(frozen=True)
class Try:
    """Times are Unix seconds; `start_s` and `measured` are None for a try that never had a process. `retry` counts from 0."""

    retry: int
    start_s: float | None
    end_s: float
    exit_code: int | None
    term_signal: int | None
    measured: Measured | None


class Stage(IntEnum):
    """The last step that was done: none yet, SIGTSTP, SIGSTOP."""

    ASKED = 0
    WARNED = 1
    STILL = 2


@dataclass(frozen=True)
class Migration:
    """The move of a running worker to another machine: SIGTSTP as the warning, ten seconds later SIGSTOP, `pause_s` later SIGCONT. Asked
    for at Unix seconds `asked_s`. No step comes before its time; a worker that is being ended is moved no further."""

    asked_s: float
    pause_s: float
    stage: Stage = Stage.ASKED

    @property
    def due_s(self) -> float:
        """When the next step is due."""
        if self.stage is Stage.ASKED:
            return self.asked_s
        return self.asked_s + WARNING_S + (self.pause_s if self.stage is Stage.STILL else 0.0)

    def moved(self) -> Migration | None:
        """The move after its next step; None when that was the last."""
        return None if self.stage is Stage.STILL else replace(self, stage=Stage(self.stage + 1))


@dataclass
class Task:
    """One `CLOUD_RUN_TASK_INDEX`. `attempt` is the number of the current or last try, from 0, so also the number of retries.
    `reserved_s`, `delay_s`, `try_start_s`, `stopping`, `killed` and `migration` are about the current try."""

    index: int
    phase: Phase = Phase.PENDING
    attempt: int = 0
    reserved_s: float | None = None
    delay_s: float = 0.0
    try_start_s: float | None = None
    start_s: float | None = None
    end_s: float | None = None
    stopping: Reason | None = None
    stopping_s: float | None = None
    killed: bool = False
    migration: Migration | None = None
    tries: list[Try] = field(default_factory=list)
    exit_code: int | None = None
    term_signal: int | None = None
    message: str = ""

    @property
    def is_over(self) -> bool:
        return self.phase in (Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED)


def can_move(task: Task, kind: Kind = Kind.MIGRATE) -> bool:
    """Whether a move may begin (MIGRATE) or go on (MOVED): only of a running worker that is not being ended."""
    return task.phase is Phase.RUNNING and task.stopping is None and (task.migration is not None) == (kind is Kind.MOVED)


def move(task: Task, event: Event) -> None:
    if event.kind is Kind.MIGRATE:
        task.migration = Migration(event.at_s, event.pause_s or 0.0, Stage.ASKED)
    elif task.migration is not None:
        task.migration = task.migration.moved()


def ended_try(task: Task, event: Event) -> Try:
    measured = None if event.cpu_s is None else Measured(event.cpu_s, event.peak_memory_bytes)
    return Try(task.attempt, task.try_start_s, event.at_s, event.exit_code, event.term_signal, measured)


def describe(event: Event, reason: Reason | None) -> str:
    """How a try ended, in a sentence; empty for one that succeeded."""
    if reason is Reason.CANCEL:
        return "The execution was cancelled."
    if reason is Reason.TIMEOUT:
        return "Terminating task because it has reached the maximum timeout."
    if reason is Reason.LOST:
        return "The local cloud stopped while this try was running."
    if event.term_signal is not None:
        return f"Container terminated on signal {event.term_signal}."
    return f"The container exited with code {event.exit_code}." if event.exit_code else ""
