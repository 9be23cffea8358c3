"""The one listing of a job's executions: the newest ones for people, and for ticks those that matter, without reading the history anew.

ListJobs, which a tick needs anyway, says how many executions a job had and which is the newest. They are listed only when that count grew,
until that many new ones are seen, or when the newest is another; those that mattered last time are read again by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, takewhile
from typing import Any

from batch.model.clock import iso
from controller.model.execution import ExecutionInfo
from controller.model.lane import Lane
from controller.model.plain import read
from controller.model.wording import are, counted
from controller.observe.jobs import JobInfo, JobRunner

OVERLAP_S = 300.0
"""What was created this long before the last look was in that look, however the clocks differ."""
SHORT_S = 180.0
"""How long the list may lag behind the count; after that what is missing was deleted."""
_EXECUTION = re.compile(r"projects/[^/]+/locations/[^/]+/jobs/[^/]+/executions/[^/]+")


@dataclass(frozen=True, slots=True)
class Seen:
    """An execution that still matters: alive, or ended so recently that a reading may count its messages, or one that shows whether the
    lane is broken."""

    full_name: str
    worker_count: int
    live: bool


@dataclass(frozen=True, slots=True)
class Observed:
    """What a lane's state keeps of its job's executions; only Cloud Run's answers change it, never what was planned or requested.

    `counted` executions of the job with `job_uid` are accounted for; None: they were never listed. `latest` is the newest of them.
    `missing_count` more are counted by Cloud Run and not listed, since `short_since` (Unix seconds). `listed_at` is when it last changed
    with none missing."""

    job_uid: str = ""
    counted: int | None = None
    latest: str = ""
    missing_count: int = 0
    listed_at: float = 0.0
    short_since: float | None = None
    executions: tuple[Seen, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Full names."""
        return tuple(one.full_name for one in self.executions)

    @property
    def live_worker_count(self) -> int:
        """At most: workers of live executions that have ended since are among them."""
        return sum(one.worker_count for one in self.executions if one.live)


@dataclass(frozen=True, slots=True)
class Listed:
    """`executions` is newest first: everything new, and everything that mattered before. `counted` of the job's are accounted for, the
    newest of them is `latest`, and `missing_count` are counted by Cloud Run and not listed yet, since `short_since` (Unix seconds)."""

    executions: tuple[ExecutionInfo, ...]
    counted: int
    latest: str = ""
    missing_count: int = 0
    short_since: float | None = None
    notes: tuple[str, ...] = ()


def executions_since(runner: JobRunner, job: str, since: float) -> Iterator[ExecutionInfo]:
    """Executions of the job (full name), newest first, back to those created at `since` (Unix seconds), page by page as the caller goes on.
    Raises DependencyError."""
    return takewhile(lambda info: info.created_at >= since, runner.executions(job))


def newest_executions(runner: JobRunner, lanes: Iterable[Lane], limit: int) -> list[tuple[str, ExecutionInfo]]:
    """The newest `limit` executions of all these lanes, newest first, each with its lane's name. Raises DependencyError."""
    found = [(lane.name, info) for lane in lanes for info in islice(runner.executions(lane.job), limit)]
    return sorted(found, key=lambda pair: -pair[1].created_at)[:limit]


def listed_json(lane: str, info: ExecutionInfo) -> dict[str, Any]:
    """What the service and `fanout executions --json` both show of an execution."""
    return {
        "execution": info.name,
        "lane": lane,
        "worker_count": info.task_count,
        "succeeded_count": info.succeeded_count,
        "failed_count": info.failed_count,
        "cancelled_count": info.cancelled_count,
        "retried_count": info.retried_count,
        "decision_id": info.decision_id or None,
        "created_at": iso(info.created_at),
        "started_at": None if info.started_at is None else iso(info.started_at),
        "completed_at": None if info.completed_at is None else iso(info.completed_at),
    }


@dataclass(slots=True)
class _Page:
    """The new executions of one listing. Those that are newer than what ListJobs called the newest were not in its count."""

    latest: str
    known: frozenset[str]
    found: list[ExecutionInfo] = field(default_factory=list)
    reached_latest: bool = False
    new_count: int = 0
    newer_count: int = 0

    def add(self, info: ExecutionInfo) -> None:
        self.found.append(info)
        self.reached_latest = self.reached_latest or info.name == self.latest
        if info.full_name in self.known:
            return
        if self.reached_latest:
            self.new_count += 1
        else:
            self.newer_count += 1

    def insert_latest(self, info: ExecutionInfo) -> None:
        """The list did not show it: what is older than it was taken for newer."""
        older_count = sum(one.created_at <= info.created_at and one.full_name not in self.known for one in self.found)
        self.newer_count -= older_count
        self.new_count += older_count
        self.add(info)


