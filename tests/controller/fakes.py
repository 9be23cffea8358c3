"""In-memory twins of the controller's seams, scripted by a test."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from batch.model.clock import Clock
from batch.model.errors import DependencyMissing
from batch.model.names import progress_object
from batch.model.progress import Progress, to_metadata
from batch.testing import ManualClock, MemoryBroker, MemoryObjectStore
from controller.act.history import newest
from controller.model.execution import ExecutionInfo, WorkerInfo
from controller.model.lane import Lane, Policy
from controller.model.reading import Idle, Reading, Value
from controller.observe.containers import Container
from controller.observe.jobs import LANE_LABEL, JobInfo, RunRequest
from controller.observe.sources import SubscriptionFacts
from controller.tick.outside import Outside
from controller.tick.results import TickResult
from controller.tick.rounds import ticked

JOB = "projects/p/locations/r/jobs/default"
ANNOTATIONS = {
    "fanout/subscription": "tasks-sub",
    "fanout/topic": "tasks",
    "fanout/max-messages": "100",
    "fanout/max-workers": "1000",
    "fanout/max-wait": "0s",
}
"""Nothing waits, unless a test says so."""


def job(name: str = "default", **annotations: str) -> JobInfo:
    """A lane's job; annotations are given with underscores: `max_workers="5"`."""
    given = {f"fanout/{key.replace('_', '-')}": value for key, value in annotations.items()}
    own = {**ANNOTATIONS, "fanout/subscription": "tasks-sub" if name == "default" else f"{name}-sub", **given}
    return JobInfo(f"projects/p/locations/r/jobs/{name}", labels={LANE_LABEL: name}, annotations=own, containers=(worker(own),))


def worker(annotations: Mapping[str, str], **changes: str) -> Container:
    """The container of a lane's job, as its annotations ask for it; other settings are given by their names."""
    env = {
        "GOOGLE_CLOUD_PROJECT": "p",
        "SUBSCRIPTION_NAME": annotations.get("fanout/subscription", ""),
        "TOPIC_NAME": annotations.get("fanout/topic", ""),
        "BUCKET_NAME": "bucket",
        "CONCURRENCY": "4",
        **changes,
    }
    return Container(image="image", command=("python", "-m", "batch"), env=env)


def lane(**changes: object) -> Lane:
    """The lane `default`; the policy's own fields may be given beside the lane's."""
    policy = {key: value for key, value in changes.items() if key in Policy.__dataclass_fields__}
    others = {key: value for key, value in changes.items() if key not in policy}
    usual = {"max_messages": 100, "max_workers": 1000, "max_wait_s": 0.0}
    base = Lane("default", JOB, "tasks-sub", "tasks", Policy(**{**usual, **policy}))  # type: ignore[arg-type]
    return replace(base, **others)  # type: ignore[arg-type]


def progress(share: int = 100, started_at: float = 0.0, **changes: object) -> Progress:
    values: dict[str, object] = {"updated_at": started_at, **changes}
    return Progress(share=share, started_at=started_at, **values)  # type: ignore[arg-type]


def history(store: MemoryObjectStore, name: str = "default") -> list[Mapping[str, Any]]:
    """The decisions of a lane's history, the newest first."""
    return newest(store, name, 100, 1e10)


def write_progress(store: MemoryObjectStore, execution: str, index: int, one: Progress, retry: int = 0) -> None:
    store.write(progress_object(execution, index, retry), b"", metadata=to_metadata(one))


@dataclass
class FakeBacklog:
    """Gives the reading it was told, or the one of its subscription."""

    reading: Reading = field(default_factory=Idle)
    by_name: dict[str, Reading] = field(default_factory=dict)
    calls: list[list[str]] = field(default_factory=list)

    def read(self, subscriptions: Sequence[str]) -> dict[str, Reading]:
        self.calls.append(list(subscriptions))
        return {name: self.by_name.get(name, self.reading) for name in subscriptions}


