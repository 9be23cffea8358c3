"""A delayed lane against the local cloud: its execution starts six hours late and nothing else is launched for its messages; one that
cannot start holds the lane. All clocks, the controller's too, are moved together.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from controller.config import controller_settings
from controller.decide.decision import HoldCause
from controller.lanes.manifests import Manifest, read_manifests
from controller.lanes.resources import Creator, needed
from controller.observe.backlog import GoogleBacklogReader
from controller.observe.deployed import DeployedJobs
from controller.tick.outside import Outside
from controller.tick.results import TickResult
from controller.tick.rounds import tick_lanes
from controller.wiring import connected
from tests.clocks import ShiftedClock
from tests.controller.test_local_cloud import MANIFEST, publish
from tests.local_cloud.fault_orders import Orders
from tests.support import Service, start_service, wait_until

pytestmark = pytest.mark.slow

HOUR_S = 3600.0
HOURS = 6


@pytest.fixture(scope="module")
def local_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One of its own, as its clock is moved; so is Pub/Sub."""
    service = start_service("run", tmp_path_factory.mktemp("run"), "--delayed-start-s", str(HOURS * HOUR_S))
    yield service
    service.stop()


@pytest.fixture(scope="module")
def local_pubsub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    lag = ("--sample-period-s", "0", "--visibility-lag-s", "0")
    service = start_service("pubsub", tmp_path_factory.mktemp("pubsub"), *lag)
    yield service
    service.stop()


def delayed(cloud: dict[str, str]) -> Manifest:
    """Its workers run until they are stopped."""
    text = (MANIFEST % cloud["BUCKET_NAME"]).replace("spec:\n", 'spec:\n  delayExecution: "true"\n', 1)
    text = text.replace("timeoutSeconds: 900", "timeoutSeconds: 43200")
    text = text.replace("fanout/max-workers", "fanout/drain-within: 24h\n    fanout/max-workers")
    (found,) = read_manifests(text)
    found.containers[0]["command"] = [sys.executable, "-c", "import signal; signal.pause()", "-m", "batch"]
    return found


@pytest.fixture(scope="module")
def clock() -> ShiftedClock:
    """One for both tests, like the services whose clocks are moved with it."""
    return ShiftedClock()


@pytest.fixture
def outside(cloud: dict[str, str], clock: ShiftedClock) -> Iterator[Outside]:
    project, region = cloud["GOOGLE_CLOUD_PROJECT"], cloud["REGION"]
    with closing(DeployedJobs(project, region, emulator_url=cloud["CLOUD_RUN_EMULATOR_HOST"])) as jobs:
        job = delayed(cloud)
        jobs.apply(job.name, job.document, exists=False)
    with closing(Creator(project, region)) as creator:
        list(creator.create_missing(needed(job)))
    publish(project, 35)
    backlog = GoogleBacklogReader(project, clock, emulator_host=cloud["CLOUD_MONITORING_EMULATOR_HOST"])
    with closing(backlog), connected(controller_settings(cloud)) as found:
        yield replace(found, clock=clock, backlog=backlog)


def ticked(outside: Outside) -> TickResult:
    (result,) = tick_lanes(outside).results
    return result


def test_an_execution_that_cannot_start_holds_the_lane_in_cloud_runs_words(
    outside: Outside, cloud: dict[str, str], local_run: Service
) -> None:
    Orders(local_run.http, cloud["GOOGLE_CLOUD_PROJECT"]).add("jobs.run", {"kind": "cannot_start", "reason": "addresses"})
    (name,) = ticked(outside).launched
    decision = ticked(outside).decision
    assert (decision.hold_cause, decision.unassigned_count) == (HoldCause.BROKEN, 35)
    assert f"{name} acknowledged nothing: it cannot start: Instances cannot be started: insufficient free IP addresses" in decision.reason


def test_an_execution_that_starts_six_hours_late_is_launched_once(
    outside: Outside, clock: ShiftedClock, local_run: Service, local_pubsub: Service
) -> None:
    (name,) = ticked(outside).launched
    (job,) = outside.runner.jobs()
    for hour in range(1, HOURS + 3):
        for service in (local_run, local_pubsub):
            service.advance(HOUR_S)
        clock.advance(HOUR_S)
        if hour == HOURS:
            wait_until(lambda: next(iter(outside.runner.executions(job.full_name))).running_count, description="the late start")
        result = ticked(outside)
        assert result.launched == (), f"hour {hour}: {result.decision}"
    (execution,) = outside.runner.executions(job.full_name)
    assert (execution.name, execution.started_at is not None) == (name, True)
    assert (execution.started_at or 0.0) - execution.created_at == pytest.approx(HOURS * HOUR_S, abs=60)
