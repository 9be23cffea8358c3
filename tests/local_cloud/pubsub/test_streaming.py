"""StreamingPull: `subscribe()` of Google's client as people use it, and the stream itself, request by request."""

from __future__ import annotations

import queue
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import grpc
import pytest
from google.api_core import exceptions
from google.cloud import pubsub_v1
from google.pubsub_v1.types import pubsub

from local_cloud.clock import Clock
from local_cloud.pubsub.model.pubsub import PubSub
from local_cloud.pubsub.model.refusal import Refusal
from local_cloud.pubsub.rpc.caller import RpcCaller
from local_cloud.pubsub.rpc.context import LocalContext
from local_cloud.pubsub.rpc.server import GrpcServer
from local_cloud.pubsub.rpc.stream import Stream
from tests.support import wait_until

REQUEST = pubsub.StreamingPullRequest.pb()
COUNT = 20_000


class RawStream:
    """One StreamingPull on a channel of its own: what is sent and what comes back, one by one."""

    def __init__(self, channel: grpc.Channel, first: Any) -> None:
        self._requests: queue.Queue[Any] = queue.Queue()
        self.send(first)
        method = channel.stream_stream(
            "/google.pubsub.v1.Subscriber/StreamingPull",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=pubsub.StreamingPullResponse.pb().FromString,
        )
        self.call = method(iter(self._requests.get, None), timeout=60)

    def send(self, request: Any) -> None:
        self._requests.put(request)

    def next(self) -> Any:
        return next(self.call)

    def bodies(self, count: int) -> list[bytes]:
        """Of exactly so many messages."""
        found: list[bytes] = []
        while len(found) < count:
            found += [received.message.data for received in self.next().received_messages]
        return found

    def close(self) -> None:
        self._requests.put(None)
        self.call.cancel()

    def error(self) -> grpc.RpcError:
        with pytest.raises(grpc.RpcError) as refusal:
            list(self.call)
        return refusal.value


@pytest.fixture
def stream(local_server: Any) -> Iterator[Callable[..., RawStream]]:
    opened: list[RawStream] = []
    with grpc.insecure_channel(local_server.address) as channel:

        def start(subscription: str, **fields: Any) -> RawStream:
            first = REQUEST(**{"subscription": subscription, "stream_ack_deadline_seconds": 60, **fields})
            opened.append(RawStream(channel, first))
            return opened[-1]

        yield start
        for one in opened:
            one.close()


@contextmanager
def subscribed(client: Any, subscription: str, callback: Callable[[Any], None], **options: Any) -> Iterator[Any]:
    future = client.subscribe(subscription, callback, **options)
    try:
        yield future
    finally:
        future.cancel()
        future.result(timeout=30)


def _outstanding(local_server: Any, subscription: str) -> int:
    counts: tuple[int, int, float | None] = local_server.model.subscription(subscription).counts()
    return counts[1]


@pytest.mark.slow
def test_subscribe_with_default_settings_gets_twenty_thousand_messages_once_each(cloud: Any, local_server: Any) -> None:
    topic = cloud.topic()
    subscription = cloud.subscription(topic)
    for start in range(0, COUNT, 1_000):
        cloud.publish(topic, *[b"%d" % number for number in range(start, start + 1_000)])
    seen: Counter[bytes] = Counter()
    done, lock = threading.Event(), threading.Lock()

    def handle(message: Any) -> None:
        message.ack()
        with lock:
            seen[message.data] += 1
            if len(seen) == COUNT:
                done.set()

    with subscribed(cloud.subscriber, subscription, handle):
        assert done.wait(60), f"{len(seen)} of {COUNT} messages arrived"
        model = local_server.model.subscription(subscription)
        wait_until(lambda: model.counts()[0] == 0, description="an empty backlog")
    assert set(seen.values()) == {1}


