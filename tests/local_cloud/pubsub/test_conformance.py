"""What is true of the local Pub/Sub and of Google's emulator alike, seen through the real clients."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from google.api_core import exceptions
from google.pubsub_v1.types import pubsub

Aside = Callable[[Callable[[], Any]], Callable[[], Any]]


def _bodies(received: list[Any]) -> list[bytes]:
    return [message.message.data for message in received]


def test_a_resource_is_made_once(either: Any) -> None:
    topic = either.topic()
    either.subscription(topic)
    with pytest.raises(exceptions.AlreadyExists):
        either.topic()
    with pytest.raises(exceptions.AlreadyExists):
        either.subscription(topic)


def test_what_was_never_made_is_not_found(either: Any) -> None:
    topic, subscription = f"{either.parent}/topics/none", f"{either.parent}/subscriptions/none"
    calls: list[Callable[[], Any]] = [
        lambda: either.publisher.get_topic(topic=topic),
        lambda: either.publisher.delete_topic(topic=topic),
        lambda: either.publish(topic, b"x"),
        lambda: either.subscription(topic),
        lambda: either.subscriber.get_subscription(subscription=subscription),
        lambda: either.subscriber.delete_subscription(subscription=subscription),
        lambda: either.pull(subscription),
        lambda: either.subscriber.acknowledge(subscription=subscription, ack_ids=["x"]),
    ]
    for call in calls:
        with pytest.raises(exceptions.NotFound):
            call()


@pytest.mark.parametrize("name", ["t1", "9tasks", "goog-tasks", "with space"])
def test_a_bad_name_is_refused(either: Any, name: str) -> None:
    with pytest.raises(exceptions.InvalidArgument):
        either.topic(name)


def test_messages_arrive_whole_and_in_order(either: Any) -> None:
    topic = either.topic()
    subscription = either.subscription(topic)
    messages = [{"data": b"%d" % number, "attributes": {"number": str(number)}} for number in range(20)]
    ids = either.publisher.publish(topic=topic, messages=messages).message_ids
    received = either.pull(subscription, 20)
    assert [message.message.message_id for message in received] == list(ids)
    assert [dict(message.message.attributes) for message in received] == [message["attributes"] for message in messages]
    assert _bodies(received) == [message["data"] for message in messages]
    assert all(message.message.publish_time.timestamp() > 0 for message in received)
    assert len(set(ids)) == 20


def test_every_subscription_gets_a_copy_of_what_comes_after_it(either: Any) -> None:
    topic = either.topic()
    early = either.subscription(topic, "early")
    either.publish(topic, b"first")
    late = either.subscription(topic, "late")
    either.publish(topic, b"second")
    assert _bodies(either.pull(early, 2)) == [b"first", b"second"]
    assert _bodies(either.pull(late)) == [b"second"]


@pytest.mark.parametrize(
    "messages",
    [[], [{"data": b""}], [{"data": b"fine"}, {}], [{"data": b"x"}] * 1001],
    ids=["none", "empty", "one of two empty", "1001"],
)
def test_a_bad_publish_is_refused_as_a_whole(either: Any, messages: list[dict[str, Any]]) -> None:
    topic = either.topic()
    subscription = either.subscription(topic)
    with pytest.raises(exceptions.InvalidArgument):
        either.publisher.publish(topic=topic, messages=messages, retry=None)
    assert either.nothing_left(subscription)


def test_attributes_without_data_and_a_thousand_messages_are_fine(either: Any) -> None:
    topic = either.topic()
    subscription = either.subscription(topic)
    either.publisher.publish(topic=topic, messages=[{"attributes": {"only": "this"}}])
    assert dict(either.pull(subscription)[0].message.attributes) == {"only": "this"}
    either.publish(topic, *[b"%d" % number for number in range(1000)])
    assert sorted(int(body) for body in _bodies(either.pull(subscription, 1000))) == list(range(1000))


def test_an_acknowledged_message_is_gone_and_a_second_acknowledgement_is_fine(either: Any) -> None:
    topic = either.topic()
    subscription = either.subscription(topic)
    either.publish(topic, b"task")
    received = either.pull(subscription)
    either.ack(subscription, received)
    either.ack(subscription, received)
    assert either.nothing_left(subscription)


def test_a_nacked_message_comes_again_with_another_ack_id_and_the_old_one_has_no_effect(either: Any) -> None:
    topic = either.topic()
    subscription = either.subscription(topic)
    either.publish(topic, b"task")
    first = either.pull(subscription)
    either.nack(subscription, first)
    second = either.pull(subscription)
    assert second[0].message == first[0].message
    assert second[0].ack_id != first[0].ack_id
    either.ack(subscription, first)
    either.nack(subscription, second)
    third = either.pull(subscription)
    assert _bodies(third) == [b"task"]
    either.ack(subscription, third)
    assert either.nothing_left(subscription)


def test_a_nacked_message_does_not_hold_up_the_others(either: Any) -> None:
    topic = either.topic()
    subscription = either.subscription(topic)
    either.publish(topic, b"poison", b"good", b"better")
    either.nack(subscription, either.pull(subscription))
    assert _bodies(either.pull(subscription, 3)) == [b"good", b"better", b"poison"]


def test_an_empty_pull_ends_well_before_the_deadline(either: Any) -> None:
    subscription = either.subscription(either.topic())
    assert either.pull(subscription, timeout=2.0) == []


@pytest.mark.filterwarnings("ignore:The return_immediately flag is deprecated")
def test_return_immediately(either: Any) -> None:
    subscription = either.subscription(either.topic())
    request = {"subscription": subscription, "max_messages": 1, "return_immediately": True}
    assert not either.subscriber.pull(request=request, timeout=20).received_messages


def test_a_waiting_pull_gets_what_is_published(either: Any, aside: Aside) -> None:
    topic = either.topic()
    subscription = either.subscription(topic)
    result = aside(lambda: either.pull(subscription, timeout=20))
    either.publish(topic, b"task")
    assert _bodies(result()) == [b"task"]


def test_a_pull_of_nothing_is_refused(either: Any) -> None:
    subscription = either.subscription(either.topic())
    with pytest.raises(exceptions.InvalidArgument):
        either.subscriber.pull(subscription=subscription, max_messages=0, timeout=60)


@pytest.mark.parametrize("call", ["acknowledge", "modify_ack_deadline"])
def test_no_ack_ids_are_refused(either: Any, call: str) -> None:
    subscription = either.subscription(either.topic())
    more = {"ack_deadline_seconds": 10} if call == "modify_ack_deadline" else {}
    with pytest.raises(exceptions.InvalidArgument):
        getattr(either.subscriber, call)(request={"subscription": subscription, "ack_ids": [], **more})


def test_a_negative_deadline_is_refused(either: Any) -> None:
    topic = either.topic()
    subscription = either.subscription(topic)
    either.publish(topic, b"task")
    ids = [message.ack_id for message in either.pull(subscription)]
    with pytest.raises(exceptions.InvalidArgument):
        either.subscriber.modify_ack_deadline(subscription=subscription, ack_ids=ids, ack_deadline_seconds=-1)


def test_a_message_that_failed_five_times_goes_to_the_dead_letters(either: Any) -> None:
    topic, dead_topic = either.topic(), either.topic("dead")
    graveyard = either.subscription(dead_topic, "graveyard")
    subscription = either.subscription(topic, dead_letter_policy={"dead_letter_topic": dead_topic, "max_delivery_attempts": 5})
    either.publisher.publish(topic=topic, messages=[{"data": b"poison", "attributes": {"task": "7"}}])
    attempts = []
    for _ in range(5):
        received = either.pull(subscription)
        attempts.append(received[0].delivery_attempt)
        either.nack(subscription, received)
    assert attempts == [1, 2, 3, 4, 5]
    # Google's emulator forwards when the next pull looks at the message.
    assert either.nothing_left(subscription)
    letter = either.pull(graveyard)[0].message
    assert letter.data == b"poison"
    published = letter.attributes.pop("CloudPubSubDeadLetterSourceTopicPublishTime")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", published)
    assert dict(letter.attributes) == {
        "task": "7",
        "CloudPubSubDeadLetterSourceDeliveryCount": "5",
        "CloudPubSubDeadLetterSourceSubscription": "worker",
        "CloudPubSubDeadLetterSourceSubscriptionProject": either.project,
    }


def test_attempts_are_not_counted_without_a_policy(either: Any) -> None:
    topic = either.topic()
    subscription = either.subscription(topic)
    either.publish(topic, b"task")
    assert either.pull(subscription)[0].delivery_attempt == 0


@pytest.mark.parametrize("attempts", [4, 101])
def test_attempts_outside_of_5_to_100_are_refused(either: Any, attempts: int) -> None:
    topic = either.topic()
    with pytest.raises((exceptions.InvalidArgument, exceptions.OutOfRange)):
        either.subscription(topic, dead_letter_policy={"dead_letter_topic": topic, "max_delivery_attempts": attempts})


def test_a_dead_letter_topic_has_to_exist(either: Any) -> None:
    topic = either.topic()
    with pytest.raises(exceptions.NotFound):
        either.subscription(topic, dead_letter_policy={"dead_letter_topic": f"{topic}-none", "max_delivery_attempts": 5})


@pytest.mark.parametrize(
    "settings",
    [{"ack_deadline_seconds": 700}, {"retry_policy": {"minimum_backoff": {"seconds": 20}, "maximum_backoff": {"seconds": 10}}}],
    ids=["deadline", "backoff"],
)
def test_bad_settings_are_refused(either: Any, settings: dict[str, Any]) -> None:
    topic = either.topic()
    with pytest.raises(exceptions.InvalidArgument):
        either.subscription(topic, **settings)


def test_settings_are_kept_and_changed_by_mask(either: Any) -> None:
    topic = either.topic()
    path = either.subscription(topic, ack_deadline_seconds=20, labels={"lane": "a"})
    request = {
        "subscription": {"name": path, "ack_deadline_seconds": 600, "labels": {"lane": "b"}},
        "update_mask": {"paths": ["ack_deadline_seconds"]},
    }
    assert either.subscriber.update_subscription(request=request).ack_deadline_seconds == 600
    seen = either.subscriber.get_subscription(subscription=path)
    assert (seen.topic, seen.ack_deadline_seconds, dict(seen.labels)) == (topic, 600, {"lane": "a"})


@pytest.mark.parametrize("paths", [[], ["nonsense"], ["topic"], ["labels.a"], ["dead_letter_policy.a"]])
def test_a_bad_mask_is_refused(either: Any, paths: list[str]) -> None:
    path = either.subscription(either.topic())
    with pytest.raises(exceptions.InvalidArgument):
        either.subscriber.update_subscription(request={"subscription": {"name": path}, "update_mask": {"paths": paths}})


def test_lists(either: Any) -> None:
    topics = [either.topic(name) for name in ("one", "two")]
    subscriptions = [either.subscription(topics[0], name) for name in ("aaa", "bbb")]
    other = either.subscription(topics[1], "ccc")
    assert [topic.name for topic in either.publisher.list_topics(project=either.parent)] == topics
    assert [found.name for found in either.subscriber.list_subscriptions(project=either.parent)] == [*subscriptions, other]
    assert list(either.publisher.list_topic_subscriptions(topic=topics[0])) == subscriptions


def test_a_subscription_outlives_its_topic(either: Any) -> None:
    topic = either.topic()
    path = either.subscription(topic)
    either.publish(topic, b"task")
    either.publisher.delete_topic(topic=topic)
    assert either.subscriber.get_subscription(subscription=path).topic == "_deleted-topic_"
    assert _bodies(either.pull(path)) == [b"task"]
    either.subscriber.delete_subscription(subscription=path)
    with pytest.raises(exceptions.NotFound):
        either.pull(path)


def test_subscribe_gets_every_message(either: Any) -> None:
    topic = either.topic()
    subscription = either.subscription(topic)
    either.publish(topic, *[b"%d" % number for number in range(500)])
    seen: set[bytes] = set()
    done = threading.Event()

    def handle(message: Any) -> None:
        message.ack()
        seen.add(message.data)
        if len(seen) == 500:
            done.set()

    future = either.subscriber.subscribe(subscription, handle)
    try:
        assert done.wait(30), f"{len(seen)} of 500 messages arrived"
    finally:
        future.cancel()
        future.result(timeout=30)


@pytest.mark.parametrize("fields", [{}, {"stream_ack_deadline_seconds": 9}, {"stream_ack_deadline_seconds": 601}])
def test_a_stream_needs_a_deadline_of_10_to_600_seconds(either: Any, fields: dict[str, Any]) -> None:
    first = pubsub.StreamingPullRequest(subscription=either.subscription(either.topic()), **fields)
    with pytest.raises(exceptions.InvalidArgument):
        list(either.subscriber.streaming_pull(requests=iter([first]), retry=None, timeout=10))


def test_a_key_comes_in_its_order_and_the_next_run_after_the_first(either: Any) -> None:
    topic = either.topic()
    subscription = either.subscription(topic, enable_message_ordering=True)
    messages = [{"data": b"%s%d" % (key.encode(), number), "ordering_key": key} for number in range(5) for key in "ab"]
    either.publisher.publish(topic=topic, messages=messages)
    received = either.pull(subscription, 10)
    for key in (b"a", b"b"):
        assert [body for body in _bodies(received) if body.startswith(key)] == [b"%s%d" % (key, number) for number in range(5)]
    either.publisher.publish(topic=topic, messages=[{"data": b"a5", "ordering_key": "a"}, {"data": b"c0", "ordering_key": "c"}])
    assert _bodies(either.pull(subscription)) == [b"c0"]
    either.ack(subscription, received)
    assert _bodies(either.pull(subscription)) == [b"a5"]


def test_without_ordering_a_key_means_nothing_but_is_delivered(either: Any) -> None:
    topic = either.topic()
    subscription = either.subscription(topic)
    either.publisher.publish(topic=topic, messages=[{"data": b"%d" % number, "ordering_key": "k"} for number in range(3)])
    first = either.pull(subscription)
    assert len(either.pull(subscription, 2)) == 2
    assert first[0].message.ordering_key == "k"


def test_exactly_once_refuses_stale_ids_the_way_that_clients_understand(either: Any) -> None:
    topic = either.topic()
    subscription = either.subscription(topic, enable_exactly_once_delivery=True)
    either.publish(topic, b"task")
    received = either.pull(subscription)
    either.ack(subscription, received)
    for call, more in (("acknowledge", {}), ("modify_ack_deadline", {"ack_deadline_seconds": 20})):
        ids = [message.ack_id for message in received]
        with pytest.raises(exceptions.InvalidArgument) as refusal:
            getattr(either.subscriber, call)(request={"subscription": subscription, "ack_ids": ids, **more}, retry=None)
        (info,) = refusal.value.details
        assert info.reason == "EXACTLY_ONCE_ACKID_FAILURE"
        assert dict(info.metadata) == {ids[0]: "PERMANENT_FAILURE_INVALID_ACK_ID"}


def test_a_seek_replays_what_is_retained_and_purges(either: Any) -> None:
    topic = either.topic()
    subscription = either.subscription(topic, retain_acked_messages=True)
    either.publish(topic, b"one", b"two")
    either.ack(subscription, either.pull(subscription, 2))
    either.subscriber.seek(request={"subscription": subscription, "time": datetime(2020, 1, 1, tzinfo=UTC)})
    assert sorted(_bodies(either.pull(subscription, 2))) == [b"one", b"two"]
    either.subscriber.seek(request={"subscription": subscription, "time": datetime(2100, 1, 1, tzinfo=UTC)})
    assert either.nothing_left(subscription)
    either.publish(topic, b"three")
    assert _bodies(either.pull(subscription)) == [b"three"]
    with pytest.raises(exceptions.InvalidArgument):
        either.subscriber.seek(request={"subscription": subscription})


def test_a_snapshot_brings_back_what_was_open(either: Any) -> None:
    topic = either.topic()
    subscription = either.subscription(topic)
    either.publish(topic, b"open")
    name = f"{either.parent}/snapshots/snap"
    made = either.subscriber.create_snapshot(name=name, subscription=subscription)
    assert (made.name, made.topic) == (name, topic)
    either.publish(topic, b"later")
    either.ack(subscription, either.pull(subscription, 2))
    either.subscriber.seek(request={"subscription": subscription, "snapshot": name})
    assert sorted(_bodies(either.pull(subscription, 2))) == [b"later", b"open"]
    assert [one.name for one in either.subscriber.list_snapshots(project=either.parent)] == [name]
    assert list(either.publisher.list_topic_snapshots(topic=topic)) == [name]
    either.subscriber.delete_snapshot(snapshot=name)
    with pytest.raises(exceptions.NotFound):
        either.subscriber.seek(request={"subscription": subscription, "snapshot": name})


def test_a_retention_below_ten_minutes_is_refused(either: Any) -> None:
    topic = either.topic()
    with pytest.raises(exceptions.InvalidArgument):
        either.subscription(topic, message_retention_duration={"seconds": 599})
    with pytest.raises(exceptions.InvalidArgument):
        either.publisher.create_topic(request={"name": f"{topic}-2", "message_retention_duration": {"seconds": 599}})


def test_the_retention_of_a_topic_can_be_changed(either: Any) -> None:
    topic = either.topic()
    wanted = {"name": topic, "message_retention_duration": {"seconds": 700}}
    request = {"topic": wanted, "update_mask": {"paths": ["message_retention_duration"]}}
    assert either.publisher.update_topic(request=request).message_retention_duration.seconds == 700


@pytest.mark.parametrize("field", ["enable_exactly_once_delivery", "retain_acked_messages"])
def test_settings_that_can_be_switched(either: Any, field: str) -> None:
    path = either.subscription(either.topic())
    request = {"subscription": {"name": path, field: True}, "update_mask": {"paths": [field]}}
    assert getattr(either.subscriber.update_subscription(request=request), field) is True


@pytest.mark.parametrize(("field", "value"), [("enable_message_ordering", True), ("filter", "attributes:a")])
def test_settings_that_cannot_be_changed(either: Any, field: str, value: Any) -> None:
    path = either.subscription(either.topic())
    request = {"subscription": {"name": path, field: value}, "update_mask": {"paths": [field]}}
    with pytest.raises(exceptions.InvalidArgument):
        either.subscriber.update_subscription(request=request)
