"""A rival drives the same world: it polls what it could see, and launches workers that do as its own do."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from controller.simulation.given.scenario import Scenario
from controller.simulation.rivals import CpuPool, Rival, Seen, held
from controller.simulation.running import Run, ended, started, world_of
from controller.simulation.world.seams import reading_of
from controller.simulation.world.world import LaneWorld, World

RATE_OVER_S = 120.0
"""What a rate of arrivals is taken over."""


@dataclass(slots=True)
class _Poller:
    """One rival on one lane."""

    world: World
    lane: LaneWorld
    rival: Rival
    arrived_count: int = 0
    wanted: list[tuple[float, int]] = field(default_factory=list)

    def poll(self) -> None:
        seen = self._seen()
        self.arrived_count = self.lane.queue.arrived_count
        count = self.rival.workers(seen)
        if count:
            share = self.rival.share
            backlog = None if share is None else share * count
            self.world.launch(self.lane, count, {}, backlog=backlog, limit=backlog and share, stays=self.rival.is_pool)
        if isinstance(self.rival, CpuPool):
            self._shrink(self.rival, seen)

    def _shrink(self, pool: CpuPool, seen: Seen) -> None:
        self.wanted.append((seen.now_s, pool.wants(seen)))
        del self.wanted[: -int(pool.window_s / pool.poll_s) - 2]
        surplus_count = seen.running - held(self.wanted, seen.now_s, pool.window_s)
        idle_first = sorted(self.lane.live, key=lambda worker: len(worker.busy)) if surplus_count > 0 else []
        for worker in idle_first[: max(0, surplus_count)]:
            self.world.stop(self.lane, worker)

    def _seen(self) -> Seen:
        lane, now, start_at = self.lane, self.world.clock.now(), self.world.start_at
        visible = next((one for one in reversed(lane.samples) if one.visible_at <= now), None)
        live, alive_count = list(lane.live), lane.alive_count
        threads = sum(worker.threads for worker in live)
        age_s = 0.0 if visible is None or visible.oldest_at is None else visible.at - visible.oldest_at
        return Seen(
            now_s=now - start_at,
            reading_count=getattr(reading_of(lane, now), "undelivered_count", None),
            sampled_at_s=0.0 if visible is None else visible.at - start_at,
            oldest_age_s=age_s,
            running=alive_count,
            pending=alive_count - len(live),
            arrivals_per_s=self._arrivals_per_s(now),
            busy_share=sum(len(worker.busy) for worker in live) / threads if threads else 0.0,
            executions_running=sum(one.completed_at is None for one in lane.executions[-200:]),
            arrived_count=lane.queue.arrived_count - self.arrived_count,
        )

    def _arrivals_per_s(self, now: float) -> float:
        visible = [one for one in self.lane.samples[-12:] if one.visible_at <= now]
        if not visible:
            return 0.0
        before = next((one for one in reversed(visible) if one.at <= visible[-1].at - RATE_OVER_S), visible[0])
        seconds = visible[-1].at - before.at
        return (visible[-1].arrived_count - before.arrived_count) / seconds if seconds else 0.0


def run_rival(scenario: Scenario, rival: Rival) -> Run:
    """The rival sizes each lane of the scenario alone. Raises SettingsError."""
    world = world_of(replace(scenario, idle_tail_s=rival.idle_s))
    run = started(world, rival.name)
    for lane in world.lanes.values():
        world.every(rival.poll_s, _Poller(world, lane, rival).poll)
    return ended(world, run)