def test_what_was_nacked_comes_again(cloud: Any) -> None:
    topic = cloud.topic()
    subscription = cloud.subscription(topic)
    cloud.publish(topic, b"task")
    tries: queue.Queue[str] = queue.Queue()

    def handle(message: Any) -> None:
        tries.put(message.message_id)
        (message.nack if tries.qsize() == 1 else message.ack)()

    with subscribed(cloud.subscriber, subscription, handle):
        assert tries.get(timeout=60) == tries.get(timeout=60)


def test_the_client_sees_no_more_at_a_time_than_it_allowed(cloud: Any, local_server: Any) -> None:
    topic = cloud.topic()
    subscription = cloud.subscription(topic)
    cloud.publish(topic, *[b"%d" % number for number in range(30)])
    held: queue.Queue[Any] = queue.Queue()
    options = {"flow_control": pubsub_v1.types.FlowControl(max_messages=5)}
    with subscribed(cloud.subscriber, subscription, held.put, **options):
        for _ in range(6):
            batch = [held.get(timeout=60) for _ in range(5)]
            assert _outstanding(local_server, subscription) == 5
            assert held.empty()
            for message in batch:
                message.ack()


def test_two_streams_share_the_messages(cloud: Any, stream: Callable[..., RawStream]) -> None:
    topic = cloud.topic()
    subscription = cloud.subscription(topic)
    streams = [stream(subscription, max_outstanding_messages=10) for _ in range(2)]
    cloud.publish(topic, *[b"%d" % number for number in range(20)])
    bodies = [one.bodies(10) for one in streams]
    assert sorted(int(body) for body in bodies[0] + bodies[1]) == list(range(20))


def test_bytes_are_a_limit_too_but_one_message_always_comes(cloud: Any, stream: Callable[..., RawStream]) -> None:
    topic = cloud.topic()
    subscription = cloud.subscription(topic)
    cloud.publish(topic, b"a" * 1_000, b"b" * 1_000, b"c" * 1_000)
    one = stream(subscription, max_outstanding_bytes=900)
    for letter in (b"a", b"b", b"c"):
        (received,) = one.next().received_messages
        assert received.message.data == letter * 1_000
        one.send(REQUEST(ack_ids=[received.ack_id]))


def test_room_comes_from_every_way_in_which_a_lease_ends(cloud: Any, local_server: Any, stream: Callable[..., RawStream]) -> None:
    topic = cloud.topic()
    subscription = cloud.subscription(topic)
    one = stream(subscription, max_outstanding_messages=1)
    cloud.publish(topic, *[b"%d" % number for number in range(4)])
    received = list(one.next().received_messages)
    cloud.ack(subscription, received)
    received = list(one.next().received_messages)
    one.send(REQUEST(ack_ids=[received[0].ack_id]))
    (third,) = one.next().received_messages
    one.send(REQUEST(modify_deadline_ack_ids=[third.ack_id], modify_deadline_seconds=[0]))
    (fourth,) = one.next().received_messages
    assert (third.message.data, fourth.message.data) == (b"2", b"3")
    local_server.clock.advance(61)
    (again,) = one.next().received_messages
    assert again.message.data in (b"2", b"3")


def test_leases_of_a_stream_have_the_deadline_of_the_stream(cloud: Any, local_server: Any, stream: Callable[..., RawStream]) -> None:
    topic = cloud.topic()
    subscription = cloud.subscription(topic, ack_deadline_seconds=10)
    one = stream(subscription, stream_ack_deadline_seconds=600)
    cloud.publish(topic, b"task")
    assert one.bodies(1) == [b"task"]
    local_server.clock.advance(590)
    assert _outstanding(local_server, subscription) == 1
    assert cloud.nothing_left(subscription)


