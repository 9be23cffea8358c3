"""Task ids that cannot be used: refused by the door and the client, which say the pattern; replaced by a worker, which says so once."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from batch.client.submit import NewTask, checked_message
from batch.handlers.contract import Payload
from batch.handling.registry import Registry
from batch.model.errors import MessageRefused
from batch.model.message import Task
from intake.models import Door, message_of
from intake.problems import RequestRefused
from tests.batch.worker.plant import Plant
from tests.field import handlers_in_children

PATTERN = "[A-Za-z0-9][A-Za-z0-9._:-]{0,127}"
ODD: list[Any] = ["order/17", 1234, "", " a", "-a", "größe", "a" * 129, ["a"], {"a": 1}, True]


@pytest.mark.parametrize("task_id", [*ODD, "fine"], ids=ascii)
def test_a_given_task_id_is_refused_and_the_pattern_is_told(task_id: Any) -> None:
    with pytest.raises(MessageRefused) as refused:
        checked_message(NewTask("a", {"task_id": task_id}), lane="l", unix_s=1.7e9, rng=random.Random(1), check=None)
    assert PATTERN in str(refused.value)
    registry = Registry()
    registry.task("a")(handlers_in_children.output)
    body = json.dumps({"task_type": "a", "task_id": task_id}).encode()
    with pytest.raises(RequestRefused) as at_the_door:
        message_of(Door(registry), body, None, "l", 1.7e9, random.Random(1))
    assert PATTERN in at_the_door.value.error
    assert at_the_door.value.fields == ("task_id",)


def register(plant: Plant, kind: str) -> None:
    if kind == "plain":

        @plant.registry.task("say")
        def plain(task: Task, ctx: Any) -> str:
            return task.task_id
    elif kind == "async":

        @plant.registry.task("say")
        async def waits(task: Task, ctx: Any) -> str:
            return task.task_id
    elif kind == "grouped":

        @plant.registry.task("say", group=4, group_wait_s=0.01)
        def grouped(tasks: list[Task], ctxs: list[Any]) -> list[Any]:
            return [task.task_id for task in tasks]
    else:
        plant.registry.task("say", isolation="process")(handlers_in_children.say)


def run(kind: str, bodies: list[dict[str, Any]]) -> Plant:
    plant = Plant()
    register(plant, kind)
    for body in bodies:
        plant.publish(json.dumps({"task_type": "say", **body}).encode())
    isolated = {"HANDLERS": "tests.field.handlers_in_children", "PROCESSES": 1} if kind == "isolated" else {}
    plant.worker(MAX_MESSAGES=len(bodies), **isolated).run()
    return plant


@pytest.mark.parametrize("kind", ["plain", "async", "grouped", "isolated"])
def test_a_worker_that_replaces_them_says_so_once(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    plant = run(kind, [{"task_id": one} for one in ODD])
    assert plant.final() == {f"message-{number}": "succeeded" for number in range(1, len(ODD) + 1)}
    (told,) = [one for one in caplog.records if getattr(one, "event", "") == "task_id_replaced"]
    assert PATTERN in told.getMessage()
    assert told.task_id.startswith("message-")  # type: ignore[attr-defined]


def test_a_worker_says_nothing_of_good_ones_and_of_messages_without_one(caplog: pytest.LogCaptureFixture) -> None:
    plant = run("plain", [{}, {"task_id": None}, {"task_id": "order:17"}, {"task_id": "message-x"}, {"inner": {"task_id": "order/17"}}])
    assert len(plant.final()) == 5
    assert not [one for one in caplog.records if getattr(one, "event", "") == "task_id_replaced"]


@pytest.mark.parametrize("processing_time", [3601, 1e9, "3600.5"])
def test_a_demonstration_longer_than_a_worker_lives_is_refused_at_the_door(processing_time: Any) -> None:
    registry = Registry()
    registry.task("a", payload=Payload)(handlers_in_children.output)
    body = json.dumps({"task_type": "a", "processing_time": processing_time}).encode()
    with pytest.raises(RequestRefused, match=r"processing_time: .*must be at most 3600 s, and less than the TASK_TIMEOUT_S") as refused:
        message_of(Door(registry), body, None, "l", 1.7e9, random.Random(1))
    assert refused.value.status == 422
    assert Payload(processing_time=3600).processing_time == 3600
