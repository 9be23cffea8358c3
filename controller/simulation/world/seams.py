"""The controller's seams onto a simulated world: Cloud Run Jobs, the gauge, the bucket. What drives them is the real tick."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NoReturn

from batch.model.errors import DependencyMissing
from batch.model.names import progress_folder
from batch.model.progress import to_metadata
from batch.services.ports import ObjectInfo
from batch.testing import MemoryObjectStore
from controller.model.execution import ExecutionInfo, WorkerInfo, count_in
from controller.model.reading import Idle, Reading, Value
from controller.observe.backlog import WINDOW_S
from controller.observe.containers import Container
from controller.observe.jobs import LANE_LABEL, JobInfo, RunRequest
from controller.simulation.given.scenario import Load
from controller.simulation.world.fleet import Execution
from controller.simulation.world.world import LaneWorld, World
from controller.tick.outside import Outside

HISTORY = "controller/history/"


class SimulatedStore(MemoryObjectStore):
    """A bucket in which workers' progress is what they have written by now. The history of decisions is kept aside, in its order:
    no list needs to go through it."""

    def __init__(self, world: World) -> None:
        super().__init__(clock=world.clock)
        self._world = world
        self._executions: dict[str, Execution] = {}
        self.history: list[tuple[str, bytes]] = []

    def add(self, execution: Execution) -> None:
        """Its workers may write progress from now on."""
        self._executions[progress_folder(execution.info.name)] = execution

    def write(
        self,
        name: str,
        data: bytes,
        *,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
        if_generation: int | None = None,
    ) -> ObjectInfo:
        if name.startswith(HISTORY):
            self.history.append((name, data))
            return ObjectInfo(name, 1, len(data))
        return super().write(name, data, content_type=content_type, metadata=metadata, if_generation=if_generation)

    def list(self, prefix: str, start: str = "") -> Iterator[ObjectInfo]:
        execution = self._executions.get(prefix)
        if execution is None:
            yield from super().list(prefix, start)
            return
        now = self._world.clock.now()
        for worker in execution.workers:
            written = worker.progress(now)
            if written is not None:
                yield ObjectInfo(f"{prefix}{worker.index}-0", 1, 0, to_metadata(written))


class SimulatedRunner:
    """Implements `controller.observe.jobs.JobRunner` for the lanes of a world."""

    def __init__(self, world: World, store: SimulatedStore) -> None:
        self._world, self._store = world, store
        self._lanes = {lane.job: lane for lane in world.lanes.values()}
        self._jobs = {lane.job: job_of(lane.load, lane.job) for lane in world.lanes.values()}

    def jobs(self) -> list[JobInfo]:
        """Each with its executions counted."""
        return [self._counted(job, self._lanes[name]) for name, job in self._jobs.items()]

    @staticmethod
    def _counted(job: JobInfo, lane: LaneWorld) -> JobInfo:
        latest = lane.executions[-1].full_name.rsplit("/", 1)[-1] if lane.executions else ""
        return replace(job, execution_count=len(lane.executions), latest_execution=latest)

    def executions(self, job: str) -> Iterator[ExecutionInfo]:
        """Newest first."""
        return (one.info for one in reversed(self._lanes[job].executions))

    def execution(self, full_name: str) -> ExecutionInfo | None:
        """By its number, which its name ends with."""
        job, _, name = full_name.partition("/executions/")
        number = int(name.rpartition("-")[2])
        found = self._lanes[job].executions
        return found[number].info if number < len(found) else None

    def workers(self, execution: str) -> Sequence[WorkerInfo]:
        """None of them fails."""
        found = self.execution(execution)
        return [WorkerInfo(index) for index in range(found.task_count if found else 0)]

    def run(self, job: str, request: RunRequest) -> ExecutionInfo:
        """Its workers take what they are told to."""
        lane = self._lanes[job]
        limit = count_in(request.env, "SHARE_LIMIT")
        execution = self._world.launch(lane, request.task_count, request.env, backlog=count_in(request.env, "BACKLOG"), limit=limit)
        self._store.add(execution)
        return execution.info

    def set_annotation(self, job: str, key: str, value: str) -> None:
        """Nobody edits a simulated job. Raises ValueError."""
        raise ValueError(f"{job}: {key}={value} cannot be set in a simulation")


class SimulatedBacklog:
    """Reads the newest sample of each lane that is visible by now."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._by_subscription = {f"{lane.load.name}-sub": lane for lane in world.lanes.values()}

    def read(self, subscriptions: Sequence[str]) -> dict[str, Reading]:
        """By subscription."""
        return {name: reading_of(self._by_subscription[name], self._world.clock.now()) for name in subscriptions}


def reading_of(lane: LaneWorld, now: float) -> Reading:
    """The newest sample that can be read; idle while there is none."""
    for one in reversed(lane.samples):
        if one.at < now - WINDOW_S:
            break
        if one.visible_at <= now:
            return Value(one.undelivered_count, one.at, None if one.oldest_at is None else one.at - one.oldest_at)
    return Idle()


def job_of(load: Load, full_name: str) -> JobInfo:
    """A job as an operator would have deployed it for this lane."""
    subscription = f"{load.name}-sub"
    env = {
        "GOOGLE_CLOUD_PROJECT": "simulated",
        "SUBSCRIPTION_NAME": subscription,
        "TOPIC_NAME": load.name,
        "BUCKET_NAME": "simulated",
        "LANE": load.name,
        "CONCURRENCY": str(load.concurrency),
    }
    annotations = {"fanout/subscription": subscription, "fanout/topic": load.name, **load.annotations}
    return JobInfo(
        full_name,
        labels={LANE_LABEL: load.name},
        annotations=annotations,
        containers=(Container(image="simulated", command=("python", "-m", "batch"), env=env),),
        task_timeout_s=load.task_timeout_s,
        max_retries=1,
        is_delayed=load.is_delayed,
    )


def outside_of(world: World) -> tuple[Outside, SimulatedStore]:
    """What a tick in this world touches."""
    store = SimulatedStore(world)
    runner = SimulatedRunner(world, store)
    rng = random.Random(world.scenario.seed)
    backlog, every_s, quotas = SimulatedBacklog(world), world.scenario.tick_every_s, world.scenario.quotas
    return Outside(store, runner, backlog, world.clock, rng, _no_topic, quotas=quotas, tick_every_s=every_s), store


def _no_topic(name: str) -> NoReturn:
    raise DependencyMissing(f"topic {name}: a simulation publishes nothing")
