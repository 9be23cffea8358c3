"""A survey: the executions of a lane that can matter to a reading or show whether the lane works, with the progress of their workers.

It is complete or it is an error: what could not be listed must not look like nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from batch.model.names import progress_folder
from batch.model.progress import Progress, from_metadata
from batch.services.ports import ObjectStore
from controller.decide.broken import undecided
from controller.decide.ledger import horizon
from controller.model.execution import ExecutionInfo, NumberedTries, Tries, Worked, WorkerInfo
from controller.model.lane import Lane
from controller.observe.jobs import JobRunner

LOOKBACK_S = 24 * 3600.0
"""How long ago an execution may have been created to be found by the first listing."""


@dataclass(frozen=True, slots=True)
class Survey:
    """`executions` is everything seen, newest first; `worked` those that matter, in the same order, with progress; `notes` for the log."""

    executions: tuple[ExecutionInfo, ...] = ()
    worked: tuple[Worked, ...] = ()
    notes: tuple[str, ...] = ()

    def serving(self, decision_id: str) -> ExecutionInfo | None:
        """The execution that carries this decision part."""
        return next((one for one in self.executions if one.decision_id == decision_id), None)


def survey(
    executions: Iterable[ExecutionInfo], runner: JobRunner, store: ObjectStore, ended: Mapping[str, Worked], *, since: float, now: float
) -> Survey:
    """Read the progress of those of `executions`, newest first, that matter. `since` is the time acknowledgements are counted from, `now`
    the time of the listing (Unix seconds). `ended`: what was read of executions after their end, by full name, is not read again. Raises
    DependencyError."""
    edge = horizon(since, now)
    executions = tuple(executions)
    worked: list[Worked] = []
    notes: list[str] = []
    shows_broken = True
    for info in executions:
        matters = info.completed_at is None or info.completed_at >= edge
        if matters or (shows_broken and info.failed_count):
            one, unreadable = (ended[info.full_name], []) if info.full_name in ended else _read(info, runner, store)
            worked.append(one)
            notes += unreadable
        elif shows_broken:
            worked.append(Worked(info))  # ended long ago without failures: the lane was fine, whatever older ones say
        shows_broken = shows_broken and undecided(worked)
    return Survey(executions, tuple(worked), tuple(notes))


def still_matter(worked: Sequence[Worked], since: float, now: float) -> list[Worked]:
    """Without the oldest that no later survey needs: they ended long ago, and nothing older depends on what they show."""
    edge = horizon(since, now)
    kept = list(worked)
    while kept and kept[-1].info.completed_at is not None and kept[-1].info.completed_at < edge and not _is_evidence(kept[-1].info):
        kept.pop()
    return kept


def _is_evidence(info: ExecutionInfo) -> bool:
    """Whether an execution that has ended may show that its lane is broken."""
    return bool(info.failed_count or info.cannot_start)


def oldest_of_interest(lane: Lane, now: float) -> float:
    """When (Unix seconds) the oldest execution was created that may still be alive, or that shows whether the lane works."""
    return now - max(LOOKBACK_S, lane.start_within_s + (lane.max_retries + 1) * lane.task_timeout_s + 3600)


def _read(info: ExecutionInfo, runner: JobRunner, store: ObjectStore) -> tuple[Worked, list[str]]:
    """When and how workers ended is read only if one can have ended without an exit reason while others go on, or before it had begun."""
    tries, unreadable = read_progress(store, info.name)
    some_died = info.live and info.failed_count + info.cancelled_count > 0
    failed_at_start = info.failed_count > 0 and not tries
    workers = runner.workers(info.full_name) if some_died or failed_at_start else ()
    ended = {one.index: one.completed_at for one in workers if one.completed_at is not None} if info.live else {}
    return Worked(info, tries, ended, _start_signal(workers) if failed_at_start else 0), unreadable


def _start_signal(workers: Sequence[WorkerInfo]) -> int:
    """The signal that ended the first of those that failed; 0 if one of them ended otherwise, or nothing tells."""
    failed = [one for one in workers if one.completed_at is not None and (one.term_signal or one.exit_code)]
    return failed[0].term_signal or 0 if failed and all(one.term_signal for one in failed) else 0


def read_progress(store: ObjectStore, execution: str) -> tuple[Tries, list[str]]:
    """Progress by worker index, tries in order, and a note for each object that is not progress: its worker then counts as one without
    progress. Raises DependencyError."""
    numbered, notes = read_tries(store, execution)
    found: dict[int, list[Progress]] = {}
    for (index, _), progress in sorted(numbered.items(), key=lambda pair: pair[0]):
        found.setdefault(index, []).append(progress)
    return found, notes


def read_tries(store: ObjectStore, execution: str) -> tuple[NumberedTries, list[str]]:
    """As `read_progress`, each try by its own number: one that has written no progress leaves a gap. Raises DependencyError."""
    folder = progress_folder(execution)
    found: dict[tuple[int, int], Progress] = {}
    notes: list[str] = []
    for info in store.list(folder):
        try:
            index, retry = (int(part) for part in info.name.removeprefix(folder).split("-"))
            found[index, retry] = from_metadata(info.metadata)
        except ValueError as error:
            notes.append(f"object {info.name}: {error}")
    return found, notes