class FakeRunner:
    """Executions in memory. `run_errors` and `list_errors` are consumed in order; `effect_before_error` makes a failed run take effect."""

    def __init__(self, clock: Clock, jobs: Sequence[JobInfo] = ()) -> None:
        self._clock = clock
        self._jobs = list(jobs) or [job()]
        self.all: dict[str, ExecutionInfo] = {}
        self.requests: list[tuple[str, RunRequest]] = []
        self.run_errors: list[Exception | None] = []
        self.list_errors: list[Exception | None] = []
        self.effect_before_error = False
        self.hidden: set[str] = set()
        self.listing_count = 0
        self.known_workers: dict[str, dict[int, WorkerInfo]] = {}
        self.workers_listed: list[str] = []
        self.annotated: dict[str, dict[str, str]] = {}

    def jobs(self) -> list[JobInfo]:
        """Each with its execution count and its newest execution, those that no list shows among them."""
        return [self._counted(one) for one in self._jobs]

    def _counted(self, job: JobInfo) -> JobInfo:
        found = [one for one in self.all.values() if job_of(one) == job.full_name]
        newest = max(found, key=lambda one: (one.created_at, one.name), default=None)
        latest = "" if newest is None else newest.name
        annotations = {**job.annotations, **self.annotated.get(job.full_name, {})}
        return replace(job, execution_count=len(found), latest_execution=latest, annotations=annotations)

    def set_annotation(self, job: str, key: str, value: str) -> None:
        self.annotated.setdefault(job, {})[key] = value

    def executions(self, job: str) -> Iterator[ExecutionInfo]:
        self.listing_count += 1
        error = self.list_errors.pop(0) if self.list_errors else None
        if error is not None:
            raise error
        found = [one for one in self.all.values() if job_of(one) == job and one.name not in self.hidden]
        return iter(sorted(found, key=lambda one: (one.created_at, one.name), reverse=True))

    def execution(self, full_name: str) -> ExecutionInfo | None:
        return next((one for one in self.all.values() if one.full_name == full_name), None)

    def workers(self, execution: str) -> Sequence[WorkerInfo]:
        name = execution.rsplit("/", 1)[-1]
        self.workers_listed.append(name)
        known = self.known_workers.get(name, {})
        return [known.get(index, WorkerInfo(index)) for index in range(self.all[name].task_count)]

    def run(self, job: str, request: RunRequest) -> ExecutionInfo:
        self.requests.append((job, request))
        error = self.run_errors.pop(0) if self.run_errors else None
        if error is not None and not self.effect_before_error:
            raise error
        info = self.add(request.task_count, request.env, job=job)
        if error is not None:
            raise error
        return info

    def add(self, task_count: int, env: Mapping[str, str], *, job: str = JOB, created_at: float | None = None) -> ExecutionInfo:
        """An execution, also one that a person started."""
        name = f"{job.rsplit('/', 1)[-1]}-{len(self.all):05d}"
        created = self._clock.now() if created_at is None else created_at
        info = ExecutionInfo(f"{job}/executions/{name}", task_count, created, running_count=task_count, env=dict(env))
        self.all[name] = info
        return info

    def fail(self, name: str, completed_at: float) -> None:
        """Every worker failed, at its retries too."""
        info = self.all[name]
        self.all[name] = replace(info, completed_at=completed_at, failed_count=info.task_count, running_count=0)

    def worker_failed(self, name: str, index: int, ended_at: float) -> None:
        """One worker failed for good while others go on."""
        info = self.all[name]
        self.all[name] = replace(info, failed_count=info.failed_count + 1, running_count=info.running_count - 1)
        self.known_workers.setdefault(name, {})[index] = WorkerInfo(index, completed_at=ended_at)

    def complete(self, name: str, completed_at: float) -> None:
        info = self.all[name]
        self.all[name] = replace(info, completed_at=completed_at, succeeded_count=info.task_count, running_count=0)


class FakeSources:
    """Subscriptions in memory: those that the lanes of these jobs want, as they should be, until a test says otherwise. `errors` by name of
    the call are raised; `calls` counts what was asked."""

    def __init__(self, jobs: Sequence[JobInfo] = ()) -> None:
        self.found: dict[str, SubscriptionFacts] = {}
        for one in jobs:
            name, topic = one.annotations.get("fanout/subscription", ""), one.annotations.get("fanout/topic", "")
            self.found[name] = SubscriptionFacts(topic, 60, 7 * 86400.0)
        self.topics = {one.topic for one in self.found.values()}
        self.hidden: set[str] = set()
        self.errors: dict[str, Exception] = {}
        self.calls: list[str] = []

    def subscriptions(self) -> Mapping[str, SubscriptionFacts]:
        self._called("subscriptions")
        return {name: one for name, one in self.found.items() if name not in self.hidden}

    def subscription(self, name: str) -> SubscriptionFacts:
        self._called("subscription")
        if name not in self.found:
            raise DependencyMissing(f"there is no {name}")
        return self.found[name]

    def subscriptions_of(self, topic: str) -> Sequence[str]:
        self._called("subscriptions_of")
        if topic not in self.topics:
            raise DependencyMissing(f"there is no {topic}")
        return [f"projects/p/subscriptions/{name}" for name, one in self.found.items() if one.topic == topic and not one.is_detached]

    def change(self, name: str, **changes: Any) -> None:
        """Somebody else has changed it."""
        self.found[name] = replace(self.found[name], **changes)

    def _called(self, call: str) -> None:
        self.calls.append(call)
        if call in self.errors:
            raise self.errors[call]


@dataclass
class World:
    """A lane with everything around it."""

    clock: ManualClock
    store: MemoryObjectStore
    runner: FakeRunner
    backlog: FakeBacklog
    outside: Outside
    broker: MemoryBroker
    sources: FakeSources

    def backlog_is(self, count: int, age_s: float = 0.0) -> None:
        self.backlog.reading = Value(count, self.clock.now() - age_s, 12.0)


def world(jobs: Sequence[JobInfo] = ()) -> World:
    clock = ManualClock()
    store = MemoryObjectStore(clock=clock)
    runner = FakeRunner(clock, jobs)
    backlog = FakeBacklog()
    broker = MemoryBroker(clock)
    sources = FakeSources(runner.jobs())
    outside = Outside(store, runner, backlog, clock, random.Random(7), broker.topic, sources=sources)
    return World(clock, store, runner, backlog, outside, broker, sources)


def job_of(info: ExecutionInfo) -> str:
    """The full name of an execution's job."""
    return info.full_name.rsplit("/executions/", 1)[0]


def tick(lane: Lane, outside: Outside, *, reading: Reading | None = None, dry_run: bool = False) -> TickResult:
    """Tick one lane alone, as it is given; it shares no budget with others."""
    (job,) = (one for one in outside.runner.jobs() if one.full_name == lane.job)
    if reading is None:
        reading = outside.backlog.read([lane.subscription])[lane.subscription]
    alone = replace(outside, quotas=replace(outside.quotas, worker_budget=None, cpu_quota_vcpu=None))
    (result,) = ticked(alone, [(lane, job, reading)], {lane.name}, dry_run=dry_run)
    return result