def list_executions(
    job: JobInfo,
    before: Observed,
    runner: JobRunner,
    ended: Callable[[str], ExecutionInfo | None],
    *,
    now: float,
    oldest: float,
    look_back_to: float | None = None,
) -> Listed:
    """List what is new since `before`, and read again what mattered then. The first listing goes back to `oldest` (Unix seconds).
    `look_back_to`: a launch since this time is unclear, so the list is read in any case. `ended` gives what is known of an execution that
    has ended, so that it is not read again. Raises DependencyError."""
    first = before.counted is None or before.job_uid != job.uid
    counted_before = 0 if first else before.counted or 0
    is_newest = job.latest_execution == before.latest
    # A lower count with another newest is an answer older than the last one: it cannot tell how far to read, and changes no count.
    is_old = not first and not is_newest and job.execution_count < counted_before + before.missing_count
    grown_count = job.execution_count - counted_before
    page = _Page(job.latest_execution, frozenset(before.names))
    if grown_count > 0 or not is_newest or look_back_to is not None:
        # A look at a time to come was timed by a clock that was wrong: it says nothing of when it was.
        floor = oldest if first or is_old or before.listed_at > now + OVERLAP_S else before.listed_at - OVERLAP_S
        for info in executions_since(runner, job.full_name, floor):
            enough = not (first or is_old) and page.new_count >= grown_count and (page.reached_latest or is_newest)
            if enough and (look_back_to is None or info.created_at < look_back_to):
                break
            page.add(info)
        if not page.reached_latest and job.latest_execution:
            _add_latest(job, page, runner, oldest if first else None)
    seen = {info.full_name for info in page.found}
    again = (ended(name) or runner.execution(name) for name in before.names if name not in seen)
    executions = newest_first([*page.found, *(info for info in again if info is not None)])
    if is_old:
        return Listed(executions, counted_before, before.latest, before.missing_count, before.short_since)
    latest = page.found[0].name if page.reached_latest and page.newer_count else job.latest_execution
    if first:
        return Listed(executions, job.execution_count + page.newer_count, latest)
    return _accounted(job, before, page, Listed(executions, job.execution_count, latest), grown_count, now)


def _add_latest(job: JobInfo, page: _Page, runner: JobRunner, oldest: float | None) -> None:
    """What ListJobs names exists, though the list does not show it yet; unless it was deleted, or is too old to be listed at all."""
    info = runner.execution(f"{job.full_name}/executions/{job.latest_execution}")
    if info is not None and (oldest is None or info.created_at >= oldest):
        page.insert_latest(info)


def _accounted(job: JobInfo, before: Observed, page: _Page, found: Listed, grown_count: int, now: float) -> Listed:
    # Without the newest of the count it is not known which came after it.
    new_count, later_count = (page.new_count, page.newer_count) if page.reached_latest else (page.new_count + page.newer_count, 0)
    missing_count = max(0, grown_count - new_count)
    found = replace(found, counted=job.execution_count + later_count)
    if not missing_count:
        return found
    # Of new ones the list may lag anew, so the wait begins again.
    short_since = before.short_since if grown_count <= before.missing_count and before.short_since is not None else now
    # Nor does it end if one of the clocks was far ahead when it began.
    short_since = now if short_since > now + OVERLAP_S else short_since
    if now - short_since > SHORT_S:
        gone = f"{counted(missing_count, 'execution')} of {job.name} {are(missing_count)} counted by Cloud Run and not listed: deleted"
        return replace(found, notes=(gone,))
    return replace(found, counted=found.counted - missing_count, missing_count=missing_count, short_since=short_since)


def shortage(job: str, found: Listed, explained_count: int) -> str:
    """Why this listing is not complete: what could not be listed must not look like nothing. Empty if it is complete. `explained_count`:
    launches of ours that are counted in full until they are listed."""
    short_count = found.missing_count - explained_count
    if short_count <= 0:
        return ""
    many = counted(short_count, "execution")
    return f"Cloud Run counts {many} of {job} more than it lists: nothing is launched until the list shows them, or for {SHORT_S:.0f} s"


def observed(job: JobInfo, before: Observed, found: Listed, kept: Iterable[ExecutionInfo], now: float) -> Observed:
    """What the next listing begins with; `before` itself if only the time has changed, so that nothing needs to be written."""
    remembered = found.executions if found.missing_count else kept
    changed = replace(
        before,
        job_uid=job.uid,
        counted=found.counted,
        latest=found.latest,
        missing_count=found.missing_count,
        short_since=found.short_since,
        executions=tuple(Seen(info.full_name, info.task_count, info.live) for info in remembered),
    )
    return before if changed == before else replace(changed, listed_at=before.listed_at if found.missing_count else now)


def newest_first(executions: Sequence[ExecutionInfo]) -> tuple[ExecutionInfo, ...]:
    """Stable: Cloud Run's own order stands if two were created at the same time."""
    return tuple(sorted(executions, key=lambda info: -info.created_at))


def from_json(body: Mapping[str, Any]) -> Observed:
    """What a lane's state has observed. Raises KeyError, TypeError or ValueError on anything else."""
    found = read(Observed, body)
    for name in found.names:
        if not _EXECUTION.fullmatch(name):
            raise ValueError(f"{name!r:.200} is not the full name of an execution")
    return found
