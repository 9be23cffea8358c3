"""The tries of an execution's workers, as values: what each has done, how it ended, and where its log is. Pure."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from batch.model.exit import EXIT_BROKEN, EXIT_CRASHED, EXIT_SETTINGS, EXIT_STUCK
from batch.model.progress import Progress, RunningTask
from controller.decide.ledger import promised
from controller.model.execution import ExecutionInfo, NumberedTries, WorkerInfo
from controller.model.wording import spoken

OLD_S = 60.0
"""A task that has been running for so long is named."""
_CODES = {EXIT_CRASHED: "a fault", EXIT_SETTINGS: "wrong settings", EXIT_BROKEN: "broken", EXIT_STUCK: "stuck"}
SHELL_SIGNAL = 128
"""A container whose process ended by signal N may show exit code 128 + N."""
_TOLD = {"SIGSEGV": "it touched memory that is not its own", "SIGKILL": "often because memory ran out", "SIGABRT": "it gave up"}


@dataclass(frozen=True, slots=True)
class WorkerTry:
    """One try of one worker. `state` is its exit reason, or `waiting` (Cloud Run has not started it), `starting` (no progress yet),
    `running`, `killed` (it ended without an exit reason), `failed` (the same, with an exit code), `cancelled` or `lost` (it ended without
    any progress).

    `exit_code`, `term_signal` and `message` are what Cloud Run says of it, which it keeps of a worker's last try only."""

    lane: str
    execution: str
    index: int
    retry: int
    state: str
    progress: Progress
    exit_code: int | None = None
    term_signal: int | None = None
    message: str = ""
    log_uri: str = ""
    ended_at: float | None = None

    @property
    def seconds(self) -> float:
        """From its start to its end where Cloud Run says when that was, else to its last progress."""
        return max(0.0, (self.ended_at or self.progress.updated_at) - self.progress.started_at)

    @property
    def died(self) -> bool:
        """Whether it ended without saying why."""
        return self.state in ("killed", "failed", "lost")

    @property
    def oldest(self) -> RunningTask | None:
        """The task that had been running longest at its last progress."""
        return min(self.progress.running, key=lambda one: one.since, default=None)

    @property
    def signal_name(self) -> str:
        """`SIGSEGV`; empty if no signal is known to have ended it."""
        number = self.term_signal or max(0, (self.exit_code or 0) - SHELL_SIGNAL)
        return signal.Signals(number).name if number in set(signal.Signals) else ""

    @property
    def ended(self) -> str:
        """How its process ended, as far as Cloud Run says; empty if it ended as it should, or runs."""
        if self.signal_name:
            why = _TOLD.get(self.signal_name, "")
            return self.signal_name + (f" ({why})" if why else "")
        if self.exit_code:
            meaning = _CODES.get(self.exit_code, "")
            return f"exit code {self.exit_code}" + (f" ({meaning})" if meaning else "")
        return ""


def tries_of(
    lane: str, info: ExecutionInfo, tries: NumberedTries, workers: Mapping[int, WorkerInfo] | None = None, *, console: str = ""
) -> Iterator[WorkerTry]:
    """Every try of every worker of an execution, by index. `workers`: what Cloud Run says of them, None where it was not asked. `console`
    is where logs are if it does not say."""
    asked = workers is not None
    for index in range(info.task_count):
        worker = (workers or {}).get(index, WorkerInfo(index))
        known = [retry for at, retry in tries if at == index]
        last = max([*known, worker.retried_count])
        for retry in range(last + 1):
            progress = tries.get((index, retry))
            of_result = worker if retry == worker.last_ended else WorkerInfo(index)
            over = retry < last or worker.completed_at is not None or not info.live
            state = progress.exit_reason if progress is not None else ""
            state = state or _state_without_reason(info, of_result, over=over, begun=progress is not None, started=_started(asked, worker))
            yield WorkerTry(
                lane,
                info.name,
                index,
                retry,
                state,
                progress or Progress(promised(info, index), 0.0, 0.0),
                of_result.exit_code,
                of_result.term_signal,
                of_result.message,
                _log(worker, retry, console),
                of_result.completed_at if progress is not None else None,
            )


def _started(asked: bool, worker: WorkerInfo) -> bool:
    return not asked or worker.started_at is not None


def _state_without_reason(info: ExecutionInfo, result: WorkerInfo, *, over: bool, begun: bool, started: bool) -> str:
    """Of a try whose progress names no exit reason, or that has written none."""
    if not over:
        return "running" if begun else "starting" if started else "waiting"
    if result.exit_code:
        return "failed"
    if begun or result.term_signal:
        return "killed"
    return "cancelled" if info.cancelled_count and not started else "lost"


def _log(worker: WorkerInfo, retry: int, console: str) -> str:
    """Cloud Run's own link is one for all tries of a worker; the local cloud's takes the number of the try."""
    if not worker.log_uri:
        return console
    return f"{worker.log_uri}?retry={retry}" if worker.log_uri.startswith("http://") else worker.log_uri


def oldest_text(oldest: RunningTask | None, at: float) -> str:
    """`id (type), 5 min`; empty without one. `at` is Unix seconds."""
    return "" if oldest is None else f"{oldest.task_id} ({oldest.task_type}), {spoken(max(0.0, at - oldest.since))}"


def console_link(full_name: str) -> str:
    """Where the Cloud Console shows the logs of an execution."""
    _, project, _, region, _, _, _, execution = full_name.split("/")
    return f"https://console.cloud.google.com/run/jobs/executions/details/{region}/{execution}/logs?project={project}"
