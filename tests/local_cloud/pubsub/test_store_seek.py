"""What a seek can bring back is there again after a restart: retained messages, snapshots, and the settings that decide about them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from google.pubsub_v1.types import pubsub
from hypothesis import given
from hypothesis import strategies as st

from local_cloud.pubsub.model import settings
from local_cloud.pubsub.model.pubsub import PubSub
from local_cloud.pubsub.model.refusal import Refusal
from local_cloud.pubsub.store import Store, keep_state
from tests.local_cloud.manual_clock import ManualClock

TOPIC = "projects/p/topics/tasks"
_RETENTION_S = 600


class Here:
    """A caller who does not wait."""

    def is_connected(self) -> bool:
        return True

    def wait_limit_s(self) -> float:
        return 0.0

    def on_disconnect(self, wake: Callable[[], None]) -> None: ...


class Story:
    """Steps on a model that is stored; `restart` drops the model and reads the file. Steps that are refused do nothing."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        self._folder = folder
        self._store: Store | None = None
        self._number = 0
        self.restart()

    def restart(self) -> None:
        self.end()
        self.model = PubSub(self.clock, random.Random(self._number))
        self._store = keep_state(self.model, self.clock, self._folder, 1_000)

    def end(self) -> None:
        if self._store is not None:
            self._store.close()

    def create_topic(self) -> None:
        self.model.create_topic(TOPIC, pubsub.Topic.pb()(name=TOPIC).SerializeToString())

    def retain_in_topic(self, seconds: int) -> None:
        raw = pubsub.Topic.pb()(name=TOPIC)
        if seconds:
            raw.message_retention_duration.FromSeconds(seconds)
        self.model.configure_topic(TOPIC, raw.SerializeToString())

    def keep_for(self, name: str, seconds: int) -> None:
        raw = pubsub.Subscription.pb().FromString(self.model.subscription(name).settings)
        raw.message_retention_duration.FromSeconds(seconds)
        self.model.configure(name, *settings.completed(raw))

    def delete_topic(self) -> None:
        self.model.delete_topic(TOPIC)

    def subscribe(self, **fields: Any) -> str:
        self._number += 1
        name = f"projects/p/subscriptions/s{self._number:04}"
        given = {"message_retention_duration": {"seconds": _RETENTION_S}, **fields}
        raw = pubsub.Subscription.pb(pubsub.Subscription(name=name, topic=TOPIC, **given))
        self.model.create_subscription(name, TOPIC, *settings.completed(raw))
        return name

    def detach(self, name: str) -> None:
        self.model.detach(name, *settings.detached(self.model.subscription(name).settings))

    def publish(self, count: int = 1) -> None:
        for _ in range(count):
            self._number += 1
            colour, key = ("red", "blue")[self._number % 2], ("", "a", "b")[self._number % 3]
            self.model.publish(TOPIC, [pubsub.PubsubMessage.pb()(data=b"x" * 20, attributes={"colour": colour}, ordering_key=key)])

    def work(self, name: str, count: int, *, acknowledge: bool = True) -> None:
        subscription = self.model.subscription(name)
        ack_ids = [delivery.ack_id for delivery in subscription.pull(count, Here(), wait=False)]
        if acknowledge:
            subscription.acknowledge(ack_ids)
        else:
            subscription.modify(ack_ids, 0)

    def seek(self, name: str, seconds: float) -> None:
        self.model.seek_to_time(name, self.clock.now() + seconds)

    def seek_to_snapshot(self, name: str) -> None:
        for snapshot in self.model.snapshots("projects/p")[:1]:
            self.model.seek_to_snapshot(name, snapshot.name)

    def take_snapshot(self, name: str) -> str:
        self._number += 1
        snapshot = f"projects/p/snapshots/n{self._number:04}"
        self.model.create_snapshot(snapshot, name, {"a": "b"})
        return snapshot

    def label_snapshot(self) -> None:
        for snapshot in self.model.snapshots("projects/p")[-1:]:
            self.model.label_snapshot(snapshot.name, {"c": str(self._number)})

    def delete_snapshot(self) -> None:
        for snapshot in self.model.snapshots("projects/p")[:1]:
            self.model.delete_snapshot(snapshot.name)

    def names(self) -> list[str]:
        return [subscription.name for subscription in self.model.subscriptions("projects/p")]

    def held(self, name: str) -> list[str]:
        return [message.message_id for message in self.model.subscription(name).unacknowledged()]

    def state(self) -> dict[str, Any]:
        """All of it that a client could ever notice, except for leases and attempts."""
        model, now_s = self.model, self.clock.now()
        model.settle()
        found: dict[str, Any] = {}
        for one in model.subscriptions("projects/p"):
            backlog = one._backlog
            horizon_s = backlog._horizon_s(now_s)
            kept = [message.message_id for message in one.unacknowledged() if message.published_s >= horizon_s]
            retained = sorted(message.message_id for message in backlog._retained if message.published_s >= horizon_s)
            found[one.name] = (one.topic, one.settings, kept, retained, one.topic_retention_s)
        for snapshot in model.snapshots("projects/p"):
            found[snapshot.name] = (snapshot.shown(), sorted(message.message_id for message in snapshot.messages()))
        for topic in model.topics("projects/p"):
            attached = sorted(one.name for one in topic.subscriptions())
            retained = [message.message_id for message in topic.retained(now_s)]
            found[topic.name] = (topic.settings, attached, retained, sorted(one.name for one in topic.snapshots()))
        return found


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    story = Story(tmp_path)
    story.create_topic()
    yield story
    story.end()


