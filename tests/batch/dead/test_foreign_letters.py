"""Dead letters of messages that were not written for Fanout: the task's id and type, the bytes, and what a replay publishes."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.dead.draining import drain
from batch.dead.draining.arrived import arrived
from batch.dead.filters import Filter
from batch.dead.lanes import LaneFacts, read_lanes, write_lanes
from batch.dead.letters import Letter, from_body, to_line
from batch.dead.publishing import message_of
from batch.dead.replaying import replay
from batch.dead.rules import NO_RULES
from batch.model.deadletters import Replay, dead_letter, referring
from batch.model.delayed import as_first_published, published_again
from batch.model.delivery import MAX_ATTRIBUTES, Delivery, Outgoing
from batch.model.errors import Permanent
from batch.model.message import Task
from batch.model.names import LANES
from batch.testing import ManualClock, MemoryObjectStore, cloud_event, notification, raw
from tests.batch.dead.letterbox import Letterbox
from tests.batch.formats.test_forms import ACCEPT as ACCEPTED
from tests.batch.formats.test_forms import BYTES, NAMES, VALUES
from tests.batch.worker.plant import Plant

ACCEPT = ("raw", "gcs-notification", "cloudevents")
FACTS = LaneFacts("lane", "lane", "lane", NO_RULES, accept=ACCEPT, default_type="work")
ELSEWHERE = replace(FACTS, name="other", subscription="other-sub", topic="lane")
MESSAGES = [
    raw(b"\x00\xffjunk", colour="red", task_id="mine", shard="blue", lane="elsewhere", task_type="fanout.webhook"),
    notification("photos", "a.jpg", custom_attributes={"site": "berlin"}),
    cloud_event(b"\xff", type="t"),
]


@pytest.fixture(autouse=True)
def _no_gathering(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the machine's clock it would take a second."""
    monkeypatch.setattr(drain, "GATHER_PULL_S", 0.01)


def died(message: Outgoing) -> tuple[Plant, Letterbox, list[tuple[Any, ...]]]:
    """A worker has it dead-lettered, the job logs that. And what its handler gets, from then on too."""
    plant = Plant()
    seen: list[tuple[Any, ...]] = []

    @plant.registry.task("work")
    def work(task: Any, _ctx: Any) -> None:
        seen.append((task.task_id, task.data, task.attributes, task.submitted_at, task.fields, task.replay_number))
        if not task.replay_number:
            raise Permanent("no such row")

    plant.broker.topic("lane").publish([message])
    plant.worker(ACCEPT=",".join(ACCEPT), DEFAULT_TYPE="work", DRAIN_AFTER_S=0).run()
    box = Letterbox(lanes={"lane": FACTS})
    box.clock, box.dead, box.store, box.broker = plant.clock, plant.dead, plant.store, plant.broker  # type: ignore[assignment]
    box.drain(DRAIN_AFTER_S=0)
    return plant, box, seen


@pytest.mark.parametrize("message", MESSAGES, ids=["raw", "notification", "event"])
@pytest.mark.parametrize("to_lane", [None, ELSEWHERE], ids=["its-lane", "another-lane"])
def test_a_letter_is_known_by_its_task_and_its_replay_is_that_task(message: Outgoing, to_lane: LaneFacts | None) -> None:
    plant, box, seen = died(message)
    (outcome,) = plant.outcomes()
    (letter,) = box.letters().values()
    assert (letter.task_id, letter.task_type, letter.data) == (outcome.task_id, "work", message.data)
    assert letter.form in ACCEPT
    assert plant.store.names(f"outcomes/{letter.shard}/")
    assert from_body(json.loads(to_line(letter))) == letter
    named: dict[str, Any] = {"details": {}, "rate": None, "clock": plant.clock, "rng": random.Random(1), "who": "ann", "why": "fixed"}
    replay(plant.store, plant.broker.topic, FACTS, lambda _: True, wanted=Filter(), to_lane=to_lane, **named)
    worker = plant.worker(ACCEPT=",".join(ACCEPT), DEFAULT_TYPE="work", DRAIN_AFTER_S=0, LANE="lane" if to_lane is None else "other")
    worker.run()
    first, again = seen
    assert again == (*first[:-1], 1)
    assert plant.final() == {outcome.task_id: "succeeded"}