def test_a_stream_can_change_its_deadline_and_empty_requests_are_fine(
    cloud: Any, local_server: Any, stream: Callable[..., RawStream]
) -> None:
    topic = cloud.topic()
    subscription = cloud.subscription(topic)
    one = stream(subscription, stream_ack_deadline_seconds=600)
    one.send(REQUEST())
    one.send(REQUEST(stream_ack_deadline_seconds=10))
    # Only an answer tells that the request before it was read.
    cloud.publish(topic, b"first")
    (first,) = one.next().received_messages
    one.send(REQUEST(ack_ids=[first.ack_id]))
    wait_until(lambda: _outstanding(local_server, subscription) == 0)
    cloud.publish(topic, b"second")
    assert one.bodies(1) == [b"second"]
    local_server.clock.advance(11)
    assert one.bodies(1) == [b"second"]


def test_what_a_cancelled_stream_held_stays_leased_until_its_deadline(
    cloud: Any, local_server: Any, stream: Callable[..., RawStream]
) -> None:
    topic = cloud.topic()
    subscription = cloud.subscription(topic)
    one = stream(subscription)
    cloud.publish(topic, b"task")
    assert one.bodies(1) == [b"task"]
    one.close()
    model = local_server.model.subscription(subscription)
    wait_until(lambda: not model._streams, description="the end of the stream")
    assert _outstanding(local_server, subscription) == 1
    # And it takes nothing along that comes later.
    cloud.publish(topic, b"later")
    assert [message.message.data for message in cloud.pull(subscription)] == [b"later"]
    local_server.clock.advance(61)
    assert sorted(message.message.data for message in cloud.pull(subscription, 2)) == [b"later", b"task"]


def test_a_stream_whose_client_has_said_all_ends(cloud: Any, stream: Callable[..., RawStream]) -> None:
    one = stream(cloud.subscription(cloud.topic()))
    one.send(None)
    with pytest.raises(StopIteration):
        one.next()


@pytest.mark.parametrize("last", [None, REQUEST(client_id="late")], ids=["half-close", "bad request"])
def test_what_was_done_is_confirmed_however_the_stream_ends(
    cloud: Any, local_server: Any, last: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscription = cloud.subscription(cloud.topic(), enable_exactly_once_delivery=True)
    found = local_server.model.subscription(subscription)
    first = REQUEST(subscription=subscription, stream_ack_deadline_seconds=10, ack_ids=["unknown"])
    one = Stream(found, first, iter([last] if last else []), RpcCaller(LocalContext(), local_server.clock))
    # All that the client has to say has come before the first answer goes out.
    one._listen()
    monkeypatch.setattr(one, "_listen", lambda: None)
    answers: list[Any] = []
    with pytest.raises(Refusal) if last else nullcontext():
        answers.extend(one.responses())
    assert [list(answer.acknowledge_confirmation.invalid_ack_ids) for answer in answers] == [["unknown"]]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"stream_ack_deadline_seconds": 0}, "between 10 and 600"),
        ({"stream_ack_deadline_seconds": 601}, "between 10 and 600"),
        ({"subscription": ""}, "must set subscription"),
        ({"modify_deadline_ack_ids": ["x"]}, "the same size"),
        ({"modify_deadline_ack_ids": ["x"], "modify_deadline_seconds": [-1]}, "too small"),
    ],
    ids=["no deadline", "long deadline", "no subscription", "sizes", "negative"],
)
def test_bad_first_requests_are_refused(cloud: Any, stream: Callable[..., RawStream], fields: dict[str, Any], text: str) -> None:
    error = stream(**{"subscription": cloud.subscription(cloud.topic()), **fields}).error()
    assert (error.code(), text in error.details()) == (grpc.StatusCode.INVALID_ARGUMENT, True), error.details()


@pytest.mark.parametrize("field", ["subscription", "max_outstanding_messages", "max_outstanding_bytes", "client_id"])
def test_what_belongs_into_the_first_request_is_refused_later(cloud: Any, stream: Callable[..., RawStream], field: str) -> None:
    subscription = cloud.subscription(cloud.topic())
    one = stream(subscription)
    one.send(REQUEST(**{field: subscription if field in ("subscription", "client_id") else 7}))
    error = one.error()
    assert (error.code(), field in error.details()) == (grpc.StatusCode.INVALID_ARGUMENT, True)


