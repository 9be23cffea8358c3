"""Launches that go wrong at the running local cloud, through Google's clients: one execution for each decision part, or a reason."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from batch.model.clock import SystemClock
from batch.model.names import claim_object
from controller.act.intents import Part, PartState
from controller.act.launcher import GRACE_S, NOBODY
from controller.act.state import load
from controller.config import controller_settings
from controller.lanes.manifests import Manifest
from controller.lanes.resources import Creator, needed
from controller.observe.deployed import DeployedJobs
from controller.tick.outside import Outside
from controller.tick.results import TickResult
from controller.tick.rounds import tick_lanes
from controller.wiring import connected
from tests.controller.test_local_cloud import manifest, publish
from tests.local_cloud.fault_orders import Orders
from tests.support import Service, start_service, wait_until


class Ahead(SystemClock):
    """The machine's clock, `by_s` later: the controller's time goes on while the gauge's stands."""

    by_s = 0.0

    def now(self) -> float:
        return super().now() + self.by_s

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        raise NotImplementedError


@pytest.fixture(scope="module")
def local_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One of its own: these tests move its clock."""
    service = start_service("run", tmp_path_factory.mktemp("run"))
    yield service
    service.stop()


@pytest.fixture
def clock() -> Ahead:
    return Ahead()


def lasting(cloud: dict[str, str]) -> Manifest:
    """Its workers run until they are stopped: ended ones that did nothing would rightly be launched anew, as soon as a tick sees it."""
    found = manifest(cloud)
    found.containers[0]["command"] = [sys.executable, "-c", "import signal; signal.pause()", "-m", "batch"]
    return found


@pytest.fixture
def outside(cloud: dict[str, str], clock: Ahead) -> Iterator[Outside]:
    """A lane with 35 messages: four workers."""
    project, region = cloud["GOOGLE_CLOUD_PROJECT"], cloud["REGION"]
    with closing(DeployedJobs(project, region, emulator_url=cloud["CLOUD_RUN_EMULATOR_HOST"])) as jobs:
        job = lasting(cloud)
        jobs.apply(job.name, job.document, exists=False)
    with closing(Creator(project, region)) as creator:
        list(creator.create_missing(needed(manifest(cloud))))
    publish(project, 35)
    with connected(controller_settings(cloud)) as found:
        yield replace(found, clock=clock)


@pytest.fixture
def orders(local_run: Service, cloud: dict[str, str]) -> Iterator[Orders]:
    made = Orders(local_run.http, cloud["GOOGLE_CLOUD_PROJECT"])
    yield made
    made.clear()


def ticked(outside: Outside) -> TickResult:
    (result,) = tick_lanes(outside).results
    return result


def parts(outside: Outside) -> list[Part]:
    return [part for intent in load(outside.store, "default").state.intents for part in intent.parts]


def served(outside: Outside) -> list[str]:
    """The decision parts that have an execution."""
    (job,) = outside.runner.jobs()
    return [info.decision_id for info in outside.runner.executions(job.full_name)]


@pytest.mark.parametrize("kind", ["unavailable", "deadline_exceeded", "http_503"])
def test_a_launch_that_did_nothing_is_given_up_and_made_anew(outside: Outside, orders: Orders, clock: Ahead, kind: str) -> None:
    orders.add("jobs.run", kind)
    assert "not listed (yet)" in ticked(outside).failures[0]
    clock.by_s = GRACE_S - 10
    ticked(outside)
    assert served(outside) == []
    clock.by_s = GRACE_S + 10
    assert ticked(outside).decision.backlog == 35
    first, second = parts(outside)
    assert (first.state, second.state, served(outside)) == (PartState.ABANDONED, PartState.LAUNCHED, [second.decision_id])
    assert "no execution carried it after 5" in first.reason
    assert json.loads(outside.store.read(claim_object(first.decision_id))) == {"execution": NOBODY}


def test_a_launch_whose_answer_was_lost_is_found_in_the_same_tick(outside: Outside, orders: Orders) -> None:
    orders.add("jobs.run", "lost_response")
    (name,) = ticked(outside).launched
    (part,) = parts(outside)
    assert (part.execution, served(outside)) == (name, [part.decision_id])
    assert "found by listing after" in part.reason


def test_a_launch_that_takes_effect_after_its_error_is_found_by_the_next_tick(
    outside: Outside, orders: Orders, clock: Ahead, local_run: Service
) -> None:
    orders.add("jobs.run", {"kind": "effect_after", "seconds": 30})
    assert ticked(outside).launched == ()
    local_run.advance(30)
    wait_until(lambda: served(outside), description="the late launch")
    clock.by_s = 30
    assert ticked(outside).launched == ()
    (part,) = parts(outside)
    assert (part.state, served(outside)) == (PartState.LAUNCHED, [part.decision_id])


def test_a_launch_that_takes_effect_after_it_was_given_up_finds_its_claim_taken(
    outside: Outside, orders: Orders, clock: Ahead, local_run: Service
) -> None:
    orders.add("jobs.run", {"kind": "effect_after", "seconds": 30})
    ticked(outside)
    clock.by_s = GRACE_S + 10
    assert ticked(outside).launched
    local_run.advance(30)
    wait_until(lambda: len(served(outside)) == 2, description="the late launch")
    first, second = parts(outside)
    assert sorted(served(outside)) == [first.decision_id, second.decision_id]
    assert json.loads(outside.store.read(claim_object(first.decision_id))) == {"execution": NOBODY}
    assert outside.store.info(claim_object(second.decision_id)) is None


def test_too_many_requests_are_waited_for(outside: Outside, orders: Orders, clock: Ahead) -> None:
    orders.add("jobs.run", "too_many_requests")
    assert "quota of job run requests" in ticked(outside).failures[0]
    assert "no launch before" in ticked(outside).decision.reason
    clock.by_s = 60
    assert ticked(outside).launched
    assert len(served(outside)) == 1
