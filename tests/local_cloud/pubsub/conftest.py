"""Servers and clients for the tests of Pub/Sub: one server per session, a fresh project per test."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from google.cloud import pubsub_v1
from google.pubsub_v1 import PublisherClient

from local_cloud.clock import Clock
from local_cloud.pubsub.model.deadline_thread import DeadlineThread
from local_cloud.pubsub.model.pubsub import PubSub
from local_cloud.pubsub.rpc.server import GrpcServer
from tests.support import pulled_at_once

_projects = itertools.count(1)


@dataclass
class LocalPubSub:
    """A server in this process, with its clock at hand."""

    clock: Clock
    model: PubSub
    address: str


@dataclass
class Cloud:
    """Clients of one server, and names in a project of their own."""

    publisher: Any
    subscriber: Any
    project: str = field(default_factory=lambda: f"project-{next(_projects)}")

    @property
    def parent(self) -> str:
        return f"projects/{self.project}"

    def topic(self, name: str = "tasks") -> str:
        path = f"{self.parent}/topics/{name}"
        self.publisher.create_topic(name=path)
        return path

    def subscription(self, topic: str, name: str = "worker", **settings: Any) -> str:
        path = f"{self.parent}/subscriptions/{name}"
        self.subscriber.create_subscription(request={"name": path, "topic": topic, **settings})
        return path

    def publish(self, topic: str, *bodies: bytes) -> list[str]:
        response = self.publisher.publish(topic=topic, messages=[{"data": body} for body in bodies], retry=None)
        return list(response.message_ids)

    def pull(self, subscription: str, count: int = 1, timeout: float = 10.0) -> list[Any]:
        """Exactly `count` messages, in as many pulls as the server needs, or fewer if a pull comes back empty."""
        received: list[Any] = []
        while len(received) < count:
            request = {"subscription": subscription, "max_messages": count - len(received)}
            messages = self.subscriber.pull(request=request, timeout=timeout, retry=None).received_messages
            if not messages:
                break
            received.extend(messages)
        return received

    def pull_all(self, subscription: str) -> list[Any]:
        """What can be had now, without a wait for more."""
        received: list[Any] = []
        while messages := pulled_at_once(self.subscriber, subscription):
            received.extend(messages)
        return received

    def nothing_left(self, subscription: str) -> bool:
        return not pulled_at_once(self.subscriber, subscription)

    def nack(self, subscription: str, received: list[Any]) -> None:
        ids = [message.ack_id for message in received]
        self.subscriber.modify_ack_deadline(subscription=subscription, ack_ids=ids, ack_deadline_seconds=0)

    def ack(self, subscription: str, received: list[Any]) -> None:
        self.subscriber.acknowledge(subscription=subscription, ack_ids=[message.ack_id for message in received])


@pytest.fixture(scope="session")
def local_server() -> Iterator[LocalPubSub]:
    clock = Clock()
    model = PubSub(clock, random.Random(1))
    deadlines = DeadlineThread(model, clock)
    server = GrpcServer(model, clock, "127.0.0.1", 0, {})
    deadlines.start()
    server.start()
    yield LocalPubSub(clock, model, server.address)
    server.stop()
    deadlines.stop()


@pytest.fixture(params=["local", pytest.param("google", marks=pytest.mark.real)])
def pubsub_host(request: pytest.FixtureRequest) -> str:
    """`host:port` of the local server, then of Google's emulator."""
    if request.param == "google":
        host: str = request.getfixturevalue("google_pubsub")
        return host
    local: LocalPubSub = request.getfixturevalue("local_server")
    return local.address


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Cloud]]:
    """Make clients of a server, which are closed after the test."""
    opened: list[Any] = []

    def open_clients(host: str) -> Cloud:
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", host)
        publisher, subscriber = pubsub_v1.PublisherClient(), pubsub_v1.SubscriberClient()
        opened.extend([publisher.transport, subscriber.transport])
        # The client's own `publish` batches in threads; these tests are about single requests.
        return Cloud(PublisherClient(transport=publisher.transport), subscriber)

    yield open_clients
    for transport in opened:
        transport.close()


@pytest.fixture
def cloud(connect: Callable[[str], Cloud], local_server: LocalPubSub) -> Cloud:
    """Clients of the local server."""
    return connect(local_server.address)


@pytest.fixture
def either(connect: Callable[[str], Cloud], pubsub_host: str) -> Cloud:
    """Clients of the local server in one run of the test and of Google's emulator in another."""
    return connect(pubsub_host)


@pytest.fixture
def aside() -> Iterator[Callable[[Callable[[], Any]], Callable[[], Any]]]:
    """Run a call in a thread; what comes back waits for its result."""
    threads: list[threading.Thread] = []

    def start(call: Callable[[], Any]) -> Callable[[], Any]:
        results: list[Any] = []
        thread = threading.Thread(target=lambda: results.append(call()))
        thread.start()
        threads.append(thread)

        def result() -> Any:
            thread.join(timeout=30)
            assert results, "the call did not end, or failed"
            return results[0]

        return result

    yield start
    for thread in threads:
        thread.join(timeout=30)
        assert not thread.is_alive()
