"""The thread that carries executions out: it asks the scheduler what to do and does it.

Only this thread starts and signals workers, so a signal can never overtake a start. No lock is held while a process starts.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from local_cloud.run.model.cloud import Cloud
from local_cloud.run.model.execution import Execution
from local_cloud.run.model.scheduler import Action, Do, plan
from local_cloud.run.model.secret_files import MissingSecret
from local_cloud.run.model.task import Event, Kind, Measured, Phase, Reason, Stage, Task, can_move
from local_cloud.run.runner.leftovers import Records
from local_cloud.run.runner.process import CannotStart, Launch, Processes, TryKey
from local_cloud.run.runner.settings import Settings
from local_cloud.run.spec.template import Container

CANNOT_START = 127  # what a shell answers when there is no such command
_MOVES = {Stage.ASKED: signal.SIGTSTP, Stage.WARNED: signal.SIGSTOP, Stage.STILL: signal.SIGCONT}


@dataclass(frozen=True)
class Worker:
    """One running try; `start_s`: when its process started, Unix seconds."""

    pid: int
    job: str
    execution: str
    index: int
    retry: int
    start_s: float | None


class Runner:
    """Start it once, after the cloud was made; `stop` returns when no worker is left. `on_crash` is called when the thread fails."""

    def __init__(self, cloud: Cloud, settings: Settings, on_crash: Callable[[], None] | None = None) -> None:
        self._cloud = cloud
        self._settings = settings
        self._on_crash = on_crash
        self._records = Records(cloud.store.processes)
        self._processes = Processes(self._records, self._exited)
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="runner", daemon=True)

    def start(self) -> None:
        """First end what an earlier server left behind, so that no try runs twice at the same time."""
        self._records.kill_leftovers()
        self._fail_lost_tries()
        self._thread.start()

    def stop(self) -> None:
        """SIGKILL to all workers. Their tries count as failed; an execution with retries left goes on at the next start."""
        with self._cloud.condition:
            self._stopping = True
            self._cloud.condition.notify_all()
        if self._thread.is_alive():
            self._thread.join()
        self._processes.close()
        self._records.kill_writers()

    def workers(self) -> list[Worker]:
        """The workers that run now, in the order of their executions and indexes."""
        with self._cloud.condition:
            running = {execution.name: execution for execution in self._cloud.unfinished()}
            found = []
            for key, pid in self._processes.pids().items():
                execution = running[key.execution]
                task = execution.tasks[key.index]
                found.append((execution.sequence, Worker(pid, execution.key.job, key.execution, key.index, key.attempt, task.try_start_s)))
        return [worker for _, worker in sorted(found, key=lambda pair: (pair[0], pair[1].index))]

    def _fail_lost_tries(self) -> None:
        with self._cloud.condition:
            for execution in self._cloud.unfinished():
                for index in list(execution.active):
                    self._record(execution, Kind.ENDED, index, term_signal=int(signal.SIGKILL), reason=Reason.LOST)

    def _run(self) -> None:
        try:
            while (actions := self._next_actions()) is not None:
                for action in actions:
                    self._act(action)
        except BaseException:
            if self._on_crash is not None:
                self._on_crash()
            raise

    def _next_actions(self) -> list[Action] | None:
        """Wait until there is something to do; None when the server stops."""
        cloud = self._cloud
        with cloud.condition:
            while not self._stopping:
                made = plan(cloud.unfinished(), cloud.clock.now(), self._settings.max_process_count)
                if made.actions:
                    return made.actions
                cloud.clock.wait_until(cloud.condition, made.wake_s)
            return None

    def _act(self, action: Action) -> None:
        """Do one step, unless the state has changed since it was planned."""
        cloud = self._cloud
        with cloud.condition:
            execution = next((found for found in cloud.unfinished() if found.name == action.execution), None)
            if execution is None or self._stopping:
                return
            if action.do is Do.CANCEL:
                cloud.cancel(execution)
                return
            if action.do is Do.RESERVE:
                if execution.pending:
                    self._reserve(execution)
                return
            task = execution.active.get(action.index)
            if task is None:
                return
            if action.do is not Do.SPAWN:
                self._signal_try(execution, task, action)
                return
            if task.phase is not Phase.STARTING or execution.cancel_s is not None:
                return
            self._record(execution, Kind.STARTED, task.index)
            key = TryKey(execution.name, task.index, task.attempt)
            try:
                launch = self._launch(execution, task)
            except MissingSecret as error:
                self._fail_start(execution, key, error)
                return
        self._spawn(execution, key, launch)

    def _reserve(self, execution: Execution) -> None:
        task = execution.tasks[execution.pending[0]]
        delay_s = self._settings.startup.delay_s(execution.sequence, task.index, task.attempt)
        self._record(execution, Kind.RESERVED, task.index, delay_s=delay_s)

    def _signal_try(self, execution: Execution, task: Task, action: Action) -> None:
        key = TryKey(execution.name, task.index, task.attempt)
        if action.do is Do.EXPIRE and task.phase is Phase.STARTING:
            self._record(execution, Kind.ENDED, task.index, term_signal=int(signal.SIGKILL), reason=action.reason)
        elif action.do is Do.TERMINATE and task.stopping is None:
            self._record(execution, Kind.STOPPING, task.index, reason=action.reason)
            self._processes.signal(key, signal.SIGTERM)
            if task.migration is not None and task.migration.stage is Stage.STILL:
                self._processes.signal(key, signal.SIGCONT)  # a stopped process does not receive the SIGTERM
        elif action.do is Do.MOVE and task.migration is not None and can_move(task, Kind.MOVED):
            number = _MOVES[task.migration.stage]
            self._record(execution, Kind.MOVED, task.index)
            self._processes.signal(key, number)
        elif action.do is Do.KILL and not task.killed:
            self._record(execution, Kind.KILLED, task.index)
            self._processes.signal(key, signal.SIGKILL)

    def _launch(self, execution: Execution, task: Task) -> Launch:
        """Raises MissingSecret."""
        container = execution.template.containers[execution.main]
        own = self._cloud.store.secrets.resolved(container.env, execution.key.project)
        return Launch(
            argv=_command_line(container),
            env=_worker_environment(self._settings.environment, own, execution, task),
            log=self._cloud.store.log_path(execution.name, task.index, task.attempt),
            cwd=self._settings.cwd,
        )

    def _spawn(self, execution: Execution, key: TryKey, launch: Launch) -> None:
        try:
            self._processes.spawn(key, launch)
        except CannotStart as error:
            self._fail_start(execution, key, error)

    def _fail_start(self, execution: Execution, key: TryKey, error: CannotStart | MissingSecret) -> None:
        message = f"The container could not be started: {error}"
        self._record(execution, Kind.ENDED, key.index, exit_code=CANNOT_START, reason=Reason.START, message=message)

    def _exited(self, key: TryKey, code: int, measured: Measured) -> None:
        cloud = self._cloud
        with cloud.condition:
            execution = next(found for found in cloud.unfinished() if found.name == key.execution)
            end = {"exit_code": code} if code >= 0 else {"term_signal": -code}
            self._record(execution, Kind.ENDED, key.index, **end, **asdict(measured))

    def _record(self, execution: Execution, kind: Kind, index: int, **details: Any) -> None:
        """`details`: the other fields of the event."""
        self._cloud.record(execution, Event(kind, self._cloud.clock.now(), index, **details))


def _worker_environment(base: Mapping[str, str], own: Mapping[str, str], execution: Execution, task: Task) -> dict[str, str]:
    """`base`, then the container's own variables, then what Cloud Run says about the try: the last one counts."""
    return {
        **base,
        **own,
        "CLOUD_RUN_JOB": execution.key.job,
        "CLOUD_RUN_EXECUTION": execution.name,
        "CLOUD_RUN_TASK_INDEX": str(task.index),
        "CLOUD_RUN_TASK_COUNT": str(execution.template.task_count),
        "CLOUD_RUN_TASK_ATTEMPT": str(task.attempt),
    }


def _command_line(container: Container) -> list[str]:
    """The container's command and arguments; `python` means the interpreter that the server runs on, with its packages."""
    words = [*container.command, *container.args]
    if words[0] in ("python", "python3"):
        words[0] = sys.executable
    return words
