"""A simulated project: the real ticks over the simulated world, and what the controller and the workers log meanwhile, line by line."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from batch.logs import JsonLines
from batch.model.delivery import Delivery
from batch.model.exit import ExitReason
from batch.model.message import Task
from batch.worker.admission.failures import log_dead
from controller.model.reading import Reading, Unknown
from controller.observe.jobs import JobInfo
from controller.service.ticker import log_round
from controller.simulation.given.arrivals import Arrivals
from controller.simulation.given.delays import Lag, StartUp
from controller.simulation.given.durations import Fixed
from controller.simulation.given.scenario import Load, Scenario
from controller.simulation.running import world_of
from controller.simulation.world.seams import outside_of
from controller.simulation.world.taught import teach
from controller.simulation.world.world import World
from controller.tick.outside import Outside
from controller.tick.rounds import tick_lanes
from tests.deploy.monitoring.definitions import log_metrics, policies
from tests.deploy.monitoring.incidents import Incident, incidents
from tests.deploy.monitoring.series import Store

HOUR_S = 3600.0
Fault = Callable[[World, Outside], Outside]
DEAD_LETTER_AGE = "pubsub.googleapis.com/subscription/oldest_unacked_message_age"
DEAD_LETTERS = {"resource.type": "pubsub_subscription", "resource.subscription_id": "dead-letters"}
CONTROLLER = {"type": "cloud_run_revision", "labels": {"service_name": "fanout-controller", "revision_name": "fanout-controller-00001"}}
TICK_TAKES_S = 20.0
"""At most: entries are written when a tick ends, not on the minute."""


def every(seconds: float, count: int = 1, until_s: float = HOUR_S, from_s: float = 0.0) -> Arrivals:
    """`count` messages every so often."""
    number = int((until_s - from_s) / seconds)
    return tuple((from_s + seconds * one, count) for one in range(number))


def lane(arrivals: Arrivals, name: str = "default", message_s: float = 2.0, **more: Any) -> Load:
    """A lane that has drained before; annotations are given with underscores: `drain_within="5m"`."""
    given = {key: more.pop(key) for key in list(more) if key not in Load.__dataclass_fields__}
    annotations = {f"fanout/{key.replace('_', '-')}": value for key, value in given.items()}
    return Load(arrivals, Fixed(message_s), annotations, name=name, **more)


@dataclass(slots=True)
class Project:
    """`faults` change what ticks touch, or what happens in the world; between the seconds of `stopped` Scheduler calls nobody. The
    dead-letters job drains its subscription every hour until `drained_until_s`."""

    scenario: Scenario
    faults: Sequence[Fault] = ()
    stopped: tuple[float, float] = (0.0, 0.0)
    drained_until_s: float = 1e9
    entries: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    begin: float = 0.0
    end: float = 0.0

    def run(self) -> Project:
        """Let it happen; the entries are there afterwards, in the order of their times."""
        world = world_of(self.scenario)
        outside, _ = outside_of(world)
        for load in self.scenario.loads:
            if load.is_taught:
                teach(outside, load, self.scenario)
        for fault in self.faults:
            outside = fault(world, outside)
        rng = random.Random(self.scenario.seed)
        dead_counts = dict.fromkeys(world.lanes, 0)

        def tick() -> None:
            now = self.end = world.clock.now()
            for name, one in world.lanes.items():
                resource = {"type": "cloud_run_job", "labels": {"job_name": name}}
                for payload in _logged(partial(_die, one.count.dead_count - dead_counts[name]), lane=name):
                    self.entries.append((now, {"resource": resource, "jsonPayload": payload}))
                dead_counts[name] = one.count.dead_count
            if not self.stopped[0] <= now - world.start_at < self.stopped[1]:
                at = now + rng.uniform(0.0, TICK_TAKES_S)
                for payload in _logged(lambda: log_round(tick_lanes(outside), of_all=True)):
                    self.entries.append((at, {"resource": CONTROLLER, "jsonPayload": payload}))

        self.begin = world.start_at
        world.every(self.scenario.tick_every_s, tick)
        world.run()
        self.entries.sort(key=lambda one: one[0])
        return self

    def incidents(self, *, zeros: bool = False) -> list[Incident]:
        """What its entries open."""
        store = Store(log_metrics(), zeros=zeros)
        for at, entry in self.entries:
            store.take(entry, at)
        at = self.begin
        while at < self.end:
            since_s = at - self.begin
            drained_s = min(since_s, self.drained_until_s) // HOUR_S * HOUR_S
            store.add(DEAD_LETTER_AGE, DEAD_LETTERS, at, max(0.0, since_s - drained_s))
            at += 60.0
        return incidents(policies(), store, self.begin + 45.0, self.end)

    def opened(self, *, zeros: bool = False) -> list[str]:
        """The policies that opened incidents, each once."""
        return sorted({one.policy for one in self.incidents(zeros=zeros)})


def project(*loads: Load, hours: float = 2.0, **more: Any) -> Project:
    """A project that has run."""
    scenario = Scenario("here", loads, Lag(120.0, 60.0), StartUp(5.0, 20.0), hours * HOUR_S)
    return Project(scenario, **more).run()


def _die(count: int) -> None:
    """As a worker says it."""
    for number in range(count):
        log_dead("job", Task(f"t-{number}", "simulated", ""), Delivery("", "", b"", {}, 0.0), 1, "KeyError", "", None, on_record=True)


class _Lines(logging.Handler):
    """Each record as the JSON line that a process writes, read again as Cloud Logging does."""

    def __init__(self, lines: JsonLines) -> None:
        super().__init__()
        self._lines = lines
        self.payloads: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        payload = json.loads(self._lines.format(record))
        self.payloads.append({key: value for key, value in payload.items() if key not in ("severity", "time", "message")})


@contextmanager
def _alone(logger: logging.Logger, handler: logging.Handler) -> Iterator[None]:
    before = (logger.handlers[:], logger.propagate, logger.level)
    logger.handlers[:], logger.propagate = [handler], False
    logger.setLevel("INFO")
    try:
        yield
    finally:
        logger.handlers[:], logger.propagate = before[:2]
        logger.setLevel(before[2])


def _logged(call: Callable[[], object], **constant: Any) -> list[dict[str, Any]]:
    handler = _Lines(JsonLines(**constant))
    with _alone(logging.getLogger("fanout"), handler):
        call()
    return handler.payloads


# --- faults


def workers_end(reason: ExitReason, *, acked: int = 0, but: Callable[[int], bool] = lambda _: False) -> Fault:
    """Each worker ends so as soon as it has acknowledged that many messages; those of executions whose number is in `but` do not."""

    def fault(world: World, outside: Outside) -> Outside:
        def look() -> None:
            for one in world.lanes.values():
                for worker in list(one.live):
                    if worker.acked >= acked and not but(int(worker.execution.full_name.rpartition("-")[2])):
                        world.stop(one, worker, reason)

        world.every(1.0, look)
        return outside

    return fault


@dataclass(frozen=True, slots=True)
class _Jobs:
    """The runner, with a lane's job as somebody has changed it."""

    runner: Any
    changed: Callable[[JobInfo], JobInfo]

    def jobs(self) -> list[JobInfo]:
        return [self.changed(job) for job in self.runner.jobs()]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.runner, name)