def test_retained_messages_come_back_by_a_seek_after_a_restart(story: Story) -> None:
    name = story.subscribe(retain_acked_messages=True, filter='attributes.colour = "red"')
    start_s = story.clock.now()
    story.publish(6)
    wanted = story.held(name)
    assert len(wanted) == 3
    story.work(name, 10)
    assert story.held(name) == []
    for _ in range(2):
        story.restart()
        assert story.held(name) == []
    story.model.seek_to_time(name, start_s)
    assert story.held(name) == wanted
    for _ in range(2):
        story.restart()
        assert story.held(name) == wanted
    story.seek(name, 1)
    story.restart()
    assert story.held(name) == []


def test_what_a_topic_retains_reaches_a_later_subscription_after_a_restart(story: Story) -> None:
    story.retain_in_topic(_RETENTION_S)
    start_s = story.clock.now()
    story.publish(3)
    story.restart()
    name = story.subscribe()
    assert story.held(name) == []
    story.model.seek_to_time(name, start_s)
    wanted = story.held(name)
    assert len(wanted) == 3
    for _ in range(2):
        story.restart()
        assert story.held(name) == wanted


def test_a_snapshot_survives_with_its_labels_and_messages(story: Story) -> None:
    name = story.subscribe()
    story.publish(3)
    story.work(name, 1)
    snapshot = story.take_snapshot(name)
    story.label_snapshot()
    story.publish(2)
    wanted = story.held(name)
    story.work(name, 10)
    for _ in range(2):
        story.restart()
    assert dict(story.model.snapshot(snapshot).shown().labels).keys() == {"c"}
    story.model.seek_to_snapshot(name, snapshot)
    assert story.held(name) == wanted
    story.model.delete_snapshot(snapshot)
    story.restart()
    assert story.held(name) == wanted
    with pytest.raises(Refusal, match="NOT_FOUND"):
        story.model.snapshot(snapshot)


def test_a_detached_subscription_stays_detached(story: Story) -> None:
    name = story.subscribe()
    story.publish(2)
    story.detach(name)
    story.publish(2)
    story.restart()
    story.publish(2)
    assert story.held(name) == []
    with pytest.raises(Refusal, match="FAILED_PRECONDITION"):
        story.work(name, 1)


