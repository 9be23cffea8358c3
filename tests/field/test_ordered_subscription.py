"""A subscription with message ordering is refused before anything runs out of order: by the worker, the tick, lanes, doctor and apply."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace

import pytest
from click.testing import Result

from batch.model.delivery import ORDERED
from batch.model.exit import ExitReason
from controller.lanes.resources import Creator, Needed
from fanout import lanes
from fanout.doctor.lane_checks import of_subscription
from fanout.doctor.place import Place
from tests.batch.worker.plant import Plant, write
from tests.controller.fakes import World, lane, progress, tick, world, write_progress
from tests.fanout.conftest import here, run
from tests.fanout.doctor_fakes import GOOD
from tests.seams.conftest import create_lane
from tests.support import Service

__all__ = ["here", "run"]

WHAT_TO_DO = "create a subscription without it"


def test_a_worker_ends_broken_before_its_first_pull(caplog: pytest.LogCaptureFixture) -> None:
    plant = Plant()
    plant.registry.task("write")(write)
    plant.subscription.is_ordered = True
    plant.submit(3)
    with caplog.at_level(logging.INFO, logger="fanout"):
        assert plant.worker().run() is ExitReason.BROKEN
    assert "subscription lane has message ordering enabled" in caplog.text
    assert WHAT_TO_DO in caplog.text
    progress = plant.progress()
    assert (progress.taken, progress.exit_reason, progress.broken_by) == (0, "broken", ORDERED.format("lane"))
    assert [one.delivery_count for one in plant.subscription.waiting()] == [0, 0, 0]


def test_the_tick_holds_the_lane_and_says_why() -> None:
    found = world()
    info = found.runner.add(1, {})
    found.runner.fail(info.name, found.clock.now())
    write_progress(found.store, info.name, 0, progress(exit_reason="broken", broken_by=ORDERED.format("tasks-sub")))
    found.backlog_is(100)
    result = tick(lane(), found.outside)
    assert result.launched == ()
    assert "its workers ended broken: subscription tasks-sub has message ordering enabled" in result.decision.reason


def test_lanes_say_why(here: World, run: Callable[..., Result]) -> None:
    info = here.runner.add(1, {})
    here.runner.fail(info.name, here.clock.now())
    write_progress(here.store, info.name, 0, progress(exit_reason="broken", broken_by=ORDERED.format("tasks-sub")))
    here.backlog_is(5)
    result = run(lanes.command, "--json")
    assert result.exit_code == 1
    (found,) = (one for one in json.loads(result.output)["lanes"] if one["lane"] == "default")
    assert WHAT_TO_DO in found["troubles"][0]


def test_doctor_finds_it_and_fixes_nothing() -> None:
    found = {one.check: one for one in of_subscription(lane(), replace(GOOD, is_ordered=True), "dead-letters", Place("p", "r", "b"))}
    assert (found["ordering"].verdict, found["ordering"].fix) == ("wrong", None)
    assert WHAT_TO_DO in found["ordering"].command
    assert {one.verdict for check, one in found.items() if check != "ordering"} == {"fine"}


@pytest.fixture
def ordered(project: str, local_pubsub: Service, local_storage: Service, monkeypatch: pytest.MonkeyPatch) -> str:
    """A lane on the local cloud whose subscription has ordering; the project."""
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", local_pubsub.grpc)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", local_storage.http)
    create_lane(project, counted=False, enable_message_ordering=True)
    return project


def test_apply_does_not_take_a_subscription_that_is_there_for_a_lane_s(ordered: str) -> None:
    creator = Creator(ordered, "us-central1")
    with pytest.raises(Exception, match="subscription worker has message ordering enabled"):
        list(creator.create_missing(Needed("tasks", "worker", "dead-letters", f"{ordered}-bucket")))
    creator.close()


def test_the_local_cloud_tells_the_truth_about_it(ordered: str) -> None:
    from batch.services.pubsub import GoogleSubscription

    subscription = GoogleSubscription(ordered, "worker")
    assert subscription.info.is_ordered
    subscription.close()
