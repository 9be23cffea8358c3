"""Workers of lanes that take the messages of others: through handlers of every kind, failing, waiting, poisonous, and dead."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from batch.__main__ import configured
from batch.built_in import with_built_in
from batch.client.submit import NewTask, submit_one
from batch.handling.registry import Backoff, Registry
from batch.model.attempts import NONE, Marker
from batch.model.clock import iso
from batch.model.delivery import Outgoing
from batch.model.errors import SettingsError, Snooze
from batch.model.exit import ExitReason
from batch.model.message import Task, encode
from batch.model.outcomes import Outcome
from batch.settings import worker_settings
from batch.testing import Rehearsal, cloud_event, drain, notification, raw, run_group, structured
from batch.worker.admission.records import write_attempts
from tests.batch.worker.isolated import MODULE, plant_with
from tests.batch.worker.plant import Plant

TELLERS = ("child-tells", "thread-tells", "async-tells", "group-tells")


def publish(plant: Plant, *messages: Outgoing) -> None:
    plant.broker.topic("lane").publish(list(messages))


def drained(plant: Plant, accept: str, default_type: str, **settings: object) -> list[Outcome]:
    given = {"HANDLERS": MODULE, "PROCESSES": 1, "ACCEPT": accept, "DEFAULT_TYPE": default_type, "DRAIN_AFTER_S": 0, **settings}
    assert plant.worker(**given).run() is ExitReason.DRAINED
    return plant.outcomes()


@pytest.mark.parametrize("task_type", TELLERS)
def test_raw_bytes_reach_handlers_of_every_kind(task_type: str) -> None:
    plant = plant_with(*TELLERS)
    publish(plant, *[raw(f"Message number {number}".encode(), colour="red", task_type="child-tells") for number in range(3)])
    outcomes = drained(plant, "raw", task_type)
    assert Counter(one.outcome for one in outcomes) == {"succeeded": 3}
    assert {one.task_type for one in outcomes} == {task_type}
    told = sorted((one.result for one in outcomes), key=lambda one: one["data"])
    assert [one["data"] for one in told] == ["Message number 0", "Message number 1", "Message number 2"]
    assert [(one["form"], one["attributes"]) for one in told] == [("raw", {"colour": "red"})] * 3
    assert all(name.startswith("outcomes/rolling-lane-") for name in plant.store.names("outcomes/"))


@pytest.mark.parametrize("task_type", TELLERS)
def test_a_mixed_lane_does_all_forms(task_type: str) -> None:
    plant = plant_with(*TELLERS)
    data, attributes = encode(Task("t-1", "thread-tells", iso(plant.clock.now()), {"name": "Ada"}, "", "lane", "rolling-lane-1"))
    publish(plant, raw(b"x"), notification("b", "o", size=3), cloud_event(b"y", type="t"), Outgoing(data, attributes))
    outcomes = {one.result["form"]: one for one in drained(plant, "envelope,raw,gcs-notification,cloudevents", task_type)}
    assert sorted(outcomes) == ["cloudevents", "envelope", "gcs-notification", "raw"]
    assert outcomes["gcs-notification"].result["fields"]["size"] == 3
    assert (outcomes["envelope"].task_id, outcomes["envelope"].task_type) == ("t-1", "thread-tells")
    assert {one.task_type for form, one in outcomes.items() if form != "envelope"} == {task_type}


def test_a_message_that_comes_twice_is_one_task() -> None:
    plant = plant_with("thread-tells")
    message = notification("b", "o")
    publish(plant, message, message)
    plant.subscription.duplicate_next(2)
    assert len({one.task_id for one in drained(plant, "gcs-notification", "thread-tells")}) == 1


@pytest.mark.parametrize("message", [notification("b", "o"), cloud_event(b"{}", type="t")], ids=["notification", "event"])
def test_one_event_that_two_lanes_get_is_a_task_of_each(message: Outgoing) -> None:
    """They share a bucket, where attempts and outputs go by the task's id."""
    plant = Plant()

    @plant.registry.task("index", retries=2, backoff=Backoff(first_s=0))
    def index(_task: Task, _ctx: Any) -> None:
        raise ValueError("the index is down")

    @plant.registry.task("thumbnail", retries=1, backoff=Backoff(first_s=0))
    def thumbnail(task: Task, ctx: Any) -> None:
        if ctx.attempt == 1:
            raise ValueError("once")
        ctx.write(f"results/{task.task_id}", b"small")

    publish(plant, message)
    first = drained(plant, "gcs-notification,cloudevents", "index")
    plant.subscription = plant.broker.subscription("thumbnails", "lane")
    publish(plant, message)
    (second,) = set(drained(plant, "gcs-notification,cloudevents", "thumbnail", SUBSCRIPTION_NAME="thumbnails")) - set(first)
    assert [one.outcome for one in first] == ["dead"]
    assert (second.outcome, second.attempt_count) == ("succeeded", 2)


