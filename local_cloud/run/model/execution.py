"""The state of one execution: its tasks, their tries, and the counters that the API reports.

It changes only through `apply`, one event after the other, and never reads a clock: replaying the same events gives the
same state, which is how an execution survives a restart of the server.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

from local_cloud.run.model.job import JobKey
from local_cloud.run.model.task import Event, Kind, Phase, Task, can_move, describe, ended_try, move
from local_cloud.run.spec.template import Template
from local_cloud.run.spec.validation import MAX_DELAYED_S


class InvalidEvent(Exception):
    """An event that the state does not allow: a bug in its sender."""

    def __init__(self, execution: str, event: Event, phase: Phase | None) -> None:
        super().__init__(f"execution {execution}: {event.kind.value} for task {event.index} while it is {phase.value if phase else 'over'}")


@dataclass
class Execution:
    """`sequence` grows with every execution of the server and orders the lists; `template` includes the overrides. `main`: the index of
    the container that runs. `not_before_s`: when the tasks of a delayed execution may start. `cannot_start`: why they never will."""

    key: JobKey
    name: str
    uid: str
    job_uid: str
    job_generation: int
    sequence: int
    create_s: float
    template: Template
    main: int = 0
    not_before_s: float | None = None
    cannot_start: str = ""
    tasks: list[Task] = field(init=False)
    pending: list[int] = field(init=False)
    active: dict[int, Task] = field(init=False, default_factory=dict)
    start_s: float | None = field(init=False, default=None)
    completion_s: float | None = field(init=False, default=None)
    cancel_s: float | None = field(init=False, default=None)
    delete_s: float | None = field(init=False, default=None)
    update_s: float = field(init=False)
    version: int = field(init=False, default=1)
    running_count: int = field(init=False, default=0)
    succeeded_count: int = field(init=False, default=0)
    failed_count: int = field(init=False, default=0)
    cancelled_count: int = field(init=False, default=0)
    retried_count: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.tasks = [Task(index) for index in range(self.template.task_count)]
        self.pending = list(range(self.template.task_count))
        self.update_s = self.create_s

    @property
    def full_name(self) -> str:
        return f"{self.key.name}/executions/{self.name}"

    @property
    def etag(self) -> str:
        return f'"{self.uid[:8]}-{self.version}"'

    @property
    def is_over(self) -> bool:
        return self.completion_s is not None

    @property
    def limit_s(self) -> float | None:
        """When a delayed execution is cancelled if it is not over."""
        return None if self.not_before_s is None else (self.start_s or self.not_before_s) + MAX_DELAYED_S

    @property
    def outcome(self) -> Phase:
        """The state of the execution as a whole: PENDING, RUNNING, SUCCEEDED, FAILED or CANCELLED."""
        if not self.is_over:
            return Phase.PENDING if self.start_s is None else Phase.RUNNING
        if self.cancelled_count:
            return Phase.CANCELLED
        return Phase.FAILED if self.failed_count else Phase.SUCCEEDED

    def apply(self, event: Event) -> None:
        """Raises InvalidEvent, and changes nothing, when the state does not allow the event."""
        if event.kind is Kind.CANCEL:
            self._cancel(event)
        elif event.kind is Kind.DELETE:
            self.delete_s = event.at_s
        elif event.kind is Kind.RESERVED:
            self._reserve(event)
        else:
            self._change_active(event)
        self.update_s = event.at_s
        self.version += 1

    def _cancel(self, event: Event) -> None:
        if self.is_over:
            raise InvalidEvent(self.name, event, None)
        self.cancel_s = event.at_s
        for index in self.pending:
            self._close(self.tasks[index], Phase.CANCELLED, event.at_s)
        self.pending.clear()
        self._complete_if_done(event.at_s)

    def _reserve(self, event: Event) -> None:
        if not self.pending or self.pending[0] != event.index:
            raise InvalidEvent(self.name, event, self.tasks[event.index].phase)
        heapq.heappop(self.pending)
        task = self.tasks[event.index]
        task.phase = Phase.STARTING
        task.reserved_s = event.at_s
        task.delay_s = event.delay_s or 0.0
        task.try_start_s = task.stopping = task.stopping_s = task.migration = None
        task.killed = False
        self.active[event.index] = task

    def _change_active(self, event: Event) -> None:
        task = self.active.get(event.index)
        if task is None:
            raise InvalidEvent(self.name, event, self.tasks[event.index].phase)
        if event.kind is Kind.ENDED:
            self._end(task, event)
        elif event.kind is Kind.STARTED and task.phase is Phase.STARTING:
            self._start(task, event.at_s)
        elif event.kind is Kind.STOPPING and task.phase is Phase.RUNNING and task.stopping is None:
            task.stopping, task.stopping_s = event.reason, event.at_s
        elif event.kind is Kind.KILLED and task.phase is Phase.RUNNING:
            task.killed = True
        elif event.kind in (Kind.MIGRATE, Kind.MOVED) and can_move(task, event.kind):
            move(task, event)
        else:
            raise InvalidEvent(self.name, event, task.phase)

    def _start(self, task: Task, at_s: float) -> None:
        task.phase = Phase.RUNNING
        task.try_start_s = at_s
        self.running_count += 1
        if task.start_s is None:
            task.start_s = at_s
        if self.start_s is None:
            self.start_s = at_s

    def _end(self, task: Task, event: Event) -> None:
        del self.active[task.index]
        if task.phase is Phase.RUNNING:
            self.running_count -= 1
        reason = event.reason or task.stopping
        task.tries.append(ended_try(task, event))
        task.migration = None
        task.exit_code, task.term_signal = event.exit_code, event.term_signal
        task.message = event.message or describe(event, reason)
        if event.exit_code == 0 and reason is None:
            self._close(task, Phase.SUCCEEDED, event.at_s)
        elif self.cancel_s is not None:
            self._close(task, Phase.CANCELLED, event.at_s)
        elif task.attempt < self.template.max_retries:
            self._retry(task)
        else:
            self._close(task, Phase.FAILED, event.at_s)
        self._complete_if_done(event.at_s)

    def _retry(self, task: Task) -> None:
        if task.attempt == 0:
            self.retried_count += 1
        task.attempt += 1
        task.phase = Phase.PENDING
        heapq.heappush(self.pending, task.index)

    def _close(self, task: Task, phase: Phase, at_s: float) -> None:
        task.phase = phase
        task.end_s = at_s
        if phase is Phase.SUCCEEDED:
            self.succeeded_count += 1
        elif phase is Phase.FAILED:
            self.failed_count += 1
        else:
            self.cancelled_count += 1

    def _complete_if_done(self, at_s: float) -> None:
        if not self.pending and not self.active:
            self.completion_s = at_s
