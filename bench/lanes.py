"""Many lanes in memory, with every request counted as the real services count them: page by page, optionally each as slow as a network.
Then what a tick costs in CPU, per lane, without the network.

Usage: python -m bench.lanes [--latency-ms 20] [--workers 1000] [--history 1000]
       python -m bench.lanes --scale        # what a simulated week of a lane costs in CPU, and one of a huge backlog; minutes
"""

from __future__ import annotations

import argparse
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from batch.model.errors import DependencyMissing
from batch.model.names import progress_folder, progress_object
from batch.model.progress import Progress, to_metadata
from batch.services.ports import ObjectInfo
from batch.testing import ManualClock, MemoryBroker, MemoryObjectStore
from controller.decide.budget import Quotas
from controller.model.execution import ExecutionInfo, WorkerInfo
from controller.model.reading import Reading, Value
from controller.observe.containers import Container
from controller.observe.google_jobs import PAGE, WORKERS_PAGE
from controller.observe.jobs import LANE_LABEL, JobInfo, RunRequest
from controller.observe.sources import PAGE as SUBSCRIPTIONS_PAGE
from controller.observe.sources import SubscriptionFacts
from controller.simulation.given.delays import Lag, StartUp
from controller.simulation.given.durations import Fixed
from controller.simulation.given.patterns import DAY_S, PATTERNS, Pattern, batch, diurnal
from controller.simulation.running import run_fanout
from controller.simulation.trials import Setting, scenario_of
from controller.tick.outside import Outside
from controller.tick.rounds import tick_lanes

OBJECTS_PAGE = 1000
PARENT = "projects/p/locations/r/jobs"


@dataclass
class Calls:
    """How many requests of each kind were sent; each takes `latency_s`."""

    latency_s: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, name: str, count: int = 1) -> None:
        with self._lock:
            self.counts[name] += count
        if self.latency_s:
            time.sleep(self.latency_s * count)

    def taken(self) -> dict[str, int]:
        """What was counted since the last time."""
        with self._lock:
            found, self.counts = dict(sorted(self.counts.items())), Counter()
            return found


class CountingStore(MemoryObjectStore):
    """Progress is kept by execution, so that a listing costs what is in it."""

    def __init__(self, calls: Calls, clock: ManualClock) -> None:
        super().__init__(clock=clock)
        self.calls = calls
        self._folders: dict[str, list[ObjectInfo]] = {}

    def add_progress(self, execution: str, progress: Sequence[Progress]) -> None:
        infos = [ObjectInfo(progress_object(execution, index, 0), 1, 0, metadata=to_metadata(one)) for index, one in enumerate(progress)]
        self._folders[progress_folder(execution)] = sorted(infos, key=lambda info: info.name)

    def list(self, prefix: str, start: str = "") -> Iterator[ObjectInfo]:
        found = self._folders.get(prefix)
        kept = [one for one in found if one.name >= start] if found is not None else None
        listed = iter(kept) if kept is not None else super().list(prefix, start) if prefix.startswith("delayed/") else iter(())
        return self._paged(listed)

    def _paged(self, listed: Iterator[ObjectInfo]) -> Iterator[ObjectInfo]:
        self.calls("objects.list")
        for number, info in enumerate(listed):
            if number and not number % OBJECTS_PAGE:
                self.calls("objects.list")
            yield info

    def read_with_info(self, name: str) -> tuple[bytes, ObjectInfo]:
        self.calls("objects.get")
        return super().read_with_info(name)

    def write(self, name: str, data: bytes, **options: object) -> ObjectInfo:
        self.calls("objects.insert")
        return super().write(name, data, **options)  # type: ignore[arg-type]


