"""Seek, snapshots and retention, and subscriptions that are cut off: through the real clients, with a clock that is moved."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from google.api_core import exceptions

DAY_S = 86_400


def _now(local_server: Any) -> datetime:
    return datetime.fromtimestamp(local_server.clock.now(), UTC)


def _bodies(received: list[Any]) -> list[bytes]:
    return [message.message.data for message in received]


def _seek(cloud: Any, subscription: str, **target: Any) -> None:
    cloud.subscriber.seek(request={"subscription": subscription, **target})


def _snapshot(cloud: Any, subscription: str, name: str = "before", **fields: Any) -> str:
    path = f"{cloud.parent}/snapshots/{name}"
    cloud.subscriber.create_snapshot(request={"name": path, "subscription": subscription, **fields})
    return path


def test_a_seek_to_the_past_brings_back_what_is_retained_after_that_time(cloud: Any, local_server: Any) -> None:
    topic = cloud.topic()
    keeping = cloud.subscription(topic, "keeping", retain_acked_messages=True)
    forgetting = cloud.subscription(topic, "forgetting")
    cloud.publish(topic, b"old")
    local_server.clock.advance(1)
    moment = _now(local_server)
    cloud.publish(topic, b"new", b"newer")
    for path in (keeping, forgetting):
        cloud.ack(path, cloud.pull(path, 3))
        _seek(cloud, path, time=moment)
    assert _bodies(cloud.pull(keeping, 2)) == [b"new", b"newer"]
    assert cloud.nothing_left(keeping)
    assert cloud.nothing_left(forgetting)


def test_a_seek_drops_what_is_older_and_ends_leases(cloud: Any, local_server: Any) -> None:
    topic = cloud.topic()
    subscription = cloud.subscription(topic)
    cloud.publish(topic, b"old")
    local_server.clock.advance(1)
    moment = _now(local_server)
    cloud.publish(topic, b"new")
    first = cloud.pull(subscription, 2)
    _seek(cloud, subscription, time=moment)
    cloud.ack(subscription, first)
    assert _bodies(cloud.pull(subscription)) == [b"new"]
    assert local_server.model.subscription(subscription).counts()[:2] == (1, 1)


def test_a_seek_to_the_future_purges_but_not_what_comes_after_it(cloud: Any, local_server: Any) -> None:
    topic = cloud.topic()
    subscription = cloud.subscription(topic, retain_acked_messages=True)
    cloud.publish(topic, b"one", b"two")
    _seek(cloud, subscription, time=datetime.fromtimestamp(local_server.clock.now() + 3_600, UTC))
    cloud.publish(topic, b"three")
    assert _bodies(cloud.pull_all(subscription)) == [b"three"]
    # What was purged counts as acknowledged, and is retained.
    _seek(cloud, subscription, time=datetime.fromtimestamp(0, UTC))
    assert _bodies(cloud.pull(subscription, 3)) == [b"one", b"two", b"three"]


def test_what_is_older_than_the_retention_does_not_come_back(cloud: Any, local_server: Any) -> None:
    topic = cloud.topic()
    subscription = cloud.subscription(topic, retain_acked_messages=True, message_retention_duration={"seconds": 600})
    cloud.publish(topic, b"old")
    cloud.ack(subscription, cloud.pull(subscription))
    local_server.clock.advance(400)
    cloud.publish(topic, b"new")
    cloud.ack(subscription, cloud.pull(subscription))
    local_server.clock.advance(300)
    _seek(cloud, subscription, time=datetime.fromtimestamp(0, UTC))
    assert _bodies(cloud.pull_all(subscription)) == [b"new"]


def test_a_topic_that_retains_messages_gives_them_to_subscriptions_that_came_later(cloud: Any, local_server: Any) -> None:
    topic = f"{cloud.parent}/topics/tasks"
    cloud.publisher.create_topic(request={"name": topic, "message_retention_duration": {"seconds": 3_600}})
    messages = [{"data": b"en", "attributes": {"lang": "en"}}, {"data": b"de", "attributes": {"lang": "de"}}]
    cloud.publisher.publish(topic=topic, messages=messages)
    subscription = cloud.subscription(topic, filter='attributes.lang = "de"')
    assert cloud.subscriber.get_subscription(subscription=subscription).topic_message_retention_duration.seconds == 3_600
    assert cloud.nothing_left(subscription)
    _seek(cloud, subscription, time=datetime.fromtimestamp(0, UTC))
    received = cloud.pull(subscription)
    assert _bodies(received) == [b"de"]
    cloud.ack(subscription, received)
    local_server.clock.advance(3_700)
    _seek(cloud, subscription, time=datetime.fromtimestamp(0, UTC))
    assert cloud.nothing_left(subscription)


def test_what_a_topic_retains_outlives_the_retention_of_a_subscription(cloud: Any, local_server: Any) -> None:
    topic = f"{cloud.parent}/topics/tasks"
    cloud.publisher.create_topic(request={"name": topic, "message_retention_duration": {"seconds": 3_600}})
    subscription = cloud.subscription(topic, message_retention_duration={"seconds": 600})
    cloud.publish(topic, b"task")
    local_server.clock.advance(1_000)
    assert _bodies(cloud.pull(subscription)) == [b"task"]
    _seek(cloud, subscription, time=datetime.fromtimestamp(0, UTC))
    assert _bodies(cloud.pull(subscription)) == [b"task"]


def test_a_snapshot_holds_what_was_not_acknowledged_and_all_that_came_after(cloud: Any) -> None:
    topic = cloud.topic()
    source, other = cloud.subscription(topic, "source"), cloud.subscription(topic, "other")
    cloud.publish(topic, b"done", b"open")
    cloud.ack(source, cloud.pull(source))
    path = _snapshot(cloud, source)
    cloud.publish(topic, b"later")
    for subscription in (source, other):
        cloud.ack(subscription, cloud.pull(subscription, 2 if subscription == source else 3))
        _seek(cloud, subscription, snapshot=path)
        assert _bodies(cloud.pull(subscription, 2)) == [b"open", b"later"]
        assert cloud.nothing_left(subscription)


def test_snapshots_are_shown_listed_changed_and_deleted(cloud: Any) -> None:
    topic = cloud.topic()
    subscription = cloud.subscription(topic)
    paths = [_snapshot(cloud, subscription, name, labels={"lane": name}) for name in ("aaa", "bbb")]
    with pytest.raises(exceptions.AlreadyExists):
        _snapshot(cloud, subscription, "aaa")
    seen = cloud.subscriber.get_snapshot(snapshot=paths[0])
    assert (seen.name, seen.topic, dict(seen.labels)) == (paths[0], topic, {"lane": "aaa"})
    assert [one.name for one in cloud.subscriber.list_snapshots(project=cloud.parent)] == paths
    assert list(cloud.publisher.list_topic_snapshots(topic=topic)) == paths
    request = {"snapshot": {"name": paths[0], "labels": {"lane": "x"}}, "update_mask": {"paths": ["labels"]}}
    assert dict(cloud.subscriber.update_snapshot(request=request).labels) == {"lane": "x"}
    cloud.subscriber.delete_snapshot(snapshot=paths[0])
    with pytest.raises(exceptions.NotFound):
        cloud.subscriber.get_snapshot(snapshot=paths[0])
    assert list(cloud.publisher.list_topic_snapshots(topic=topic)) == paths[1:]


def test_a_snapshot_lives_seven_days_minus_the_age_of_the_backlog(cloud: Any, local_server: Any) -> None:
    topic = cloud.topic()
    subscription = cloud.subscription(topic, message_retention_duration={"seconds": 31 * DAY_S})
    cloud.publish(topic, b"old")
    local_server.clock.advance(3 * DAY_S)
    path = _snapshot(cloud, subscription)
    left_s = cloud.subscriber.get_snapshot(snapshot=path).expire_time.timestamp() - local_server.clock.now()
    assert 4 * DAY_S - 60 < left_s <= 4 * DAY_S
    local_server.clock.advance(4 * DAY_S)
    with pytest.raises(exceptions.NotFound):
        cloud.subscriber.get_snapshot(snapshot=path)
    with pytest.raises(exceptions.FailedPrecondition, match="less than 1 hour"):
        _snapshot(cloud, subscription, "late")


def test_a_seek_needs_a_target_that_fits(cloud: Any) -> None:
    subscription = cloud.subscription(cloud.topic())
    foreign = _snapshot(cloud, cloud.subscription(cloud.topic("others"), "others"))
    with pytest.raises(exceptions.InvalidArgument, match="either a time or a snapshot"):
        _seek(cloud, subscription)
    with pytest.raises(exceptions.FailedPrecondition, match="another"):
        _seek(cloud, subscription, snapshot=foreign)
    with pytest.raises(exceptions.NotFound):
        _seek(cloud, subscription, snapshot=f"{foreign}-none")


def test_a_seek_wakes_a_waiting_pull(cloud: Any, local_server: Any, aside: Any) -> None:
    topic = cloud.topic()
    subscription = cloud.subscription(topic, retain_acked_messages=True)
    cloud.publish(topic, b"task")
    cloud.ack(subscription, cloud.pull(subscription))
    result = aside(lambda: cloud.pull(subscription, timeout=20))
    _seek(cloud, subscription, time=datetime.fromtimestamp(0, UTC))
    assert _bodies(result()) == [b"task"]


def test_ordering_survives_a_seek(cloud: Any) -> None:
    topic = cloud.topic()
    subscription = cloud.subscription(topic, retain_acked_messages=True, enable_message_ordering=True)
    cloud.publisher.publish(topic=topic, messages=[{"data": b"%d" % number, "ordering_key": "k"} for number in range(4)])
    received = cloud.pull(subscription, 4)
    cloud.ack(subscription, received[::-1])
    assert cloud.nothing_left(subscription)
    _seek(cloud, subscription, time=datetime.fromtimestamp(0, UTC))
    assert _bodies(cloud.pull(subscription, 4)) == [b"0", b"1", b"2", b"3"]


def test_a_detached_subscription_has_nothing_gets_nothing_and_says_so(cloud: Any, local_server: Any, aside: Any) -> None:
    topic = cloud.topic()
    subscription = cloud.subscription(topic)
    cloud.publish(topic, b"task")
    cloud.publisher.detach_subscription(request={"subscription": subscription})
    with pytest.raises(exceptions.FailedPrecondition, match="detached"):
        cloud.pull(subscription)
    cloud.publish(topic, b"later")
    assert local_server.model.subscription(subscription).counts()[0] == 0
    seen = cloud.subscriber.get_subscription(subscription=subscription)
    assert (seen.detached, seen.topic) == (True, topic)
    assert list(cloud.publisher.list_topic_subscriptions(topic=topic)) == []


def test_a_topic_can_be_changed(cloud: Any) -> None:
    topic = cloud.topic()
    subscription = cloud.subscription(topic)
    wanted = {"name": topic, "labels": {"lane": "a"}, "message_retention_duration": {"seconds": 700}}
    paths = ["labels", "message_retention_duration"]
    changed = cloud.publisher.update_topic(request={"topic": wanted, "update_mask": {"paths": paths}})
    assert (dict(changed.labels), changed.message_retention_duration.seconds) == ({"lane": "a"}, 700)
    assert cloud.publisher.get_topic(topic=topic) == changed
    assert cloud.subscriber.get_subscription(subscription=subscription).topic_message_retention_duration.seconds == 700
    cloud.publisher.update_topic(request={"topic": {"name": topic}, "update_mask": {"paths": paths}})
    assert "message_retention_duration" not in cloud.publisher.get_topic(topic=topic)
    for paths in (["name"], ["nonsense"], []):
        with pytest.raises(exceptions.InvalidArgument, match="update_mask"):
            cloud.publisher.update_topic(request={"topic": wanted, "update_mask": {"paths": paths}})


@pytest.mark.parametrize("seconds", [599, 31 * DAY_S + 1])
def test_retention_has_bounds(cloud: Any, seconds: int) -> None:
    topic = cloud.topic()
    with pytest.raises(exceptions.InvalidArgument, match="message_retention_duration"):
        cloud.subscription(topic, message_retention_duration={"seconds": seconds})
    with pytest.raises(exceptions.InvalidArgument, match="message_retention_duration"):
        cloud.publisher.create_topic(request={"name": f"{topic}-2", "message_retention_duration": {"seconds": seconds}})


def test_what_the_filter_does_not_want_counts_as_acknowledged(cloud: Any, local_server: Any) -> None:
    topic = cloud.topic()
    subscription = cloud.subscription(topic, filter='attributes:lang AND NOT hasPrefix(attributes.lang, "e")')
    langs = ["en", "de", "", None]
    messages = [{"data": str(lang).encode(), "attributes": {} if lang is None else {"lang": lang}} for lang in langs]
    cloud.publisher.publish(topic=topic, messages=messages)
    assert local_server.model.subscription(subscription).counts()[0] == 2
    assert _bodies(cloud.pull(subscription, 2)) == [b"de", b""]


@pytest.mark.parametrize("text", ["attributes", "attributes:a AND attributes:b OR attributes:c", "x" * 257])
def test_a_bad_filter_is_refused_with_its_position(cloud: Any, text: str) -> None:
    topic = cloud.topic()
    with pytest.raises(exceptions.InvalidArgument, match=r"Invalid filter at position \d+"):
        cloud.subscription(topic, filter=text)


def test_filter_and_ordering_cannot_be_changed(cloud: Any) -> None:
    path = cloud.subscription(cloud.topic(), filter="attributes:a")
    for field, value in (("filter", "attributes:b"), ("enable_message_ordering", True)):
        with pytest.raises(exceptions.InvalidArgument, match="not mutable"):
            cloud.subscriber.update_subscription(request={"subscription": {"name": path, field: value}, "update_mask": {"paths": [field]}})


def test_an_expiration_below_a_day_is_refused(cloud: Any) -> None:
    topic = cloud.topic()
    with pytest.raises(exceptions.InvalidArgument, match="ttl"):
        cloud.subscription(topic, expiration_policy={"ttl": {"seconds": DAY_S - 1}})
    path = cloud.subscription(topic, expiration_policy={})
    assert not cloud.subscriber.get_subscription(subscription=path).expiration_policy.ttl
