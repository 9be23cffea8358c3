"""Load on a Pub/Sub server: publishing, and pulling with acks, by one or several client processes that start together.

Requests are made before the clock runs and answers are read as raw protobuf, so that the server is measured and not the client;
only `publish_through_client` builds each request with Google's client, as a program would.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from multiprocessing import get_context
from multiprocessing.pool import Pool
from typing import Any

import grpc
from google.pubsub_v1 import PublisherClient, types
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport

PER_CALL = 1_000
"""Messages of a publish call, and what a pull asks for."""
_CALL_LIMIT_S = 30.0
_EMPTY_PULLS = 20
_PAUSE_S = 0.005
_HEAD_START_S = 0.3
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Job:
    """What one client does: publish or drain `count` messages of `size` bytes, from the monotonic time `start_s` on."""

    address: str
    name: str
    count: int
    size: int
    start_s: float = 0.0

    @property
    def topic(self) -> str:
        return f"projects/bench/topics/{self.name}"

    @property
    def subscription(self) -> str:
        return f"projects/bench/subscriptions/{self.name}"


@dataclass(frozen=True, slots=True)
class Span:
    """How many messages a client moved between two monotonic times."""

    count: int
    start_s: float
    end_s: float


class Clients:
    """Client processes, kept for all measurements: their start is not measured."""

    def __init__(self, count: int) -> None:
        # A fresh interpreter for each: a process with open gRPC channels must not be forked.
        self._pool: Pool = get_context("spawn").Pool(count)
        self._pool.map(_warm_up, range(count), chunksize=1)

    def __enter__(self) -> Clients:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.terminate()
        self._pool.join()

    def publish(self, job: Job, clients: int) -> float:
        """Messages per second, from the first start to the last answer."""
        return self._together(publish_share, job, clients)

    def publish_through_client(self, job: Job, clients: int) -> float:
        """The same with Google's client, which takes most of the time itself."""
        return self._together(publish_share_through_client, job, clients)

    def drain(self, job: Job, clients: int) -> float:
        """Messages per second, from the first start to the last ack. Raises RuntimeError when messages are missing."""
        return self._together(drain_share, job, clients)

    def _together(self, share: Callable[[Job], Span], job: Job, clients: int) -> float:
        own = replace(job, count=job.count // clients, start_s=time.monotonic() + _HEAD_START_S)
        spans = self._pool.map(share, [own] * clients, chunksize=1)
        return rate(spans, own.count * clients)


def rate(spans: Sequence[Span], wanted_count: int) -> float:
    """Messages per second of all clients together. Raises RuntimeError when they were fewer than wanted."""
    count = sum(span.count for span in spans)
    if count < wanted_count:
        raise RuntimeError(f"only {count} of {wanted_count} messages came: this is no measurement")
    return wanted_count / (max(span.end_s for span in spans) - min(span.start_s for span in spans))


def prepared(address: str, count: int, size: int) -> Job:
    """A job on a topic and a subscription of its own."""
    job = Job(address, f"bench-{next(_numbers)}", count, size)
    raw_method(address, "Publisher/CreateTopic")(types.Topic.pb()(name=job.topic).SerializeToString())
    subscription = types.Subscription.pb()(name=job.subscription, topic=job.topic, ack_deadline_seconds=60)
    raw_method(address, "Subscriber/CreateSubscription")(subscription.SerializeToString())
    return job


def cleared(job: Job) -> None:
    """Delete what `prepared` has made."""
    deletion = types.DeleteSubscriptionRequest.pb()(subscription=job.subscription)
    raw_method(job.address, "Subscriber/DeleteSubscription")(deletion.SerializeToString())
    raw_method(job.address, "Publisher/DeleteTopic")(types.DeleteTopicRequest.pb()(topic=job.topic).SerializeToString())


def publish_share(job: Job) -> Span:
    messages = [types.PubsubMessage.pb()(data=b"x" * job.size)] * min(PER_CALL, job.count)
    request = types.PublishRequest.pb()(topic=job.topic, messages=messages).SerializeToString()
    call = raw_method(job.address, "Publisher/Publish")
    return _repeated(job, len(messages), lambda: call(request))


def publish_share_through_client(job: Job) -> Span:
    messages = [{"data": b"x" * job.size}] * min(PER_CALL, job.count)
    client = PublisherClient(transport=PublisherGrpcTransport(channel=_channel(job.address)))
    return _repeated(job, len(messages), lambda: client.publish(topic=job.topic, messages=messages, retry=None, timeout=_CALL_LIMIT_S))


def _repeated(job: Job, per_call: int, call: Callable[[], object]) -> Span:
    start_s = _wait_for(job.start_s)
    sent = 0
    while sent < job.count:
        call()
        sent += per_call
    return Span(sent, start_s, time.monotonic())


def drain_share(job: Job) -> Span:
    """Pull and ack until the subscription stays empty."""
    request = types.PullRequest.pb()(subscription=job.subscription, max_messages=PER_CALL, return_immediately=True).SerializeToString()
    pull, acknowledge = raw_method(job.address, "Subscriber/Pull"), raw_method(job.address, "Subscriber/Acknowledge")
    parse, ack_request = types.PullResponse.pb().FromString, types.AcknowledgeRequest.pb()
    start_s = end_s = _wait_for(job.start_s)
    count = empty_pulls = 0
    while empty_pulls < _EMPTY_PULLS:
        ack_ids = [received.ack_id for received in parse(pull(request)).received_messages]
        if not ack_ids:
            empty_pulls += 1
            time.sleep(_PAUSE_S)  # after the last ack, which ends the measured time
            continue
        acknowledge(ack_request(subscription=job.subscription, ack_ids=ack_ids).SerializeToString())
        end_s = time.monotonic()
        count, empty_pulls = count + len(ack_ids), 0
    return Span(count, start_s, end_s)


def _wait_for(start_s: float) -> float:
    time.sleep(max(0.0, start_s - time.monotonic()))
    return time.monotonic()


@lru_cache(maxsize=8)
def _channel(address: str) -> Any:
    return grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", -1)])


def raw_method(address: str, method: str) -> Callable[[bytes], bytes]:
    """A method of `google.pubsub.v1` from bytes to bytes."""
    stub = _channel(address).unary_unary(f"/google.pubsub.v1.{method}", request_serializer=None, response_deserializer=None)
    return lambda request: stub(request, timeout=_CALL_LIMIT_S)


def _warm_up(_: int) -> None:
    time.sleep(_PAUSE_S)  # so that each process takes one
