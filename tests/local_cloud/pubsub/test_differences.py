"""Where Google's emulator does not do what the real service's documentation says, and the local Pub/Sub does.

`DIFFERENCES` is the list; each entry is tried on both, so that none of them can go stale.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from google.api_core import exceptions


@dataclass(frozen=True)
class Difference:
    """`seen` is tried on a server and says what happened: `local` there, and `google` on Google's emulator."""

    topic: str
    seen: Callable[[Any], object]
    local: object
    google: object
    text: str


def _refusal(call: Callable[[], Any]) -> str:
    try:
        call()
    except exceptions.GoogleAPICallError as error:
        return type(error).__name__
    return "accepted"


def _bodies(received: list[Any]) -> list[bytes]:
    return [message.message.data for message in received]


def _filtered(cloud: Any) -> list[bytes]:
    topic = cloud.topic()
    subscription = cloud.subscription(topic, filter='attributes.lang = "en"')
    messages = [{"data": lang.encode(), "attributes": {"lang": lang}} for lang in ("en", "de")]
    cloud.publisher.publish(topic=topic, messages=messages)
    return sorted(_bodies(cloud.pull_all(subscription)))


def _bad_filter(cloud: Any) -> str:
    topic = cloud.topic()
    return _refusal(lambda: cloud.subscription(topic, filter="nonsense"))


def _ordered_nack(cloud: Any) -> list[bytes]:
    topic = cloud.topic()
    subscription = cloud.subscription(topic, enable_message_ordering=True, ack_deadline_seconds=600)
    cloud.publisher.publish(topic=topic, messages=[{"data": b"%d" % number, "ordering_key": "k"} for number in range(3)])
    received = cloud.pull(subscription, 3)
    cloud.nack(subscription, received[:1])
    return _bodies(cloud.pull_all(subscription))


def _large_pull(cloud: Any) -> int:
    topic = cloud.topic()
    subscription = cloud.subscription(topic)
    cloud.publish(topic, *[b"x"] * 1_000)
    return len(cloud.subscriber.pull(subscription=subscription, max_messages=1_000, timeout=10).received_messages)


def _attempts_without_dead_letters(cloud: Any) -> int:
    topic = cloud.topic()
    subscription = cloud.subscription(topic, retry_policy={"minimum_backoff": {"seconds": 0}})
    cloud.publish(topic, b"task")
    attempt: int = cloud.pull(subscription)[0].delivery_attempt
    return attempt


def _short_deadline(cloud: Any) -> str:
    topic = cloud.topic()
    return _refusal(lambda: cloud.subscription(topic, ack_deadline_seconds=5))


def _attempt_bounds(cloud: Any) -> str:
    topic = cloud.topic()
    return _refusal(lambda: cloud.subscription(topic, dead_letter_policy={"dead_letter_topic": topic, "max_delivery_attempts": 4}))


def _unknown_ack_id(cloud: Any) -> str:
    subscription = cloud.subscription(cloud.topic())
    return _refusal(lambda: cloud.subscriber.acknowledge(subscription=subscription, ack_ids=["never-given"], retry=None))


def _snapshot_labels(cloud: Any) -> str:
    name = f"{cloud.parent}/snapshots/snap"
    cloud.subscriber.create_snapshot(name=name, subscription=cloud.subscription(cloud.topic()))
    request = {"snapshot": {"name": name, "labels": {"a": "b"}}, "update_mask": {"paths": ["labels"]}}
    return _refusal(lambda: cloud.subscriber.update_snapshot(request=request))


def _topic_labels(cloud: Any) -> str:
    topic = cloud.topic()
    request = {"topic": {"name": topic, "labels": {"a": "b"}}, "update_mask": {"paths": ["labels"]}}
    return _refusal(lambda: cloud.publisher.update_topic(request=request))


def _field_within_a_field(cloud: Any) -> str:
    wanted = {"name": cloud.subscription(cloud.topic()), "retry_policy": {"minimum_backoff": {"seconds": 1}}}
    request = {"subscription": wanted, "update_mask": {"paths": ["retry_policy.minimum_backoff"]}}
    return _refusal(lambda: cloud.subscriber.update_subscription(request=request))


def _default_expiration(cloud: Any) -> int:
    path = cloud.subscription(cloud.topic())
    days: int = cloud.subscriber.get_subscription(subscription=path).expiration_policy.ttl.days
    return days


def _too_many_attributes(cloud: Any) -> str:
    topic = cloud.topic()
    message = {"data": b"x", "attributes": {f"key{number}": "" for number in range(101)}}
    return _refusal(lambda: cloud.publisher.publish(topic=topic, messages=[message], retry=None))


def _detachment(cloud: Any) -> str:
    subscription = cloud.subscription(cloud.topic())
    return _refusal(lambda: cloud.publisher.detach_subscription(request={"subscription": subscription}, retry=None))


def _negative_pull(cloud: Any) -> str:
    request = {"subscription": cloud.subscription(cloud.topic()), "max_messages": -1}
    return _refusal(lambda: cloud.subscriber.pull(request=request, timeout=1, retry=None))


DIFFERENCES = (
    Difference("filters", _filtered, [b"en"], [b"de", b"en"], "Google's emulator takes filters and ignores them."),
    Difference("bad filters", _bad_filter, "InvalidArgument", "accepted", "Google's emulator takes any text as a filter."),
    Difference(
        "nack with ordering",
        _ordered_nack,
        [b"0", b"1", b"2"],
        [],
        "After a nack Google's emulator delivers nothing of the key while others of it are leased; the real service, and this one, "
        "deliver it and all later ones again.",
    ),
    Difference("large pulls", _large_pull, 1_000, 100, "A pull from Google's emulator answers at most 100 messages."),
    Difference(
        "attempts", _attempts_without_dead_letters, 0, 1, "Google's emulator counts delivery attempts with only a retry policy, too."
    ),
    Difference("short deadlines", _short_deadline, "InvalidArgument", "accepted", "Google's emulator takes ack deadlines below 10 s."),
    Difference("attempt bounds", _attempt_bounds, "InvalidArgument", "OutOfRange", "A wrong number of attempts has another status."),
    Difference(
        "unknown ack ids", _unknown_ack_id, "accepted", "InvalidArgument", "Google's emulator refuses ack ids that it never gave out."
    ),
    Difference("labels of snapshots", _snapshot_labels, "accepted", "MethodNotImplemented", "Google's emulator cannot change snapshots."),
    Difference("labels of topics", _topic_labels, "accepted", "InvalidArgument", "Google's emulator cannot change the labels of a topic."),
    Difference(
        "fields within fields",
        _field_within_a_field,
        "accepted",
        "InvalidArgument",
        "Google's emulator takes only whole fields in an update mask; Google's own samples name fields within them, and Celery does.",
    ),
    Difference("expiration", _default_expiration, 31, 0, "Google's emulator does not show the default expiration of 31 days."),
    Difference("detaching", _detachment, "accepted", "MethodNotImplemented", "Google's emulator cannot detach subscriptions."),
    Difference("negative pulls", _negative_pull, "InvalidArgument", "accepted", "Google's emulator takes any negative max_messages."),
    Difference("attributes", _too_many_attributes, "InvalidArgument", "accepted", "Google's emulator takes more than 100 attributes."),
)


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda difference: difference.topic)
def test_a_difference_is_as_written(either: Any, request: pytest.FixtureRequest, difference: Difference) -> None:
    server = request.node.callspec.params["pubsub_host"]
    assert difference.local != difference.google
    assert difference.seen(either) == getattr(difference, server), difference.text
