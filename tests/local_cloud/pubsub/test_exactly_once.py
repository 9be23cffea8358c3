"""Exactly-once delivery: a late or wrong acknowledgement is an error that Google's client understands."""

from __future__ import annotations

import queue
from typing import Any

import pytest
from google.api_core import exceptions
from google.cloud.pubsub_v1.subscriber.exceptions import AcknowledgeError, AcknowledgeStatus
from google.rpc.error_details_pb2 import ErrorInfo

INVALID = "PERMANENT_FAILURE_INVALID_ACK_ID"


@pytest.fixture
def subscription(cloud: Any) -> str:
    path: str = cloud.subscription(cloud.topic(), enable_exactly_once_delivery=True)
    return path


def _topic(cloud: Any) -> str:
    return f"{cloud.parent}/topics/tasks"


def _failed(error: exceptions.GoogleAPICallError) -> dict[str, str]:
    (info,) = error.details
    assert isinstance(info, ErrorInfo)
    assert (info.reason, info.domain) == ("EXACTLY_ONCE_ACKID_FAILURE", "pubsub.googleapis.com")
    return dict(info.metadata)


def test_stale_ids_fail_by_name_and_good_ones_in_the_same_request_count(cloud: Any, subscription: str, local_server: Any) -> None:
    cloud.publish(_topic(cloud), b"one", b"two", b"three")
    stale, done, good = cloud.pull(subscription, 3)
    cloud.nack(subscription, [stale])
    cloud.ack(subscription, [done])
    with pytest.raises(exceptions.InvalidArgument) as refusal:
        cloud.ack(subscription, [stale, done, good])
    assert _failed(refusal.value) == {stale.ack_id: INVALID, done.ack_id: INVALID}
    assert local_server.model.subscription(subscription).counts()[0] == 1
    (again,) = cloud.pull(subscription)
    assert again.message.data == b"one"


def test_an_acknowledgement_after_the_deadline_fails_although_nobody_got_the_message_since(
    cloud: Any, subscription: str, local_server: Any
) -> None:
    cloud.publish(_topic(cloud), b"task")
    (late,) = cloud.pull(subscription)
    local_server.clock.advance(11)
    with pytest.raises(exceptions.InvalidArgument) as refusal:
        cloud.ack(subscription, [late])
    assert _failed(refusal.value) == {late.ack_id: INVALID}
    assert len(cloud.pull(subscription)) == 1


@pytest.mark.parametrize("seconds", [0, 30])
def test_a_new_deadline_for_a_stale_id_fails_and_counts_for_the_others(
    cloud: Any, subscription: str, local_server: Any, seconds: int
) -> None:
    cloud.publish(_topic(cloud), b"one", b"two")
    stale, good = cloud.pull(subscription, 2)
    cloud.nack(subscription, [stale])
    with pytest.raises(exceptions.InvalidArgument) as refusal:
        cloud.subscriber.modify_ack_deadline(
            subscription=subscription, ack_ids=[stale.ack_id, good.ack_id], ack_deadline_seconds=seconds, retry=None
        )
    assert _failed(refusal.value) == {stale.ack_id: INVALID}
    local_server.clock.advance(20)
    assert len(cloud.pull(subscription, 2 if seconds == 0 else 1)) == (2 if seconds == 0 else 1)
    assert local_server.model.subscription(subscription).counts()[1] == 2


def test_more_failures_than_fit_into_an_answer_are_still_an_answer(cloud: Any, subscription: str) -> None:
    cloud.publish(_topic(cloud), *[b"x"] * 500)
    received = cloud.pull(subscription, 500)
    cloud.ack(subscription, received)
    with pytest.raises(exceptions.InvalidArgument) as refusal:
        cloud.ack(subscription, received)
    failed = _failed(refusal.value)
    assert 0 < len(failed) <= 500
    assert set(failed) <= {message.ack_id for message in received}


def test_without_exactly_once_delivery_nothing_of_this_is_an_error_and_it_can_be_switched(cloud: Any) -> None:
    path = cloud.subscription(cloud.topic())
    cloud.publish(_topic(cloud), b"task")
    received = cloud.pull(path)
    cloud.ack(path, received)
    cloud.ack(path, received)
    wanted = {"name": path, "enable_exactly_once_delivery": True}
    request = {"subscription": wanted, "update_mask": {"paths": ["enable_exactly_once_delivery"]}}
    assert cloud.subscriber.update_subscription(request=request).enable_exactly_once_delivery
    with pytest.raises(exceptions.InvalidArgument):
        cloud.ack(path, received)


def test_the_client_knows_by_the_stream_that_its_acknowledgement_counted_or_not(cloud: Any, subscription: str, local_server: Any) -> None:
    cloud.publish(_topic(cloud), b"one")
    messages: queue.Queue[Any] = queue.Queue()
    future = cloud.subscriber.subscribe(subscription, messages.put)
    try:
        first = messages.get(timeout=60)
        assert first.ack_with_response().result(timeout=60) == AcknowledgeStatus.SUCCESS
        cloud.publish(_topic(cloud), b"two")
        second = messages.get(timeout=60)
        # Another subscriber made the ack id stale.
        cloud.subscriber.modify_ack_deadline(subscription=subscription, ack_ids=[second.ack_id], ack_deadline_seconds=0)
        again = messages.get(timeout=60)
        with pytest.raises(AcknowledgeError) as refusal:
            second.ack_with_response().result(timeout=60)
        assert refusal.value.error_code == AcknowledgeStatus.INVALID_ACK_ID
        assert again.ack_with_response().result(timeout=60) == AcknowledgeStatus.SUCCESS
    finally:
        future.cancel()
        future.result(timeout=30)
    assert local_server.model.subscription(subscription).counts()[0] == 0


def test_a_stream_confirms_what_came_through_it(cloud: Any, subscription: str) -> None:
    from google.pubsub_v1.types import pubsub

    cloud.publish(_topic(cloud), b"one", b"two")
    requests: queue.Queue[Any] = queue.Queue()
    requests.put(pubsub.StreamingPullRequest(subscription=subscription, stream_ack_deadline_seconds=60))
    responses = iter(cloud.subscriber.streaming_pull(requests=iter(requests.get, None), retry=None, timeout=30))
    first = next(responses)
    assert first.subscription_properties.exactly_once_delivery_enabled
    one, two = (received.ack_id for received in first.received_messages)
    requests.put(pubsub.StreamingPullRequest(ack_ids=[one, "nonsense"]))
    confirmation = next(responses).acknowledge_confirmation
    assert (list(confirmation.ack_ids), list(confirmation.invalid_ack_ids)) == ([one], ["nonsense"])
    requests.put(pubsub.StreamingPullRequest(modify_deadline_ack_ids=[one, two], modify_deadline_seconds=[20, 20]))
    changed = next(responses).modify_ack_deadline_confirmation
    assert (list(changed.ack_ids), list(changed.invalid_ack_ids)) == ([two], [one])
    requests.put(None)
    assert list(responses) == []
