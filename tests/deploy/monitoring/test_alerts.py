"""Alerts are quiet on a normal day, and each opens in its own scenario, and only there: the log of simulated ticks through the files."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from batch.model.exit import ExitReason
from controller.simulation.given.patterns import PATTERNS
from controller.simulation.given.scenario import Failures
from tests.deploy.monitoring.definitions import policies
from tests.deploy.monitoring.simulated import (
    HOUR_S,
    Fault,
    Project,
    every,
    job_changed,
    lane,
    misspelt,
    no_lane,
    project,
    unreadable,
    workers_end,
)

DAY_CUT_S = 4 * HOUR_S
QUIET = lane((), name="quiet")


# --- normal days


def test_a_normal_day_opens_nothing() -> None:
    day = project(
        lane(every(3600, 3000, 3 * HOUR_S, from_s=600)),
        lane(every(45, until_s=3 * HOUR_S), name="trickle", drain_within="5m"),
        lane(every(1200, 200, 3 * HOUR_S), name="retried", failures=Failures(0.1, 300.0)),
        lane(every(60, 5, 3 * HOUR_S), name="paused", paused="true"),
        QUIET,
        hours=3.0,
    )
    assert day.opened(zeros=False) == day.opened(zeros=True) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["steady", "diurnal", "trickle", "two-lanes", "poison", "hourly"])
def test_the_days_of_the_benchmark_open_nothing(name: str) -> None:
    pattern = PATTERNS[name]
    loads = [
        replace(
            lane(one.arrivals(random.Random(7), DAY_CUT_S, 1.0), name=one.name, drain_within="10m"),
            durations=one.durations,
            failures=Failures(one.failing_share),
        )
        for one in (pattern, *pattern.beside)
    ]
    assert project(*loads, QUIET, hours=DAY_CUT_S / HOUR_S).opened() == []


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
        "lane-late": lambda: project(lane(every(60, 200, HOUR_S / 2), max_workers="1"), QUIET),
        "dead-letters-grow": lambda: project(lane(every(60, 20, HOUR_S), failures=Failures(1.0, attempts=1)), QUIET),
        "no-tick": lambda: project(lane(every(600, 20, HOUR_S / 2)), QUIET, stopped=(1.5 * HOUR_S, 1.8 * HOUR_S)),
        "lane-held": lambda: project(lane(every(60, 20), message_s=20.0), QUIET, faults=[workers_end(ExitReason.BROKEN)]),
        "executions-fail": lambda: project(
            lane(every(60, 20), drain_within="1h", max_wait="0s"),
            QUIET,
            faults=[workers_end(ExitReason.STUCK, acked=15, but=lambda number: number >= 30)],
        ),
        "day-expensive": lambda: project(lane(every(60, 300, HOUR_S / 2), message_s=60.0, max_workers="1000"), QUIET),
        "dead-letters-wait": lambda: project(QUIET, hours=6.0, drained_until_s=HOUR_S),
    }
    if policy not in SCENARIOS:
        SCENARIOS[policy] = makers[policy]()
    return SCENARIOS[policy]


@pytest.mark.parametrize("zeros", [False, True], ids=["gaps", "zeros"])
@pytest.mark.parametrize("policy", sorted(policies()))
def test_each_alert_opens_once_in_its_scenario_and_alone(policy: str, zeros: bool) -> None:
    assert [one.policy for one in scenario(policy).incidents(zeros=zeros)] == [policy]


@pytest.mark.parametrize(
    ("policy", "opens_min", "closes_min"),
    [("lane-late", (15, 25), (50, 70)), ("executions-fail", (5, 15), (30, 45)), ("no-tick", (99, 102), (106, 112))],
)
def test_an_alert_opens_soon_and_closes_when_it_is_over(policy: str, opens_min: tuple[int, int], closes_min: tuple[int, int]) -> None:
    here = scenario(policy)
    (found,) = here.incidents()
    assert opens_min[0] <= (found.opened_at - here.begin) / 60 <= opens_min[1]
    assert found.closed_at is not None
    assert closes_min[0] <= (found.closed_at - here.begin) / 60 <= closes_min[1]


def test_an_incident_names_its_lane() -> None:
    named = {dict(one.labels).get("metric.label.lane") for name in ("lane-late", "lane-held") for one in scenario(name).incidents()}
    assert named == {"default"}


@pytest.mark.parametrize(
    ("fault", "condition", "opens_min"),
    [
        (job_changed(1800.0, misspelt), "it is held, or its workers cannot work", (35, 40)),
        (job_changed(1800.0, no_lane), "its job breaks a rule of lanes, or is gone", (35, 40)),
        (unreadable(1800.0, 1e9), "its backlog has been unknown for 15 minutes", (45, 50)),
    ],
    ids=["misspelt setting", "no lane", "unreadable gauge"],
)
def test_a_lane_is_held_in_several_ways(fault: Fault, condition: str, opens_min: tuple[int, int]) -> None:
    here = project(lane(every(60, 20)), QUIET, faults=[fault])
    opened = {one.condition: (one.opened_at - here.begin) / 60 for one in here.incidents()}
    assert set(opened) == {condition}
    assert opens_min[0] <= opened[condition] <= opens_min[1]


def test_executions_of_which_one_succeeds_now_and_then_wake_nobody() -> None:
    fault = workers_end(ExitReason.STUCK, acked=15, but=lambda number: number % 3 == 2)
    here = project(lane(every(300, 20), drain_within="1h", max_wait="0s"), faults=[fault])
    assert here.opened() == []
    assert max(entry["jsonPayload"].get("health", {}).get("failed_launch_count", 0) for _, entry in here.entries) == 2
