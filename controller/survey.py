"""A survey: which executions of a lane exist, and the progress of the workers of those that can matter to a reading.

It is complete or it is an error: what could not be listed must not look like nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from batch.names import progress_folder
from batch.objects import ObjectStore
from batch.progress import Progress, from_metadata
from controller.broken import undecided
from controller.jobs import ExecutionInfo, JobRunner
from controller.lanes import Lane
from controller.ledger import Worked, horizon

LOOKBACK_S = 24 * 3600.0
"""How long ago an execution may have been created to be found by listing; older ones that still run are watched by name."""


@dataclass(frozen=True, slots=True)
class Survey:
    """`executions` is everything seen, newest first; `worked` those that matter, in the same order, with progress; `notes` for the log."""

    executions: tuple[ExecutionInfo, ...] = ()
    worked: tuple[Worked, ...] = ()
    notes: tuple[str, ...] = ()

    def serving(self, decision_id: str) -> ExecutionInfo | None:
        """The execution that carries this decision part."""
        return next((one for one in self.executions if one.decision_id == decision_id), None)

    @property
    def live_names(self) -> tuple[str, ...]:
        """Full names of the executions that are alive, sorted."""
        return tuple(sorted(one.full_name for one in self.executions if one.live))


def survey(lane: Lane, watched: Sequence[str], runner: JobRunner, store: ObjectStore, *, since: float, now: float) -> Survey:
    """List the lane's executions and read their workers' progress. `since` is the time acknowledgements are counted from; `watched`
    full names of executions known to have been alive. Raises DependencyError."""
    executions = listed(lane, watched, runner, now)
    edge = horizon(since, now)
    worked: list[Worked] = []
    notes: list[str] = []
    tell_broken = True
    for info in executions:
        matters = info.completed_at is None or info.completed_at >= edge
        if matters or (tell_broken and info.failed_count):
            tries, unreadable = read_progress(store, info.name)
            worked.append(Worked(info, tries, ended_workers(info, runner)))
            notes += unreadable
        # One that ended long ago without failures is not read, and says that the lane was fine.
        tell_broken = tell_broken and undecided(worked) and (matters or info.failed_count > 0)
    return Survey(tuple(executions), tuple(worked), tuple(notes))


def listed(lane: Lane, watched: Sequence[str], runner: JobRunner, now: float) -> list[ExecutionInfo]:
    """The job's executions of the last day (longer where a worker may live longer), newest first, and the watched ones before."""
    oldest = now - max(LOOKBACK_S, (lane.max_retries + 1) * lane.task_timeout_s + 3600)
    found: list[ExecutionInfo] = []
    for info in runner.executions(lane.job):
        if info.created_at < oldest:
            break
        found.append(info)
    seen = {info.full_name for info in found}
    older = (runner.execution(name) for name in watched if name not in seen)
    return found + [info for info in older if info is not None]


def ended_workers(info: ExecutionInfo, runner: JobRunner) -> Mapping[int, float]:
    """Asked for only where a worker can have ended without a word while others go on."""
    if info.live and info.failed_count + info.cancelled_count > 0:
        return runner.ended_workers(info.full_name)
    return {}


def read_progress(store: ObjectStore, execution: str) -> tuple[Mapping[int, Sequence[Progress]], list[str]]:
    """Progress by worker index, tries in order, and a note for each object that is none: its worker then counts as not heard of."""
    folder = progress_folder(execution)
    found: dict[int, dict[int, Progress]] = {}
    notes: list[str] = []
    for info in store.list(folder):
        try:
            index, retry = (int(part) for part in info.name.removeprefix(folder).split("-"))
            found.setdefault(index, {})[retry] = from_metadata(info.metadata)
        except ValueError as error:
            notes.append(f"object {info.name}: {error}")
    return {index: [tries[retry] for retry in sorted(tries)] for index, tries in found.items()}, notes
