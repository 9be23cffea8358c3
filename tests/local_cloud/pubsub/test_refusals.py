"""What is refused, by the local Pub/Sub and by Google's emulator alike: names of a wrong form, and snapshots of other topics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from google.api_core import exceptions
from google.pubsub_v1.types import pubsub

CALLS: dict[str, Callable[[Any, str], Any]] = {
    "get topic": lambda cloud, name: cloud.publisher.get_topic(topic=name, retry=None),
    "delete topic": lambda cloud, name: cloud.publisher.delete_topic(topic=name, retry=None),
    "publish": lambda cloud, name: cloud.publisher.publish(topic=name, messages=[{"data": b"x"}], retry=None),
    "get subscription": lambda cloud, name: cloud.subscriber.get_subscription(subscription=name, retry=None),
    "pull": lambda cloud, name: cloud.subscriber.pull(subscription=name, max_messages=1, timeout=60, retry=None),
    "acknowledge": lambda cloud, name: cloud.subscriber.acknowledge(subscription=name, ack_ids=["x"], retry=None),
    "delete snapshot": lambda cloud, name: cloud.subscriber.delete_snapshot(snapshot=name, retry=None),
    "stream": lambda cloud, name: list(
        cloud.subscriber.streaming_pull(
            requests=iter([pubsub.StreamingPullRequest(subscription=name, stream_ack_deadline_seconds=10)]), retry=None, timeout=60
        )
    ),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_name_of_a_wrong_form_is_no_missing_resource(either: Any, call: Callable[[Any, str], Any]) -> None:
    with pytest.raises(exceptions.InvalidArgument, match="name=nonsense"):
        call(either, "nonsense")


def _snapshot(cloud: Any, subscription: str) -> str:
    name = f"{cloud.parent}/snapshots/before"
    cloud.subscriber.create_snapshot(name=name, subscription=subscription)
    return name


def _refused_seek(cloud: Any, subscription: str, snapshot: str) -> None:
    with pytest.raises(exceptions.FailedPrecondition, match="topic"):
        cloud.subscriber.seek(request={"subscription": subscription, "snapshot": snapshot}, retry=None)


def test_a_snapshot_of_another_topic_is_refused(either: Any) -> None:
    foreign = _snapshot(either, either.subscription(either.topic("others"), "others"))
    _refused_seek(either, either.subscription(either.topic()), foreign)


def test_a_snapshot_of_a_deleted_topic_is_refused_also_by_a_subscription_of_another_deleted_one(either: Any) -> None:
    topic, other = either.topic(), either.topic("others")
    subscription, elsewhere = either.subscription(topic), either.subscription(other, "others")
    either.publish(other, b"of another topic")
    snapshot = _snapshot(either, elsewhere)
    for path in (topic, other):
        either.publisher.delete_topic(topic=path)
    _refused_seek(either, subscription, snapshot)
    _refused_seek(either, elsewhere, snapshot)
    assert either.nothing_left(subscription)
