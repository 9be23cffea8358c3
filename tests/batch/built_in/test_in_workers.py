"""Fanout's own task types in workers: beside handlers of any kind, and never through a handler that is not theirs."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from batch.built_in import with_built_in
from batch.dead.lanes import LaneFacts, write_lanes
from batch.dead.rules import Rules
from batch.ends import marks
from batch.ends.marks import Mark
from batch.ends.options import Ends
from batch.handling.registry import Registry
from batch.model.attempts import NONE, Marker
from batch.model.clock import iso
from batch.model.delivery import Outgoing
from batch.model.errors import MessageRefused, SettingsError
from batch.model.exit import ExitReason
from batch.model.message import Task, encode
from batch.model.names import submission_object
from batch.settings import worker_settings
from batch.worker.admission.records import write_attempts
from tests.batch.worker.plant import Plant

SETTINGS = {"GOOGLE_CLOUD_PROJECT": "p", "SUBSCRIPTION_NAME": "lane", "BUCKET_NAME": "bucket"}


def registry_of(kind: str, ran: list[str]) -> Registry:
    """One handler of this kind, which notes the types of its tasks."""
    registry = Registry()
    if kind == "group":

        @registry.task("plain", group=10, group_wait_s=0.01)
        def grouped(tasks: list[Task], _ctxs: Any) -> list[None]:
            ran.extend(task.task_type for task in tasks)
            return [None] * len(tasks)

    elif kind == "async":

        @registry.task("plain")
        async def awaited(task: Task, _ctx: Any) -> None:
            ran.append(task.task_type)

    else:

        @registry.task("plain")
        def called(task: Task, _ctx: Any) -> None:
            ran.append(task.task_type)

    return registry


def plant_with(kind: str, ran: list[str]) -> Plant:
    plant = Plant()
    given = worker_settings(SETTINGS)
    plant.registry = with_built_in(registry_of(kind, ran), given, plant.store, plant.broker.topic, plant.clock, random.Random(1))
    write_lanes(plant.store, {"lane": LaneFacts("lane", "lane", "lane", Rules())})
    marks.write(plant.store, Mark("s-1", "lane"), Ends({"task_type": "plain"}))
    summary = {"submission_id": "s-1", "task_count": 0, "part_count": 0, "shards": [], "lane": "lane"}
    plant.store.write(submission_object("s-1"), json.dumps(summary).encode())
    return plant


def finish(plant: Plant, task_id: str = "finish-1") -> None:
    task = Task(task_id, "fanout.finish", iso(plant.clock.now()), {"submission_id": "s-1", "lane": "lane", "round": 0}, "", "lane", "s-0")
    plant.broker.topic("lane").publish([Outgoing(*encode(task))])


@pytest.mark.parametrize("kind", ["thread", "group", "async"])
def test_a_worker_runs_them_beside_handlers_of_any_kind(kind: str) -> None:
    ran: list[str] = []
    plant = plant_with(kind, ran)
    plant.submit(50, "plain")
    finish(plant)
    assert plant.worker().run() is ExitReason.DRAINED
    assert ran == ["plain"] * 51, "the end's own task among them"
    assert Counter(one.task_type for one in plant.outcomes()) == {"plain": 51, "fanout.finish": 1}
    assert marks.standing(plant.store, "lane", "s-1") is None


def test_one_whose_attributes_do_not_say_so_never_reaches_another_handler() -> None:
    ran: list[str] = []
    plant = plant_with("group", ran)
    plant.publish(json.dumps({"task_id": "a", "task_type": "fanout.finish", "submission_id": "s-1", "lane": "lane", "round": 0}).encode())
    plant.publish(b'{"task_id":"b","task_type":"fanout\\u002efinish"}', task_type="plain")
    plant.worker().run()
    assert (ran, {one["dead_error_type"] for one in plant.letters()}) == ([], {"unknown_task_type"})


@pytest.mark.parametrize("kind", ["thread", "group"])
def test_one_that_was_running_when_its_worker_was_killed_runs_in_the_next_worker(kind: str) -> None:
    """Not alone in a child, which has no topics to publish to."""
    ran: list[str] = []
    plant = plant_with(kind, ran)
    finish(plant)
    plant.subscription.nack([one.ack_id for one in plant.subscription.pull(10, 0)])
    gone = Marker("gone-x", 3, 0, "2026-01-31T12:00:00.000000Z")
    write_attempts(plant.store, "finish-1", replace(NONE, in_progress=gone), 0)
    plant.worker().run()
    assert ran == ["plain"]
    assert plant.final() == {"finish-1": "succeeded", **{one: "succeeded" for one in plant.final() if one != "finish-1"}}


def test_nobody_else_registers_or_submits_one() -> None:
    with pytest.raises(SettingsError, match="is one of Fanout's own"):
        Registry().task("fanout.mine")
    from batch.client.submit import NewTask, single_message

    with pytest.raises(MessageRefused, match="Fanout's own"):
        single_message(NewTask("fanout.finish"), lane="default", unix_s=0.0, rng=random.Random(1))