MANY = {f"custom-{number:03d}": "x" for number in range(100)}
FULL = [
    Outgoing(one.data, {**dict(list(MANY.items())[: MAX_ATTRIBUTES - len(one.attributes)]), **one.attributes})
    for one in (notification("photos", "a.jpg"), cloud_event(b"\xff", type="t", subject="s"))
]


@pytest.mark.parametrize("message", FULL, ids=["notification", "event"])
def test_with_all_attributes_in_use_those_stay_that_say_what_a_message_is(message: Outgoing) -> None:
    plant, _, seen = died(message)
    named: dict[str, Any] = {"details": {}, "rate": None, "clock": plant.clock, "rng": random.Random(1), "who": "ann", "why": "fixed"}
    replay(plant.store, plant.broker.topic, FACTS, lambda _: True, wanted=Filter(), **named)
    plant.worker(ACCEPT=",".join(ACCEPT), DEFAULT_TYPE="work", DRAIN_AFTER_S=0).run()
    assert list(plant.final().values()) == ["succeeded"]
    first, again = seen
    assert first[:2] == again[:2]
    own = [name for name in first[2] if not name.startswith("custom-")]
    assert [name for name in own if name not in again[2]] == []
    assert len(again[2]) < len(first[2]) == MAX_ATTRIBUTES
    letter = plant.broker.topic("dead-letters").published[0][1]
    large = referring(letter, "dead/raw/x")
    assert len(large.attributes) == MAX_ATTRIBUTES
    assert [name for name in own if name not in large.attributes] == []


@pytest.mark.parametrize("message", MESSAGES, ids=["raw", "notification", "event"])
def test_what_died_before_its_lane_took_it_runs_once_the_lane_does(message: Outgoing) -> None:
    """Whoever publishes it, the first thing that a new lane is told is that its messages are dead."""
    plant = Plant()
    seen: list[Any] = []
    plant.registry.task("work")(lambda task, _ctx: seen.append((task.form, task.data)))
    plant.broker.topic("lane").publish([message])
    plant.worker(DRAIN_AFTER_S=0).run()
    box = Letterbox(lanes={"lane": LaneFacts("lane", "lane", "lane", NO_RULES)})
    box.clock, box.dead, box.store, box.broker = plant.clock, plant.dead, plant.store, plant.broker  # type: ignore[assignment]
    box.drain(DRAIN_AFTER_S=0)
    (dead,) = plant.final()
    named: dict[str, Any] = {"details": {}, "rate": None, "clock": plant.clock, "rng": random.Random(1), "who": "ann", "why": "fixed"}
    result = replay(plant.store, plant.broker.topic, FACTS, lambda _: True, wanted=Filter(), **named)
    assert (result.done_count, result.untaken_count) == (1, 0)
    plant.worker(ACCEPT=",".join(ACCEPT), DEFAULT_TYPE="work", DRAIN_AFTER_S=0).run()
    assert plant.final() == {dead: "succeeded"}
    assert seen == [(FACTS.forms.decode(message.data, message.attributes, message_id="1", published_s=0.0, lane="lane").form, message.data)]


def by_net(message: Outgoing, facts: LaneFacts = FACTS) -> Letter:
    source = {"CloudPubSubDeadLetterSourceSubscription": "lane", "CloudPubSubDeadLetterSourceDeliveryCount": "100"}
    delivery = Delivery("a", "999", message.data, {**message.attributes, **source}, 1_769_860_800.0)
    found = arrived(delivery, {"lane": facts})
    return replace(found.letter, kept_because=found.stays)


