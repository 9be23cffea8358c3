"""One simulated run: the real ticks, or a rival, drive a world; what came of it is counted beside what could not have been cheaper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from controller.decide.decision import Decision, Kind
from controller.lanes.lanes import lane_of
from controller.model.lane import Lane
from controller.simulation.given.scenario import Scenario
from controller.simulation.world.seams import job_of, outside_of
from controller.simulation.world.taught import teach
from controller.simulation.world.world import Count, LaneWorld, World
from controller.tick.rounds import tick_lanes

EVERY_S = 60.0
"""How often the course of a run is noted."""


@dataclass(frozen=True, slots=True)
class Point:
    """A lane at one moment, `at_s` after the start: what is not acknowledged, workers that are paid for, worker-seconds paid so far."""

    at_s: float
    undelivered_count: int
    worker_count: int
    cost_s: float


@dataclass(slots=True)
class Run:
    """One run of a scenario. `counts` and `courses` by lane; `availabilities` are what a bound is computed from; `decisions` are the
    controller's that launched, or changed what it does."""

    scenario: Scenario
    who: str
    counts: Mapping[str, Count] = field(default_factory=dict)
    courses: dict[str, list[Point]] = field(default_factory=dict)
    availabilities: Mapping[str, list[tuple[float, int]]] = field(default_factory=dict)
    decisions: list[Decision] = field(default_factory=list)

    @property
    def cost_s(self) -> float:
        """Worker-seconds that are paid for, of all lanes."""
        return sum(one.cost_s for one in self.counts.values())

    @property
    def in_time_share(self) -> float:
        """Of all messages, those that were done within their lane's `drain-within`."""
        return in_time_share(*(sum(getattr(one, name) for one in self.counts.values()) for name in ("done_count", "late_count")))

    @property
    def waste_count(self) -> int:
        """Workers that found nothing to do."""
        return sum(one.waste_count for one in self.counts.values())


def in_time_share(done_count: int, late_count: int) -> float:
    """The share of messages that were done in time. What was never done is late."""
    return 1 - late_count / max(done_count, late_count, 1)


def lanes_of(scenario: Scenario) -> dict[str, Lane]:
    """The lanes of a scenario, by name. Raises SettingsError for annotations that are none."""
    return {load.name: lane_of(job_of(load, f"projects/simulated/locations/simulated/jobs/{load.name}")) for load in scenario.loads}


def world_of(scenario: Scenario) -> World:
    """The world of a scenario, before anything has happened. Raises SettingsError."""
    return World(scenario, deadlines_of(scenario))


def deadlines_of(scenario: Scenario) -> dict[str, float]:
    """By lane: within how many seconds a message is to be done. Raises SettingsError."""
    lanes = lanes_of(scenario)
    return {load.name: load.within_s or lanes[load.name].policy.drain_within_s for load in scenario.loads}


def run_fanout(scenario: Scenario) -> Run:
    """The real ticks drive it. Raises SettingsError."""
    world = world_of(scenario)
    outside, _ = outside_of(world)
    for load in scenario.loads:
        if load.is_taught:
            teach(outside, load, scenario)
    run = started(world, "fanout")

    def tick() -> None:
        for result in tick_lanes(outside).results:
            last = run.decisions[-1] if run.decisions else None
            if result.decision.kind is Kind.LAUNCH or last is None or last.reason != result.decision.reason:
                run.decisions.append(result.decision)

    world.every(scenario.tick_every_s, tick)
    return ended(world, run)


def started(world: World, who: str) -> Run:
    """A run that notes the course of each lane."""
    run = Run(world.scenario, who, courses={name: [] for name in world.lanes})

    def note() -> None:
        now = world.clock.now()
        for name, lane in world.lanes.items():
            run.courses[name].append(_point(lane, now, world.start_at))

    world.every(EVERY_S, note)
    return run


def ended(world: World, run: Run) -> Run:
    """Let it happen."""
    world.run()
    run.counts = {name: lane.count for name, lane in world.lanes.items()}
    run.availabilities = {name: lane.availabilities for name, lane in world.lanes.items()}
    return run


def _point(lane: LaneWorld, now: float, start_at: float) -> Point:
    running_s = sum(now - lane.paid_from(worker.execution, now) for worker in lane.live)
    return Point(now - start_at, lane.queue.unacked_count, lane.alive_count, lane.count.cost_s + running_s)