def test_an_event_type_that_is_not_named_ends_cancelled_and_no_handler_has_it() -> None:
    plant = plant_with("thread-tells")
    publish(plant, notification("b", "o", event_type="OBJECT_DELETE"), notification("b", "o"))
    outcomes = {one.outcome: one for one in drained(plant, "gcs-notification", "thread-tells")}
    assert sorted(outcomes) == ["cancelled", "succeeded"]
    assert outcomes["cancelled"].reason == "event type 'OBJECT_DELETE' is none that this lane runs: OBJECT_FINALIZE"
    assert (plant.letters(), plant.subscription.backlog) == ([], 0)


def test_what_the_lane_does_not_take_is_dead_with_the_reason_and_its_bytes() -> None:
    plant = plant_with("thread-tells")
    publish(
        plant, raw(b"\xffjunk", colour="red"), raw(b"\xffjunk"), structured({"id": "1", "source": "s", "type": "t", "specversion": "0.3"})
    )
    outcomes = drained(plant, "gcs-notification,cloudevents", "thread-tells")
    assert len({one.task_id for one in outcomes}) == 3
    letters = [message for _, message in plant.broker.topic("dead-letters").published]
    reasons = {(one.attributes["dead_error_type"], one.attributes["dead_reason"].partition(",")[0]) for one in letters}
    assert reasons == {
        ("invalid", "a CloudEvent's specversion must be 1.x"),
        ("not_accepted", "the message has not the attributes of a bucket's notification (notificationConfig"),
    }
    assert Counter(one.data for one in letters)[b"\xffjunk"] == 2


def test_what_a_payload_model_refuses_keeps_the_tasks_id() -> None:
    from pydantic import BaseModel

    class Order(BaseModel):
        number: int

    plant = Plant()

    @plant.registry.task("order", payload=Order)
    def order(_task: Task, ctx: Any) -> int:
        return int(ctx.payload.number)

    event = cloud_event(b'{"number": 3}', type="t")
    publish(
        plant, event, Outgoing(b'{"number": "x"}', {**event.attributes, "ce-id": "2"}), Outgoing(b"no", {**event.attributes, "ce-id": "3"})
    )
    outcomes = drained(plant, "cloudevents", "order")
    assert Counter(one.outcome for one in outcomes) == {"succeeded": 1, "dead": 2}
    assert next(one.result for one in outcomes if one.outcome == "succeeded") == 3
    forms = worker_settings({**SETTINGS, "ACCEPT": "cloudevents", "DEFAULT_TYPE": "order"}).forms
    for letter in plant.letters():
        task = forms.decode(b"", letter, message_id="", published_s=0.0, lane="lane")
        assert letter["task_id"] == task.task_id
    assert {one["dead_error_type"] for one in plant.letters()} == {"invalid", "not_json"}


def test_attempts_go_on_when_the_message_is_published_again() -> None:
    plant = Plant(max_delivery_attempts=5)
    seen: list[int] = []

    @plant.registry.task("fails", retries=6, backoff=Backoff(first_s=0))
    def fails(task: Task, ctx: Any) -> None:
        assert task.data == b"x"
        assert task.attributes == {"colour": "red"}
        seen.append(ctx.attempt)
        raise ValueError("no")

    publish(plant, raw(b"x", colour="red"))
    (outcome,) = drained(plant, "raw", "fails")
    assert seen == [1, 2, 3, 4, 5, 6, 7]
    assert (outcome.outcome, outcome.attempt_count) == ("dead", 7)
    assert len(plant.broker.topic("lane").published) > 1, "the message was never published again: this test shows nothing"
    (letter,) = plant.letters()
    assert letter["task_id"] == outcome.task_id


def test_one_that_may_have_killed_its_worker_runs_alone_in_a_child() -> None:
    plant = plant_with("thread-tells")
    publish(plant, raw(b"x", colour="red"))
    (delivery,) = plant.subscription.pull(10, 0)
    plant.subscription.nack([delivery.ack_id])
    forms = worker_settings({**SETTINGS, "ACCEPT": "raw", "DEFAULT_TYPE": "thread-tells"}).forms
    task = forms.decode(delivery.data, delivery.attributes, message_id=delivery.message_id, published_s=delivery.published_s, lane="lane")
    gone = Marker("gone-x", 3, 0, "2026-01-31T12:00:00.000000Z")
    write_attempts(plant.store, task.task_id, replace(NONE, in_progress=gone), 0)
    (outcome,) = drained(plant, "raw", "thread-tells")
    assert (outcome.task_id, outcome.outcome) == (task.task_id, "succeeded")
    assert outcome.result == {"data": "x", "form": "raw", "fields": {}, "attributes": {"colour": "red"}}


SETTINGS = {"GOOGLE_CLOUD_PROJECT": "p", "SUBSCRIPTION_NAME": "lane", "BUCKET_NAME": "bucket"}


