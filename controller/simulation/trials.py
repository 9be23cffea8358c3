"""Trials: a pattern as a scenario, what Fanout and rivals make of it, and how far each is from what could not have been cheaper."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from batch.prices import WORKER_FLOOR_S
from controller.simulation.bound import Terms, bound
from controller.simulation.given.arrivals import by_second
from controller.simulation.given.delays import Lag, StartUp
from controller.simulation.given.patterns import Pattern
from controller.simulation.given.scenario import Failures, Load, Scenario
from controller.simulation.running import Run, deadlines_of, lanes_of

ANNOTATIONS: Mapping[str, str] = {"fanout/drain-within": "10m", "fanout/max-workers": "500"}


@dataclass(frozen=True, slots=True)
class Setting:
    """How a pattern is run: the gauge's lag, the start-up of workers, annotations of every lane, tasks that a worker runs at a time."""

    lag: Lag
    start_up: StartUp
    annotations: Mapping[str, str] = field(default_factory=lambda: ANNOTATIONS)
    concurrency: int = 4
    task_timeout_s: float = 3600.0
    is_taught: bool = True
    rate_scale: float = 1.0
    horizon_s: float | None = None


def scenario_of(pattern: Pattern, setting: Setting, seed: int) -> Scenario:
    """The scenario of a pattern; lanes beside it share nothing but the world."""
    horizon_s = setting.horizon_s or pattern.horizon_s
    rng = random.Random(seed)
    loads = tuple(_load(one, setting, rng, horizon_s) for one in (pattern, *pattern.beside))
    return Scenario(pattern.name, loads, setting.lag, setting.start_up, horizon_s, seed)


def _load(pattern: Pattern, setting: Setting, rng: random.Random, horizon_s: float) -> Load:
    return Load(
        pattern.arrivals(rng, horizon_s, setting.rate_scale),
        pattern.durations,
        dict(setting.annotations),
        name=pattern.name,
        concurrency=setting.concurrency,
        task_timeout_s=setting.task_timeout_s,
        failures=Failures(pattern.failing_share),
        is_taught=setting.is_taught,
    )


def least_cost_s(run: Run, start_up_s: float, floor_s: float = WORKER_FLOOR_S) -> float:
    """Worker-seconds that nobody could have done this run's messages for, each within its lane's `drain-within` of when it could first be
    taken; `start_up_s` is the shortest start-up."""
    lanes, deadlines = lanes_of(run.scenario), deadlines_of(run.scenario)
    total_s = 0.0
    for name, count in run.counts.items():
        available = sorted(run.availabilities[name])
        run_count = sum(many for _, many in available)
        each_s = count.work_s / run_count / lanes[name].concurrency if run_count else 0.0
        terms = Terms(each_s, each_s * lanes[name].concurrency, start_up_s, floor_s, deadlines[name])
        total_s += bound(by_second(available), terms).seconds
    return total_s
