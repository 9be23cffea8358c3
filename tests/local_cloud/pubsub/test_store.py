"""What a later process has: everything that was confirmed, nothing that was acknowledged, no lease, no id twice."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from google.pubsub_v1.types import pubsub
from hypothesis import given
from hypothesis import strategies as st

from local_cloud.database import Database
from local_cloud.pubsub.messages.delivery import Delivery
from local_cloud.pubsub.model import settings
from local_cloud.pubsub.model.pubsub import DELETED_TOPIC, PubSub
from local_cloud.pubsub.model.refusal import Refusal
from local_cloud.pubsub.model.subscription import Subscription
from local_cloud.pubsub.store import SWEEP_BYTES, Store, keep_state
from tests.local_cloud.manual_clock import ManualClock

TOPIC = "projects/p/topics/tasks"
DEAD = "projects/p/topics/dead"
NAME = "projects/p/subscriptions/workers"


class Here:
    """A caller who does not wait."""

    def is_connected(self) -> bool:
        return True

    def wait_limit_s(self) -> float:
        return 0.0

    def on_disconnect(self, wake: Callable[[], None]) -> None: ...


class Life:
    """One process after another on the same folder; the clock goes on."""

    def __init__(self, folder: Path, sweep_bytes: int = SWEEP_BYTES) -> None:
        self.clock = ManualClock()
        self._folder = folder
        self._sweep_bytes = sweep_bytes
        self._rng = random.Random(1)
        self._stores: list[Store] = []
        self.restart()

    def restart(self) -> None:
        """Nothing is told to the old model: as after a kill."""
        self.end()
        self.model = PubSub(self.clock, random.Random(self._rng.getrandbits(64)))
        self.store = keep_state(self.model, self.clock, self._folder, self._sweep_bytes)
        self._stores.append(self.store)

    def end(self) -> None:
        while self._stores:
            self._stores.pop().close()

    def subscribe(self, name: str = NAME, topic: str = TOPIC, **fields: object) -> Subscription:
        raw = pubsub.Subscription(name=name, topic=topic, **fields)
        return self.model.create_subscription(name, topic, *settings.completed(pubsub.Subscription.pb(raw)))

    def publish(self, *bodies: bytes, topic: str = TOPIC) -> list[str]:
        return [str(one) for one in self.model.publish(topic, [pubsub.PubsubMessage.pb()(data=body) for body in bodies]).ids]

    def pull(self, count: int = 1_000, name: str = NAME) -> list[Delivery]:
        return self.model.subscription(name).pull(count, Here(), wait=False)

    def acknowledge(self, deliveries: list[Delivery], name: str = NAME) -> None:
        self.model.subscription(name).acknowledge([delivery.ack_id for delivery in deliveries])

    def nack(self, deliveries: list[Delivery]) -> None:
        self.model.subscription(NAME).modify([delivery.ack_id for delivery in deliveries], 0)


def bodies(deliveries: list[Delivery]) -> list[bytes]:
    return [pubsub.PubsubMessage.pb().FromString(delivery.message.body).data for delivery in deliveries]


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    life = Life(tmp_path / "state")
    for topic in (TOPIC, DEAD):
        life.model.create_topic(topic, pubsub.Topic.pb()(name=topic, labels={"a": "b"}).SerializeToString())
    yield life
    life.end()


def test_topics_and_settings_are_there_again(life: Life) -> None:
    life.subscribe(ack_deadline_seconds=77, labels={"x": "y"})
    life.subscribe(f"{NAME}-2")
    life.model.configure(f"{NAME}-2", *settings.completed(pubsub.Subscription.pb()(name=f"{NAME}-2", ack_deadline_seconds=88)))
    life.subscribe(f"{NAME}-3")
    life.model.delete_subscription(f"{NAME}-3")
    before = [(one.name, one.topic, one.settings, one.policy) for one in life.model.subscriptions("projects/p")]
    topics = [(one.name, one.settings) for one in life.model.topics("projects/p")]
    life.restart()
    assert [(one.name, one.topic, one.settings, one.policy) for one in life.model.subscriptions("projects/p")] == before
    assert [(one.name, one.settings) for one in life.model.topics("projects/p")] == topics
    assert [one.policy.ack_deadline_s for one in life.model.subscriptions("projects/p")] == [77, 88]


def test_a_deleted_topic_leaves_its_subscription_and_messages(life: Life) -> None:
    life.subscribe()
    life.publish(b"1")
    life.model.delete_topic(TOPIC)
    life.restart()
    assert life.model.subscription(NAME).topic == DELETED_TOPIC
    life.model.create_topic(TOPIC, b"")
    life.publish(b"not for it")
    life.restart()
    assert bodies(life.pull()) == [b"1"]


def test_leases_are_gone_and_ack_ids_of_before_have_no_effect(life: Life) -> None:
    life.subscribe()
    sent = life.publish(b"1", b"2", b"3")
    taken = life.pull(2)
    life.acknowledge(taken[:1])
    life.restart()
    life.acknowledge(taken)
    again = life.pull()
    assert bodies(again) == [b"2", b"3"]
    assert [delivery.message.message_id for delivery in again] == sent[1:]
    assert {delivery.ack_id for delivery in again}.isdisjoint(delivery.ack_id for delivery in taken)
    life.acknowledge(again)
    life.restart()
    assert life.pull() == []


def test_each_subscription_has_its_own(life: Life) -> None:
    life.subscribe()
    life.publish(b"1")
    life.subscribe(f"{NAME}-2")
    life.publish(b"2")
    life.acknowledge(life.pull(1))
    for _ in range(2):
        life.restart()
        assert bodies(life.pull()) == [b"2"]
        assert bodies(life.pull(name=f"{NAME}-2")) == [b"2"]


def test_message_ids_never_repeat_even_when_the_clock_went_back(life: Life) -> None:
    life.subscribe()
    life.clock.advance(1_000)
    used = life.publish(b"1", b"2")
    life.acknowledge(life.pull())
    life.clock.advance(0)
    life.clock = ManualClock()
    for _ in range(3):
        life.restart()
        used += life.publish(b"again")
        life.acknowledge(life.pull())
    assert len(set(used)) == 5
    assert sorted(used, key=int) == used


def test_attempts_count_on_and_dead_letters_stay_where_they_went(life: Life) -> None:
    life.subscribe(dead_letter_policy=pubsub.DeadLetterPolicy(dead_letter_topic=DEAD, max_delivery_attempts=5))
    life.subscribe("projects/p/subscriptions/dead", DEAD)
    life.publish(b"poison", b"good")
    for attempt in range(5):
        taken = life.pull()
        assert sorted((body, delivery.failure_count) for body, delivery in zip(bodies(taken), taken, strict=True)) == [
            (b"good", 0),
            (b"poison", attempt),
        ]
        life.nack([delivery for delivery, body in zip(taken, bodies(taken), strict=True) if body == b"poison"])
        life.restart()
    assert bodies(life.pull()) == [b"good"]
    assert bodies(life.pull(name="projects/p/subscriptions/dead")) == [b"poison"]


def test_messages_that_are_too_old_are_not_kept_in_the_file(life: Life) -> None:
    life.subscribe(message_retention_duration={"seconds": 600})
    life.publish(b"x" * 1_000_000)
    life.publish(b"the last one")
    life.restart()
    assert life.store.used_bytes > 1_000_000
    life.clock.advance(601)
    life.restart()
    assert life.store.used_bytes < 200_000
    assert life.pull() == []


def test_messages_that_no_filter_wants_are_not_kept_in_the_file(life: Life) -> None:
    life.subscribe(filter="attributes:wanted")
    life.publish(b"x" * 1_000_000)
    life.publish(b"the last one")
    life.restart()
    assert life.store.used_bytes < 200_000


def test_the_file_stays_small_while_messages_come_and_go(tmp_path: Path) -> None:
    life = Life(tmp_path, sweep_bytes=500_000)
    life.model.create_topic(TOPIC, b"")
    life.subscribe()
    life.publish(b"stays" * 10_000)
    staying = life.pull()
    for _ in range(100):
        life.publish(b"comes" * 10_000)
        life.acknowledge(life.pull())
        assert life.store.used_bytes < 1_500_000
    life.end()
    life.restart()
    assert [delivery.message.message_id for delivery in life.pull()] == [staying[0].message.message_id]
    life.end()


def test_nothing_is_confirmed_that_could_not_be_written(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    life.subscribe()
    life.publish(b"1")
    taken = life.pull()

    def full(*_arguments: object) -> NoReturn:
        raise OSError("no space")

    with monkeypatch.context() as patched:
        patched.setattr(Database, "_writing", full)
        for call in (
            lambda: life.publish(b"2"),
            lambda: life.acknowledge(taken),
            lambda: life.model.create_topic(f"{TOPIC}-2", b""),
            lambda: life.model.delete_topic(TOPIC),
            lambda: life.model.delete_subscription(NAME),
        ):
            with pytest.raises(Refusal, match="UNAVAILABLE: no space"):
                call()
    life.restart()
    assert bodies(life.pull()) == [b"1"]
    assert [topic.name for topic in life.model.topics("projects/p")] == [DEAD, TOPIC]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(1, 3)),
        st.tuples(st.sampled_from(["ack", "nack"]), st.integers(1, 4)),
        st.tuples(st.sampled_from(["subscribe", "unsubscribe", "forget topic", "restart"]), st.just(0)),
    ),
    max_size=40,
)


@given(steps)
def test_any_story_is_told_the_same_after_a_restart(tmp_path_factory: pytest.TempPathFactory, story: list[tuple[str, int]]) -> None:
    """Beside the model goes a plain dictionary: subscription to ids without an acknowledgement."""
    life = Life(tmp_path_factory.mktemp("story"), sweep_bytes=1_000)
    expected: dict[str, set[str]] = {}
    attached: set[str] = set()
    there = False
    number = 0
    for step, count in story:
        if not there:
            life.model.create_topic(TOPIC, b"")
            there = True
        if step == "publish":
            ids = life.publish(*[b"x" * 40] * count)
            for name in attached:
                expected[name].update(ids)
        elif step == "subscribe":
            number += 1
            life.subscribe(f"{NAME}-{number}")
            expected[f"{NAME}-{number}"] = set()
            attached.add(f"{NAME}-{number}")
        elif step == "unsubscribe" and expected:
            name = min(expected)
            life.model.delete_subscription(name)
            del expected[name]
            attached.discard(name)
        elif step == "forget topic":
            life.model.delete_topic(TOPIC)
            attached.clear()
            there = False
        elif step in ("ack", "nack"):
            for name, held in expected.items():
                taken = life.pull(count, name)
                if step == "ack":
                    life.acknowledge(taken, name)
                    held -= {delivery.message.message_id for delivery in taken}
                else:
                    life.model.subscription(name).modify([delivery.ack_id for delivery in taken], 0)
        elif step == "restart":
            life.restart()
    life.restart()
    found = {
        one.name: {delivery.message.message_id for delivery in life.pull(name=one.name)} for one in life.model.subscriptions("projects/p")
    }
    assert found == expected
    life.end()
