"""Alerts are quiet on a normal day, and each opens in its own scenario, and only there: the log of simulated ticks through the files."""

from __future__ import annotations

from dataclasses import replace

import pytest

from batch.model.exit import ExitReason
from controller.observe.jobs import JobInfo
from controller.simulation.given.patterns import PATTERNS
from controller.simulation.given.scenario import Failures
from tests.deploy.monitoring.definitions import policies
from tests.deploy.monitoring.incidents import Incident
from tests.deploy.monitoring.simulated import HOUR_S, Project, every, job_changed, lane, project, unreadable, workers_end

QUIET = lane((), name="quiet")


def one(found: list[Incident], begin: float) -> tuple[str, float, float]:
    """Policy, and when its only incident opened and closed, in minutes after `begin`; -1: it is open."""
    (only,) = found
    return only.policy, (only.opened_at - begin) / 60, -1.0 if only.closed_at is None else (only.closed_at - begin) / 60


def misspelt(job: JobInfo) -> JobInfo:
    (worker,) = job.containers
    return replace(job, containers=(replace(worker, env={**worker.env, "CONCURENCY": "4"}),))


def no_lane(job: JobInfo) -> JobInfo:
    return replace(job, annotations={**job.annotations, "fanout/max-workers": "none"})


# --- normal days


@pytest.mark.parametrize("zeros", [False, True], ids=["gaps", "zeros"])
def test_a_normal_day_opens_nothing(zeros: bool) -> None:
    day = project(
        lane(every(3600, 3000, 3 * HOUR_S, from_s=600)),
        lane(every(45, until_s=3 * HOUR_S), name="trickle", drain_within="5m"),
        lane(every(1200, 200, 3 * HOUR_S), name="retried", failures=Failures(0.1, 300.0)),
        lane(every(60, 5, 3 * HOUR_S), name="paused", paused="true"),
        QUIET,
        hours=3.0,
    )
    assert day.opened(zeros=zeros) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["steady", "diurnal", "trickle", "two-lanes", "poison", "hourly"])
def test_the_days_of_the_benchmark_open_nothing(name: str) -> None:
    import random

    pattern = PATTERNS[name]
    loads = [
        replace(
            lane(one.arrivals(random.Random(7), one.horizon_s, 1.0), name=one.name, drain_within="10m"),
            durations=one.durations,
            failures=Failures(one.failing_share),
        )
        for one in (pattern, *pattern.beside)
    ]
    assert project(*loads, QUIET, hours=pattern.horizon_s / HOUR_S).opened() == []


def test_a_short_fault_wakes_nobody() -> None:
    """Four minutes without a tick, without a reading, with a job that breaks a rule."""
    blink = {"from_s": 1800.0, "until_s": 2040.0}
    flow = lane(every(60, 20))
    assert project(flow, stopped=(1800.0, 2040.0)).opened() == []
    assert project(flow, faults=[unreadable(**blink)]).opened() == []
    assert project(flow, faults=[job_changed(1800.0, misspelt, 2040.0)]).opened() == []


# --- one scenario for each policy


SCENARIOS: dict[str, Project] = {}


def scenario(policy: str) -> Project:
    """That in which a policy opens, run once."""
    makers = {
        "lane-late": lambda: project(lane(every(60, 200, HOUR_S / 2), max_workers="2"), QUIET),
        "dead-letters-grow": lambda: project(lane(every(60, 20, HOUR_S), failures=Failures(1.0, attempts=1)), QUIET),
        "no-tick": lambda: project(lane(every(600, 20, HOUR_S / 2)), QUIET, stopped=(1.5 * HOUR_S, 1.8 * HOUR_S)),
        "lane-held": lambda: project(lane(every(60, 20), message_s=20.0), QUIET, faults=[workers_end(ExitReason.BROKEN)]),
        "executions-fail": lambda: project(
            lane(every(60, 20), drain_within="1h", max_wait="0s"), QUIET, faults=[workers_end(ExitReason.STUCK, acked=8)]
        ),
        "day-expensive": lambda: project(lane(every(60, 3000, HOUR_S), message_s=60.0, max_workers="5000"), QUIET),
        "dead-letters-wait": lambda: project(QUIET, hours=6.0, drained_until_s=HOUR_S),
    }
    if policy not in SCENARIOS:
        SCENARIOS[policy] = makers[policy]()
    return SCENARIOS[policy]


@pytest.mark.parametrize("zeros", [False, True], ids=["gaps", "zeros"])
@pytest.mark.parametrize("policy", sorted(policies()))
def test_each_alert_opens_in_its_scenario_and_alone(policy: str, zeros: bool) -> None:
    assert scenario(policy).opened(zeros=zeros) == [policy]
