"""A snapshot: what the demo sees at one moment, per lane, worker by worker. Values only; `look` is the one place that asks services."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from batch.model.progress import Progress
from controller.decide.ledger import promised
from controller.model.execution import ExecutionInfo, Worked
from controller.model.lane import Lane
from controller.model.reading import Reading, Value
from controller.observe.listing import executions_since
from controller.observe.survey import oldest_of_interest, survey
from controller.tick.outside import Outside


@dataclass(frozen=True, slots=True)
class WorkerTry:
    """One try of one worker as its progress tells; `state` is its exit reason, or `starting`, `running`, `killed`, `lost`."""

    lane: str
    execution: str
    index: int
    retry: int
    state: str
    progress: Progress

    @property
    def seconds(self) -> float:
        """From its start to its last progress."""
        return max(0.0, self.progress.updated_at - self.progress.started_at)


@dataclass(frozen=True, slots=True)
class LaneSnapshot:
    """One lane: `executions` with their workers' progress, oldest first."""

    lane: Lane
    submitted_count: int
    reading: Reading | None
    executions: tuple[Worked, ...]

    @property
    def tries(self) -> list[WorkerTry]:
        return [one for worked in self.executions for one in tries_of(self.lane.name, worked)]

    @property
    def backlog(self) -> int | None:
        return self.reading.undelivered_count if isinstance(self.reading, Value) else None

    @property
    def acked_count(self) -> int:
        return sum(one.progress.acked for one in self.tries)

    @property
    def dead_count(self) -> int:
        return sum(one.progress.dead for one in self.tries)

    @property
    def live_count(self) -> int:
        """Executions that have not ended."""
        return sum(worked.info.live for worked in self.executions)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All lanes, `elapsed_s` after the first tick."""

    elapsed_s: float
    lanes: tuple[LaneSnapshot, ...]

    @property
    def tries(self) -> list[WorkerTry]:
        return [one for lane in self.lanes for one in lane.tries]

    @property
    def acked_count(self) -> int:
        return sum(lane.acked_count for lane in self.lanes)

    @property
    def submitted_count(self) -> int:
        return sum(lane.submitted_count for lane in self.lanes)

    @property
    def at_rest(self) -> bool:
        """Whether something was launched in every lane with tasks, and no execution is alive."""
        return all(lane.executions and not lane.live_count for lane in self.lanes if lane.submitted_count)


def look(outside: Outside, lanes: Sequence[Lane], submitted: Mapping[str, int], readings: Mapping[str, Reading], since: float) -> Snapshot:
    """What is there now. `since` is when the first tick began. Raises DependencyError."""
    now = outside.clock.now()

    def lane_snapshot(lane: Lane) -> LaneSnapshot:
        recent = executions_since(outside.runner, lane.job, oldest_of_interest(lane, now))
        worked = survey(recent, outside.runner, outside.store, {}, since=since, now=now).worked
        return LaneSnapshot(lane, submitted.get(lane.name, 0), readings.get(lane.name), tuple(reversed(worked)))

    return Snapshot(now - since, tuple(map(lane_snapshot, lanes)))


def tries_of(lane: str, worked: Worked) -> Iterator[WorkerTry]:
    """Every try of every worker of an execution; a worker that has written nothing yet is starting."""
    for index in range(worked.info.task_count):
        tries = worked.tries.get(index, ())
        if not tries:
            none_yet = Progress(promised(worked.info, index), 0.0, 0.0)
            yield WorkerTry(lane, worked.info.name, index, 0, "starting" if worked.info.live else "lost", none_yet)
        for retry, progress in enumerate(tries):
            state = state_of(progress, last=retry == len(tries) - 1, info=worked.info)
            yield WorkerTry(lane, worked.info.name, index, retry, state, progress)


def state_of(progress: Progress, *, last: bool, info: ExecutionInfo) -> str:
    """A try without an exit reason runs, unless another came after it, or its execution has ended."""
    if progress.exit_reason:
        return progress.exit_reason
    return "running" if last and info.live else "killed"
