"""A snapshot: what the demo sees at one moment, per lane, worker by worker. Values only; `look` is the one place that asks services."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from batch.services.ports import ObjectStore
from controller.model.execution import NumberedTries, Worked
from controller.model.lane import Lane
from controller.model.reading import Reading, Value
from controller.observe.killed import killed_tries, with_outcomes
from controller.observe.listing import executions_since
from controller.observe.survey import oldest_of_interest, survey
from controller.tick.outside import Outside
from fanout.execution.tries import WorkerTry, tries_of


@dataclass(frozen=True, slots=True)
class LaneSnapshot:
    """One lane: `executions` with their workers' progress, oldest first. `killed`: by execution, its killed tries, with what their outcomes
    say that they have done."""

    lane: Lane
    submitted_count: int
    reading: Reading | None
    executions: tuple[Worked, ...]
    killed: Mapping[str, NumberedTries] = field(default_factory=dict)

    @property
    def tries(self) -> list[WorkerTry]:
        return [one for worked in self.executions for one in self._tries_of(worked)]

    def _tries_of(self, worked: Worked) -> Iterator[WorkerTry]:
        """Of killed ones with what their outcomes say, once their execution has ended."""
        numbered = {(index, retry): one for index, tries in worked.tries.items() for retry, one in enumerate(tries)}
        return tries_of(self.lane.name, worked.info, numbered | dict(self.killed.get(worked.info.name, {})))

    @property
    def backlog(self) -> int | None:
        return self.reading.undelivered_count if isinstance(self.reading, Value) else None

    @property
    def acked_count(self) -> int:
        """Of killed workers what their outcomes say: a task that was delivered again is done once all the same."""
        return min(self.submitted_count, sum(one.progress.acked for one in self.tries))

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
        killed = {one.info.name: found for one in worked if (found := _killed(outside.store, one))}
        return LaneSnapshot(lane, submitted.get(lane.name, 0), readings.get(lane.name), tuple(reversed(worked)), killed)

    return Snapshot(now - since, tuple(map(lane_snapshot, lanes)))


def _killed(store: ObjectStore, worked: Worked) -> NumberedTries:
    numbered = {(index, retry): one for index, tries in worked.tries.items() for retry, one in enumerate(tries)}
    killed = killed_tries(numbered, live=worked.info.live)
    counted = with_outcomes(store, worked.info, numbered, killed)
    return {key: counted[key] for key in killed}