class CountingRunner:
    """Cloud Run's jobs and executions."""

    def __init__(self, calls: Calls, clock: ManualClock) -> None:
        self._calls = calls
        self._clock = clock
        self.lanes: dict[str, JobInfo] = {}
        self.by_job: dict[str, list[ExecutionInfo]] = {}

    def add_lane(self, name: str) -> str:
        """The full name of its job."""
        annotations = {"fanout/subscription": f"{name}-sub", "fanout/topic": name, "fanout/max-workers": "100000"}
        env = {"SUBSCRIPTION_NAME": f"{name}-sub", "TOPIC_NAME": name, "BUCKET_NAME": "bucket", "CONCURRENCY": "4"}
        container = Container(image="image", command=("python", "-m", "batch"), env=env)
        job = JobInfo(f"{PARENT}/{name}", labels={LANE_LABEL: name}, annotations=annotations, containers=(container,))
        self.lanes[job.full_name] = job
        self.by_job[job.full_name] = []
        return job.full_name

    def add(
        self, job: str, task_count: int, created_at: float, *, completed_at: float | None = None, env: Mapping[str, str] | None = None
    ) -> ExecutionInfo:
        number = len(self.by_job[job])
        done = task_count if completed_at is not None else 0
        info = ExecutionInfo(
            f"{job}/executions/{job.rsplit('/', 1)[-1]}-{number:05d}",
            task_count,
            created_at,
            completed_at=completed_at,
            running_count=task_count - done,
            succeeded_count=done,
            env=env or {},
        )
        self.by_job[job].append(info)
        return info

    def jobs(self) -> list[JobInfo]:
        self._calls("jobs.list", max(1, -(-len(self.lanes) // PAGE)))
        return [self._told(job) for job in self.lanes.values()]

    def _told(self, job: JobInfo) -> JobInfo:
        found = self.by_job[job.full_name]
        return replace(job, execution_count=len(found), latest_execution=found[-1].name if found else "")

    def executions(self, job: str) -> Iterator[ExecutionInfo]:
        for number, info in enumerate(reversed(self.by_job[job])):
            if not number % PAGE:
                self._calls("executions.list")
            yield info

    def execution(self, full_name: str) -> ExecutionInfo | None:
        self._calls("executions.get")
        job = full_name.rsplit("/executions/", 1)[0]
        return next((info for info in reversed(self.by_job[job]) if info.full_name == full_name), None)

    def workers(self, execution: str) -> Sequence[WorkerInfo]:
        """Nobody has ended; it costs its pages all the same."""
        (info,) = [one for one in self.by_job[execution.rsplit("/executions/", 1)[0]] if one.full_name == execution]
        self._calls("tasks.list", -(-info.task_count // WORKERS_PAGE))
        return ()

    def run(self, job: str, request: RunRequest) -> ExecutionInfo:
        self._calls("jobs.run")
        return self.add(job, request.task_count, self._clock.now(), env=dict(request.env))

    def set_annotation(self, job: str, key: str, value: str) -> None:
        self._calls("jobs.get")
        self._calls("jobs.patch")
        self.lanes[job] = replace(self.lanes[job], annotations={**self.lanes[job].annotations, key: value})


class CountingBacklog:
    """One call for each metric, whatever the number of lanes."""

    def __init__(self, calls: Calls, clock: ManualClock) -> None:
        self._calls = calls
        self._clock = clock
        self.counts: dict[str, int] = {}

    def read(self, subscriptions: Sequence[str]) -> dict[str, Reading]:
        self._calls("timeSeries.list", 2)
        return {name: Value(self.counts.get(name, 0), self._clock.now() - 60, 5.0) for name in subscriptions}


class CountingSources:
    """What the lanes drain, as it should be: one listing for all of them."""

    def __init__(self, calls: Calls, runner: CountingRunner) -> None:
        self._calls, self._runner = calls, runner

    def subscriptions(self) -> Mapping[str, SubscriptionFacts]:
        given = [job.annotations for job in self._runner.lanes.values()]
        self._calls("subscriptions.list", max(1, -(-len(given) // SUBSCRIPTIONS_PAGE)))
        return {one["fanout/subscription"]: SubscriptionFacts(one["fanout/topic"], 60, 7 * 86400.0) for one in given}

    def subscription(self, name: str) -> SubscriptionFacts:
        raise DependencyMissing(name)

    def subscriptions_of(self, topic: str) -> Sequence[str]:
        raise DependencyMissing(topic)


class Project:
    """Lanes, each with executions of long ago, none older than a day: the worst that a first listing meets."""

    def __init__(self, lanes: int, history: int, latency_s: float = 0.0) -> None:
        self.clock = ManualClock()
        self.calls = Calls(latency_s)
        self.store = CountingStore(self.calls, self.clock)
        self.runner = CountingRunner(self.calls, self.clock)
        self.backlog = CountingBacklog(self.calls, self.clock)
        broker = MemoryBroker(self.clock)
        sources = CountingSources(self.calls, self.runner)
        self.outside = Outside(self.store, self.runner, self.backlog, self.clock, random.Random(1), broker.topic, sources=sources)
        now = self.clock.now()
        self.jobs = [self.runner.add_lane(f"lane-{number:03d}") for number in range(lanes)]
        for job in self.jobs:
            for number in range(history):
                created_at = now - 80_000 + number * 70_000 / history
                self.runner.add(job, 1, created_at, completed_at=created_at + 30)

    def backlog_is(self, job: str, count: int) -> None:
        self.backlog.counts[f"{job.rsplit('/', 1)[-1]}-sub"] = count

    def run_workers(self, job: str, workers: int) -> None:
        """A running execution whose workers have all told of themselves."""
        now = self.clock.now()
        info = self.runner.add(job, workers, now - 120, env={"BACKLOG": str(workers * 100)})
        marks = tuple((int(now - 120 + 15 * number), 4 * number) for number in range(8))
        self.store.add_progress(info.name, [Progress(100, now - 115, now - 5, taken=36, acked=30, marks=marks)] * workers)

    def end_workers(self, job: str) -> None:
        """What runs has ended, each worker with 200 messages of 10 s, long enough ago that every reading shows it."""
        now, found = self.clock.now(), self.runner.by_job[job]
        for at, info in enumerate(found):
            if info.live:
                count = info.task_count
                found[at] = replace(info, completed_at=now - 99, running_count=0, succeeded_count=count)
                done = {"taken": 200, "acked": 200, "succeeded": 200, "handler_s": 2000.0, "exit_reason": "share_done"}
                one = Progress(200, info.created_at, now - 100, last_acked_at=now - 101, **done)  # type: ignore[arg-type]
                self.store.add_progress(info.name, [one] * count)

    def tick(self) -> tuple[dict[str, int], float]:
        """The requests of one round, and its seconds."""
        self.calls.taken()
        begin = time.monotonic()
        tick_lanes(self.outside)
        return self.calls.taken(), time.monotonic() - begin


def cpu_ms(lanes: int, what: str, ticks: int) -> float:
    """Milliseconds of CPU that a tick takes for each of these lanes, in the mean of `ticks` a minute apart. `what`: "empty", "assigned" (a
    backlog that 3 workers have), "50 workers" (have it, and 100 others were learned from) or "launching" (each lane, at every tick)."""
    project, taken_s = Project(lanes, 50), 0.0
    project.outside = replace(project.outside, quotas=Quotas(run_calls_per_minute=1000))
    launched, warm_up = -lanes, 9 if what == "50 workers" else 3
    for number in range(ticks + warm_up):
        project.clock.advance(60)
        for job in project.jobs:
            if what == "assigned" and not number:
                project.run_workers(job, 3)
            elif what == "50 workers" and number < warm_up:
                project.end_workers(job) if number % 2 else project.run_workers(job, 50)
            elif what == "launching":
                project.end_workers(job)
            project.backlog_is(job, {"empty": 0, "launching": 600}.get(what, 200))
        begin = time.process_time()
        counts, _ = project.tick()
        # The first ticks see the old executions, and the lanes' jobs, for the first time.
        taken_s += time.process_time() - begin if number >= warm_up else 0.0
        launched += counts.get("jobs.run", 0)
    if (what == "launching") != (launched >= lanes * ticks):
        raise RuntimeError(f"{launched} launches in {ticks} ticks of {lanes} lanes that are {what}")
    return 1000 * taken_s / lanes / ticks


def simulated(pattern: Pattern, horizon_s: float, drain_within: str = "10m", max_workers: int = 500, concurrency: int = 4) -> str:
    """What a simulated run cost, in words: seconds of CPU, and what was done in it."""
    annotations = {"fanout/drain-within": drain_within, "fanout/max-workers": str(max_workers)}
    setting = Setting(Lag(120.0), StartUp(4.0, 12.0), annotations, concurrency=concurrency, horizon_s=horizon_s)
    scenario, begin = scenario_of(pattern, setting, 1), time.process_time()
    run = run_fanout(scenario)
    taken_s, count = time.process_time() - begin, run.counts[pattern.name]
    ticks = f"{len(run.courses[pattern.name])} ticks, {count.worker_count} workers, {count.done_count} messages"
    return f"{pattern.name:12} {taken_s:6.1f} s of CPU: {ticks}, {100 * run.in_time_share:.1f} % in time"


def scale() -> None:
    """Print what a week of a usual lane costs to simulate, and 100,000,000 messages on up to 10,000 workers."""
    usual = PATTERNS["diurnal"]
    for pattern in (PATTERNS["trickle"], replace(usual, arrivals=diurnal(0.2))):
        print(f"a week of {simulated(pattern, 7 * DAY_S)}", flush=True)
    for message_s, drain_within in ((0.05, "10m"), (0.33, "10m"), (0.33, "30m")):
        huge = Pattern("huge", batch(100_000_000), Fixed(message_s))
        print(f"{message_s:g} s each, drained in {drain_within}: {simulated(huge, 3600.0, drain_within, 10_000, 8)}", flush=True)


def main() -> None:
    """Print requests and seconds of rounds over 1, 10 and 100 lanes, then the CPU of a tick."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency-ms", type=float, default=20.0)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--history", type=int, default=1000)
    parser.add_argument("--scale", action="store_true", help="only what simulations cost")
    options = parser.parse_args()
    if options.scale:
        scale()
        return
    print(f"{options.history} old executions a lane, {options.workers} workers a running execution, {options.latency_ms:g} ms a request")
    for lanes in (1, 10, 100):
        project = Project(lanes, options.history, options.latency_ms / 1000)
        for what in ("first tick ever", "nothing new", "one lane launches", "that lane's next", "all lanes run", "all lanes still run"):
            if what == "one lane launches":
                project.backlog_is(project.jobs[0], 250)
            elif what == "all lanes run":
                for job in project.jobs:
                    project.run_workers(job, options.workers)
                    project.backlog_is(job, 50 * options.workers)
            project.clock.advance(60)
            counts, seconds = project.tick()
            told = ", ".join(f"{name} {count}" for name, count in counts.items())
            print(f"{lanes:4} lanes, {what:20} {sum(counts.values()):5} requests, {seconds:6.2f} s: {told}")
    for lanes, ticks in ((1, 500), (100, 20)):
        for what in ("empty", "assigned", "50 workers", "launching"):
            print(f"{lanes:4} lanes, {what:20} {cpu_ms(lanes, what, ticks):6.2f} ms of CPU a lane and tick")


if __name__ == "__main__":
    main()