def test_a_stream_of_nothing_is_not_found_and_a_deleted_subscription_ends_streams(cloud: Any, stream: Callable[..., RawStream]) -> None:
    subscription = cloud.subscription(cloud.topic())
    assert stream(f"{subscription}-none").error().code() == grpc.StatusCode.NOT_FOUND
    one = stream(subscription)
    cloud.subscriber.delete_subscription(subscription=subscription)
    assert one.error().code() == grpc.StatusCode.NOT_FOUND


def test_a_stream_that_has_no_room_ends_with_its_subscription_too(cloud: Any, stream: Callable[..., RawStream]) -> None:
    topic = cloud.topic()
    subscription = cloud.subscription(topic)
    one = stream(subscription, max_outstanding_messages=1)
    cloud.publish(topic, b"task")
    assert one.bodies(1) == [b"task"]
    cloud.subscriber.delete_subscription(subscription=subscription)
    assert one.error().code() == grpc.StatusCode.NOT_FOUND


def test_hundred_streams_leave_room_for_other_calls(cloud: Any, local_server: Any, stream: Callable[..., RawStream]) -> None:
    topic = cloud.topic()
    subscription = cloud.subscription(topic)
    streams = [stream(subscription, max_outstanding_messages=1) for _ in range(100)]
    model = local_server.model.subscription(subscription)
    wait_until(lambda: model.waiting_count == 100, description="100 waiting streams")
    cloud.publish(topic, *[b"%d" % number for number in range(100)])
    assert sorted(int(body) for one in streams for body in one.bodies(1)) == list(range(100))


@pytest.mark.slow  # the client itself waits 10 s after some vain attempts
def test_a_client_comes_back_by_itself_after_a_restart_of_the_server(connect: Callable[[str], Any]) -> None:
    clock = Clock()
    model = PubSub(clock, random.Random(1))
    server = GrpcServer(model, clock, "127.0.0.1", 0, {})
    port = int(server.address.rpartition(":")[2])
    server.start()
    client = connect(server.address)
    topic = client.topic()
    subscription = client.subscription(topic)
    bodies: queue.Queue[bytes] = queue.Queue()

    def handle(message: Any) -> None:
        bodies.put(message.data)
        message.ack()

    with subscribed(client.subscriber, subscription, handle) as future:
        client.publish(topic, b"before")
        assert bodies.get(timeout=60) == b"before"
        acknowledged = model.subscription(subscription)
        wait_until(lambda: acknowledged.counts()[0] == 0, description="the acknowledgement, which the client sends later")
        server.stop()
        again = GrpcServer(model, clock, "127.0.0.1", port, {})
        again.start()
        # Not through the model: the client's own channel has to come back too.
        client.publisher.publish(topic=topic, messages=[{"data": b"after"}], timeout=30)
        assert bodies.get(timeout=30) == b"after"
        assert not future.done()
    again.stop()


def test_a_stopping_server_says_unavailable(connect: Callable[[str], Any]) -> None:
    clock = Clock()
    model = PubSub(clock, random.Random(1))
    server = GrpcServer(model, clock, "127.0.0.1", 0, {})
    server.start()
    client = connect(server.address)
    subscription = client.subscription(client.topic())
    responses = client.subscriber.streaming_pull(
        requests=_held(pubsub.StreamingPullRequest(subscription=subscription, stream_ack_deadline_seconds=10)), retry=None, timeout=30
    )
    wait_until(lambda: model.subscription(subscription)._streams, description="the server's end of the stream")
    server.stop()
    with pytest.raises(exceptions.ServiceUnavailable, match="stopping"):
        next(iter(responses))


def _held(first: Any) -> Iterator[Any]:
    yield first
    threading.Event().wait(30)