def job_changed(at_s: float, changed: Callable[[JobInfo], JobInfo], until_s: float = 1e9, lane: str = "default") -> Fault:
    """The job of a lane, from then on, and until then."""

    def fault(world: World, outside: Outside) -> Outside:
        def one(job: JobInfo) -> JobInfo:
            is_meant = job.name == lane and at_s <= world.clock.now() - world.start_at < until_s
            return changed(job) if is_meant else job

        return replace(outside, runner=_Jobs(outside.runner, one))

    return fault


@dataclass(frozen=True, slots=True)
class _Blind:
    backlog: Any
    is_blind: Callable[[], bool]

    def read(self, subscriptions: Sequence[str]) -> dict[str, Reading]:
        found: dict[str, Reading] = self.backlog.read(subscriptions)
        return {name: Unknown("no answer") if self.is_blind() else one for name, one in found.items()}


def unreadable(from_s: float, until_s: float) -> Fault:
    """The gauge cannot be read between these seconds."""

    def fault(world: World, outside: Outside) -> Outside:
        return replace(outside, backlog=_Blind(outside.backlog, lambda: from_s <= world.clock.now() - world.start_at < until_s))

    return fault


def misspelt(job: JobInfo) -> JobInfo:
    (worker,) = job.containers
    return replace(job, containers=(replace(worker, env={**worker.env, "CONCURENCY": "4"}),))


def no_lane(job: JobInfo) -> JobInfo:
    return replace(job, annotations={**job.annotations, "fanout/max-workers": "none"})