def test_of_what_the_net_caught_only_the_id_of_a_raw_message_is_lost() -> None:
    kept = by_net(raw(b"x"))
    assert "replayed, it is another task" in kept.kept_because
    for message in (notification("photos", "a.jpg"), cloud_event(b"", type="t")):
        letter = by_net(message)
        task = FACTS.forms.decode(message.data, message.attributes, message_id="1", published_s=0.0, lane="lane")
        assert (letter.task_id, letter.task_type, letter.kept_because) == (task.task_id, "work", "")


def test_data_too_large_for_a_letter_leaves_the_id_as_it_was() -> None:
    facts = {
        "task_id": "11111111-2222-5333-8444-555555555555",
        "dead_error_type": "permanent",
        "dead_lane": "lane",
        "dead_raw": "dead/raw/x",
    }
    attributes = {"content-type": "application/cloudevents+json", **facts}
    letter = arrived(Delivery("a", "9", b"", attributes, 1_769_860_800.0), {"lane": FACTS}).letter
    assert letter.task_id == facts["task_id"]


def test_lanes_json_tells_the_forms_and_of_older_ones_that_they_are_envelopes() -> None:
    store = MemoryObjectStore(clock=ManualClock())
    write_lanes(store, {"lane": FACTS})
    assert read_lanes(store) == {"lane": FACTS}
    body = json.loads(store.read(LANES))
    for name in ("accept", "default_type", "event_types"):
        del body["lanes"]["lane"][name]
    store.write(LANES, json.dumps(body).encode())
    assert read_lanes(store)["lane"] == LaneFacts("lane", "lane", "lane", NO_RULES)


def test_what_the_net_caught_keeps_its_id_on_a_lane_with_another_subscription() -> None:
    again = published_again(Delivery("a", "77", b"x", {}, 1_769_860_000.0), 0.0, has_record=True)
    assert again is not None
    letter = by_net(again)
    assert letter.kept_because == ""
    message = message_of(letter, letter.data, Replay(1, 1_769_860_900.0, "r-1"), "other")
    first = as_first_published(Delivery("b", "1234", message.data, message.attributes, 1_769_861_000.0))
    facts = {"message_id": first.message_id, "published_s": first.published_s, "lane": "other"}
    assert ELSEWHERE.forms.decode(first.data, first.attributes, **facts).task_id == letter.task_id
    known = FACTS.forms.decode(b"x", {}, message_id="77", published_s=1_769_860_000.0, lane="lane")
    assert (letter.task_id, letter.shard) == (known.task_id, known.shard)


@given(BYTES, st.dictionaries(NAMES, VALUES, max_size=12), ACCEPTED, st.sampled_from(["", "work"]))
def test_any_message_is_the_same_task_after_its_death_and_a_replay(
    data: bytes, attributes: dict[str, str], accept: tuple[str, ...], default_type: str
) -> None:
    facts = replace(FACTS, accept=accept, default_type=default_type)

    def told(delivery: Delivery) -> tuple[Task, bool]:
        first = as_first_published(delivery)
        known = {"message_id": first.message_id, "published_s": first.published_s, "lane": "lane"}
        task, problem = facts.forms.told(first.data, first.attributes, **known)  # type: ignore[arg-type]
        return task, bool(problem)

    first = as_first_published(Delivery("a", "77", data, attributes, 1_769_860_800.0))
    task, problem = told(first)
    death = {"error_type": "E", "reason": "r", "attempt_count": 1, "execution": "x", "index": 0, "lane": "lane"}
    dead = dead_letter(data, attributes, task_id=task.task_id, message_id=first.message_id, published_s=first.published_s, **death)  # type: ignore[arg-type]
    letter = arrived(Delivery("b", "500", dead.data, dead.attributes, 1_769_860_850.0), {"lane": facts}).letter
    assert (letter.task_id, letter.shard, letter.replay_number) == (task.task_id, task.shard, task.replay_number)
    letter = from_body(json.loads(to_line(letter)))
    message = message_of(letter, letter.data, Replay(letter.replay_number + 1, 1_769_860_860.0, "r-1"), "lane")
    again, refused = told(Delivery("c", "600", message.data, message.attributes, 1_769_860_861.0))
    assert again == replace(task, replay_number=task.replay_number + 1)
    assert refused is problem