@pytest.mark.parametrize("settle_first", [False, True])
def test_a_longer_retention_brings_nothing_back_that_was_too_old_whoever_looked_before(story: Story, settle_first: bool) -> None:
    story.retain_in_topic(2 * _RETENTION_S)
    name = story.subscribe(retain_acked_messages=True)
    waiting = story.subscribe()
    start_s = story.clock.now()
    story.publish(3)
    story.work(name, 10)
    story.retain_in_topic(0)
    story.clock.advance(_RETENTION_S + 1)
    if settle_first:
        story.restart()
    story.retain_in_topic(2 * _RETENTION_S)
    story.keep_for(waiting, 2 * _RETENTION_S)
    for _ in range(2):
        story.model.seek_to_time(name, start_s)
        assert story.state()[name][2:4] == ([], [])
        assert story.state()[waiting][2] == []
        assert story.model.subscription(waiting).pull(10, Here(), wait=False) == []
        story.restart()


def test_a_message_that_only_the_topics_retention_keeps_is_there_after_a_restart(story: Story) -> None:
    story.retain_in_topic(2 * _RETENTION_S)
    name = story.subscribe()
    story.publish(1)
    wanted = story.held(name)
    story.clock.advance(_RETENTION_S + 1)
    for _ in range(2):
        assert story.state()[name][2] == wanted
        story.restart()


def test_a_new_subscription_reaches_back_as_far_as_its_topic(story: Story) -> None:
    story.retain_in_topic(2 * _RETENTION_S)
    start_s = story.clock.now()
    story.publish(3)
    story.clock.advance(_RETENTION_S + 1)
    name = story.subscribe()
    story.model.seek_to_time(name, start_s)
    assert len(story.state()[name][2]) == 3


a_step = st.one_of(
    st.tuples(st.just("publish"), st.integers(1, 4)),
    st.tuples(st.sampled_from(["ack", "nack"]), st.integers(1, 5)),
    st.tuples(st.just("seek"), st.sampled_from([-400, -100, 0, 1])),
    st.tuples(st.just("advance"), st.sampled_from([50, 300])),
    st.tuples(st.just("subscribe"), st.integers(0, 7)),
    st.tuples(st.just("topic"), st.sampled_from([0, _RETENTION_S, 2 * _RETENTION_S])),
    st.tuples(st.just("keep"), st.sampled_from([_RETENTION_S, 2 * _RETENTION_S])),
    st.tuples(
        st.sampled_from(["detach", "unsubscribe", "snapshot", "seek to it", "label it", "delete it", "delete topic", "restart"]), st.just(0)
    ),
)


def take_step(story: Story, kind: str, value: int, name: str) -> None:
    fields = {"retain_acked_messages": bool(value & 1), "enable_message_ordering": bool(value & 2)}
    if value & 4:
        fields["filter"] = 'attributes:colour AND NOT attributes.colour = "blue"'  # type: ignore[assignment]
    steps: dict[str, Callable[[], object]] = {
        "publish": lambda: story.publish(value),
        "ack": lambda: story.work(name, value),
        "nack": lambda: story.work(name, value, acknowledge=False),
        "seek": lambda: story.seek(name, value),
        "advance": lambda: story.clock.advance(value),
        "subscribe": lambda: story.subscribe(**fields),
        "topic": lambda: story.retain_in_topic(value),
        "keep": lambda: story.keep_for(name, value),
        "detach": lambda: story.detach(name),
        "unsubscribe": lambda: story.model.delete_subscription(name),
        "snapshot": lambda: story.take_snapshot(name),
        "seek to it": lambda: story.seek_to_snapshot(name),
        "label it": story.label_snapshot,
        "delete it": story.delete_snapshot,
        "delete topic": story.delete_topic,
        "restart": story.restart,
    }
    with suppress(Refusal):
        steps[kind]()


@given(st.lists(a_step, max_size=40), st.randoms(use_true_random=False))
def test_after_any_story_a_restart_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]], rng: random.Random
) -> None:
    story = Story(tmp_path_factory.mktemp("story"))
    try:
        for kind, value in steps:
            if not story.model.topics("projects/p"):
                story.create_topic()
            take_step(story, kind, value, rng.choice(story.names() or ["projects/p/subscriptions/none"]))
        expected = story.state()
        for _ in range(2):
            story.restart()
            assert story.state() == expected
    finally:
        story.end()
