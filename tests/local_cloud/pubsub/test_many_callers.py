"""More callers than the server has threads, and callers who make sure that it is still there."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from google.api_core import exceptions
from google.pubsub_v1.types import pubsub

from local_cloud.clock import Clock
from local_cloud.pubsub.model.pubsub import PubSub
from local_cloud.pubsub.rpc import server, subscriber


@pytest.fixture
def small(connect: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Clients of a server with three threads, two of which may wait."""
    monkeypatch.setattr(server, "_THREAD_COUNT", 3)
    monkeypatch.setattr(subscriber, "WAITING_MAX_COUNT", 2)
    clock = Clock()
    model = PubSub(clock, random.Random(1))
    made = server.GrpcServer(model, clock, "127.0.0.1", 0, {})
    made.start()
    cloud = connect(made.address)
    cloud.model = model
    yield cloud
    made.stop()


def _pulling(cloud: Any, subscription: str, count: int, aside: Any) -> list[Callable[[], Any]]:
    """So many pulls that wait."""
    results = [aside(lambda: cloud.pull(subscription, timeout=60)) for _ in range(count)]
    found = cloud.model.subscription(subscription)
    while found.waiting_count != count:
        threading.Event().wait(0.002)
    return results


def test_pulls_that_wait_leave_threads_for_all_other_calls(small: Any, aside: Any) -> None:
    topic = small.topic()
    subscription = small.subscription(topic)
    results = _pulling(small, subscription, 2, aside)
    # One too many to wait: it gets what there is.
    assert small.pull(subscription, timeout=60) == []
    small.publish(topic, b"1", b"2", b"3")
    found = [message for result in results for message in result()]
    assert len(found) == 2
    small.ack(subscription, found)
    assert [message.message.data for message in small.pull(subscription)] == [b"3"]


def test_a_stream_too_many_is_refused_and_a_pull_that_ended_makes_room(small: Any, aside: Any) -> None:
    topic = small.topic()
    subscription = small.subscription(topic)
    results = _pulling(small, subscription, 2, aside)
    first = pubsub.StreamingPullRequest(subscription=subscription, stream_ack_deadline_seconds=10)
    with pytest.raises(exceptions.ResourceExhausted, match="2 pulls and streams"):
        list(small.subscriber.streaming_pull(requests=iter([first]), retry=None, timeout=30))
    small.publish(topic, b"1", b"2")
    assert all(result() for result in results)
    assert list(small.subscriber.streaming_pull(requests=iter([first]), retry=None, timeout=30)) == []


@pytest.mark.slow  # a server that minds hangs up after four seconds of questions
def test_a_client_may_ask_as_often_as_it_likes_whether_the_server_is_there(cloud: Any, local_server: Any) -> None:
    topic = cloud.topic()
    subscription = cloud.subscription(topic)
    options = [("grpc.keepalive_time_ms", 50), ("grpc.http2.max_pings_without_data", 0)]
    first = pubsub.StreamingPullRequest.pb()(subscription=subscription, stream_ack_deadline_seconds=10)
    has_ended = threading.Event()

    def requests() -> Iterator[Any]:
        yield first
        has_ended.wait(60)

    with grpc.insecure_channel(local_server.address, options=options) as channel:
        method = channel.stream_stream(
            "/google.pubsub.v1.Subscriber/StreamingPull",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=pubsub.StreamingPullResponse.pb().FromString,
        )
        call = method(requests(), timeout=30)
        call.add_callback(has_ended.set)
        assert not has_ended.wait(4.8)
        cloud.publish(topic, b"task")
        assert [received.message.data for received in next(call).received_messages] == [b"task"]
        call.cancel()