@pytest.mark.parametrize("accept", ["raw", "envelope,raw"])
@pytest.mark.parametrize("task_type", ["thread-tells", "group-tells"])
def test_fanouts_own_tasks_run_on_every_lane_and_lies_never_do(accept: str, task_type: str) -> None:
    plant = plant_with(task_type)
    settings = worker_settings({**SETTINGS, "ACCEPT": accept, "DEFAULT_TYPE": task_type})
    plant.registry = with_built_in(plant.registry, settings, plant.store, plant.broker.topic, plant.clock, random.Random(1))
    fields = {"submission_id": "s-1", "lane": "lane", "round": 0}
    topic = plant.broker.topic("lane")
    new = NewTask("fanout.finish", fields, "key")
    submit_one(topic, new, lane="lane", clock=plant.clock, rng=random.Random(1), store=plant.store, built_in=True)
    told, attributes = encode(Task("t-1", "fanout.finish", iso(plant.clock.now()), fields))
    publish(plant, Outgoing(told, attributes), raw(b"{}", task_type="fanout.finish"), Outgoing(told, {}))
    outcomes = drained(plant, accept, task_type)
    assert Counter((one.task_type, one.outcome) for one in outcomes) == Counter(
        {
            ("fanout.finish", "succeeded"): 1,
            ("fanout.finish", "dead"): 1 if accept == "raw" else 2,
            (task_type, "succeeded"): 2 if accept == "raw" else 1,
        }
    )
    assert any("nothing in the bucket says that Fanout has published" in one.reason for one in outcomes)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"ACCEPT": "raw"}, "DEFAULT_TYPE is not set: messages that are taken as raw name no task type"),
        ({"ACCEPT": "gcs-notification"}, "DEFAULT_TYPE is not set"),
        ({"ACCEPT": "raw", "DEFAULT_TYPE": "fanout.webhook"}, "is one of Fanout's own types"),
        ({"ACCEPT": "rawr"}, "did you mean raw"),
    ],
)
def test_settings_that_cannot_go_together_are_refused(given: dict[str, str], problem: str) -> None:
    with pytest.raises(SettingsError, match=problem):
        worker_settings({**SETTINGS, **given})
    assert worker_settings({**SETTINGS, "ACCEPT": "cloudevents"}).forms.default_type == ""


def test_a_default_type_without_a_handler_ends_the_worker_before_its_messages_die_of_it() -> None:
    given = {**SETTINGS, "HANDLERS": MODULE, "ACCEPT": "raw"}
    assert configured({**given, "DEFAULT_TYPE": "thread-tells"})[0].default_type == "thread-tells"
    with pytest.raises(SettingsError, match=r"DEFAULT_TYPE='thread-tels': no handler is registered .*did you mean 'thread-tells'"):
        configured({**given, "DEFAULT_TYPE": "thread-tels"})


def test_a_task_that_waits_for_hours_keeps_its_id_and_its_first_time() -> None:
    registry, seen = Registry(), list[tuple[Any, ...]]()

    @registry.task("waits")
    def waits(task: Task, _ctx: Any) -> None:
        seen.append((task.task_id, task.submitted_at, task.shard, task.data, task.attributes))
        if len(seen) < 3:
            raise Snooze(3 * 3600)

    found = drain([raw(b"x", shard="blue", colour="red")], registry, accept=["raw"], default_type="waits")
    assert len(seen) == 3
    assert len(set(map(str, seen))) == 1
    assert [one.outcome for one in found.outcomes.values()] == ["succeeded"]
    assert found.elapsed_s >= 6 * 3600


def test_a_rehearsal_and_a_group_take_messages_too() -> None:
    registry = Registry()

    @registry.task("note")
    def note(task: Task, ctx: Any) -> str:
        return str(ctx.write(f"notes/{task.task_id}", task.data).name)

    @registry.task("notes", group=4)
    def notes(tasks: list[Task], _ctxs: Any) -> list[str]:
        return [task.fields["name"] for task in tasks]

    Rehearsal("note", raw(b"x"), registry=registry).check()
    runs = run_group("notes", [notification("b", "a"), notification("b", "c")], registry=registry)
    assert [getattr(one, "result", one) for one in runs] == ["a", "c"]


def test_a_lie_in_the_attributes_of_an_envelope_brings_it_to_no_other_executor() -> None:
    """To a grouped handler as a single task, for one."""
    registry = Registry()
    sizes: list[int] = []

    @registry.task("plain", group=4)
    def plain(tasks: list[Task], _ctxs: Any) -> list[None]:
        sizes.append(len(tasks))
        return [None] * len(tasks)

    plant = Plant()
    plant.registry = with_built_in(registry, worker_settings(SETTINGS), plant.store, plant.broker.topic, plant.clock, random.Random(1))
    plant.publish(json.dumps({"task_id": "a", "task_type": "plain"}).encode(), task_type="fanout.finish")
    assert plant.worker(DRAIN_AFTER_S=0).run() is ExitReason.DRAINED
    assert (sizes, plant.final()) == ([1], {"a": "succeeded"})
