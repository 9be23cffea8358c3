"""A subscription without server and deadline thread: who is woken, and what is looked at before an answer."""

from __future__ import annotations

import random
import threading

import pytest
from google.pubsub_v1.types import pubsub

from local_cloud.pubsub.messages.delivery import AckIds
from local_cloud.pubsub.messages.flow_control import FlowControl
from local_cloud.pubsub.messages.message import Message
from local_cloud.pubsub.messages.policy import Policy
from local_cloud.pubsub.messages.publication import Publication
from local_cloud.pubsub.messages.seek import seek_result
from local_cloud.pubsub.model.pubsub import PubSub
from local_cloud.pubsub.model.refusal import Refusal
from local_cloud.pubsub.model.subscription import Subscription
from tests.local_cloud.manual_clock import ManualClock

LARGE = 10_000_000


def _subscription(policy: Policy, clock: ManualClock) -> Subscription:
    return Subscription("projects/p/subscriptions/worker", "projects/p/topics/tasks", b"", policy, AckIds(random.Random(1)), clock)


def _publication(clock: ManualClock, *sizes: int, first_id: int = 0) -> Publication:
    return Publication([b"x" * size for size in sizes], first_id, clock.now())


def _flow(max_count: int = 0, max_bytes: int = 0) -> tuple[threading.Event, FlowControl]:
    wake = threading.Event()
    return wake, FlowControl(max_count, max_bytes, wake)


def test_a_flow_is_full_by_messages_or_by_bytes_and_has_no_limit_at_zero() -> None:
    message = Message("1", 0.0, b"x" * 100)
    for max_count, max_bytes in ((1, 0), (0, 100), (0, 50)):
        wake, flow = _flow(max_count, max_bytes)
        assert flow.room_count > 0
        flow.begin(message)
        assert flow.room_count == 0
        assert not wake.is_set()
        flow.end(message)
        assert wake.is_set()
        assert flow.room_count > 0
    _wake, flow = _flow()
    for _ in range(10_000):
        flow.begin(message)
    assert flow.room_count > 10_000
    assert flow.room_bytes > LARGE


def test_a_stream_that_leaves_passes_on_that_it_was_woken() -> None:
    clock = ManualClock()
    subscription = _subscription(Policy(), clock)
    (first, first_flow), (second, second_flow) = _flow(), _flow()
    for wake, flow in ((first, first_flow), (second, second_flow)):
        subscription.join(wake)
        assert subscription.take_for(wake, flow, 10.0, LARGE) == []
    subscription.offer(_publication(clock, 1))
    assert (first.is_set(), second.is_set()) == (True, False)
    subscription.leave(first)
    assert second.is_set()
    assert len(subscription.take_for(second, second_flow, 10.0, LARGE)) == 1


def test_a_full_stream_is_not_woken_in_place_of_one_with_room() -> None:
    clock = ManualClock()
    subscription = _subscription(Policy(), clock)
    (full, full_flow), (free, free_flow) = _flow(max_count=1), _flow()
    subscription.offer(_publication(clock, 1))
    assert len(subscription.take_for(full, full_flow, 10.0, LARGE)) == 1
    assert subscription.take_for(full, full_flow, 10.0, LARGE) == []
    assert subscription.take_for(free, free_flow, 10.0, LARGE) == []
    subscription.offer(_publication(clock, 1, first_id=7))
    assert (full.is_set(), free.is_set()) == (False, True)


def test_an_ended_lease_is_seen_before_an_acknowledgement_although_nobody_watched_the_time() -> None:
    clock = ManualClock()
    wake, flow = _flow()
    for policy, failed in ((Policy(is_exactly_once=True), True), (Policy(), False)):
        subscription = _subscription(policy, clock)
        subscription.offer(_publication(clock, 1))
        (delivery,) = subscription.take_for(wake, flow, 10.0, LARGE)
        clock.advance(10.0)
        assert subscription.acknowledge([delivery.ack_id]) == ([delivery.ack_id] if failed else [])
        assert subscription.counts()[0] == (1 if failed else 0)


def test_a_detached_subscription_stays_detached_when_it_is_restored() -> None:
    clock = ManualClock()
    model = PubSub(clock, random.Random(1))
    topic = "projects/p/topics/tasks"
    model.create_topic(topic, b"")
    subscription = model.restore_subscription("projects/p/subscriptions/worker", topic, b"", Policy(is_detached=True))
    model.publish(topic, [pubsub.PubsubMessage.pb()(data=b"task")])
    assert subscription.counts()[0] == 0
    with pytest.raises(Refusal, match="detached"):
        subscription.take_for(*_flow(), 10.0, LARGE)


def test_a_result_knows_each_message_once_and_in_the_order_of_publishing() -> None:
    one, two, three, ten = (Message(number, 0.0, b"") for number in ("1", "2", "3", "10"))
    result = seek_result([two, ten], [ten, three, one, two], lambda message: message in (one, ten))
    assert (result.unacknowledged, result.acknowledged) == ([two, three], [one, ten])
    assert (result.purged, result.returned) == ([ten], [three])
