"""Google's async publisher against a scripted server and the local cloud: order, repetition, and every error translated."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator

import pytest

from batch.model.delivery import Outgoing
from batch.model.errors import DependencyForbidden, DependencyMissing, DependencyUnavailable, ServiceRefused
from batch.services.async_topic import GoogleAsyncTopic, GooglePublisher
from batch.services.topic import GoogleTopic
from tests.intake.publisher_server import PublisherServer
from tests.support import Service


@pytest.fixture
def server() -> Iterator[PublisherServer]:
    one = PublisherServer()
    yield one
    one.stop()


def publish(host: str, use: Callable[[GoogleAsyncTopic], Awaitable[list[str]]], *, timeout_s: float = 10.0) -> list[str]:
    async def run() -> list[str]:
        publisher = GooglePublisher("p", {"PUBSUB_EMULATOR_HOST": host}, random.Random(1), timeout_s=timeout_s)
        try:
            return await use(publisher.topic("tasks"))
        finally:
            await publisher.close()

    return asyncio.run(run())


def messages(count: int, size: int = 10) -> list[Outgoing]:
    return [Outgoing(b"%06d" % number + b"x" * size, {"task_id": str(number)}) for number in range(count)]


def test_ids_come_in_the_order_of_the_messages(server: PublisherServer) -> None:
    assert publish(server.address, lambda topic: topic.publish(messages(1000))) == [f"id-{number}" for number in range(1000)]
    assert server.data == [one.data for one in messages(1000)]
    assert server.topics == ["projects/p/topics/tasks"]


def test_nine_megabytes_travel(server: PublisherServer) -> None:
    assert publish(server.address, lambda topic: topic.publish(messages(1, 9_000_000))) == ["id-0"]


@pytest.mark.parametrize("status", ["UNAVAILABLE", "ABORTED", "INTERNAL", "RESOURCE_EXHAUSTED"])
def test_a_moment_of_trouble_is_bridged(server: PublisherServer, status: str) -> None:
    server.statuses.extend([status] * 3)
    assert publish(server.address, lambda topic: topic.publish(messages(2))) == ["id-0", "id-1"]


@pytest.mark.parametrize(
    ("status", "kind", "text"),
    [
        ("NOT_FOUND", DependencyMissing, "gcloud pubsub topics create tasks --project=p"),
        ("PERMISSION_DENIED", DependencyForbidden, "roles/pubsub.publisher"),
        ("UNAUTHENTICATED", DependencyForbidden, "roles/pubsub.publisher"),
        ("INVALID_ARGUMENT", ServiceRefused, "refused the request"),
    ],
)
def test_what_cannot_get_better_is_not_repeated(server: PublisherServer, status: str, kind: type[ServiceRefused], text: str) -> None:
    server.statuses.append(status)
    with pytest.raises(kind, match=text) as caught:
        publish(server.address, lambda topic: topic.publish(messages(1)))
    assert type(caught.value) is kind
    assert "projects/p/topics/tasks" in str(caught.value)
    assert server.data == []


def test_a_server_that_does_not_answer_is_unavailable_in_time(server: PublisherServer) -> None:
    server.hold()
    with pytest.raises(DependencyUnavailable, match="topics/tasks: Pub/Sub answered DEADLINE_EXCEEDED"):
        publish(server.address, lambda topic: topic.publish(messages(1)), timeout_s=0.2)


def test_no_server_is_unavailable(server: PublisherServer) -> None:
    server.stop()
    with pytest.raises(DependencyUnavailable, match="UNAVAILABLE"):
        publish(server.address, lambda topic: topic.publish(messages(1)), timeout_s=0.3)


def test_the_local_cloud_takes_it(local_pubsub: Service, project: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from google.pubsub_v1 import PublisherClient
    from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport

    async def use(topic: GoogleAsyncTopic) -> list[str]:
        return await GoogleAsyncTopic(topic._publisher, "missing").publish(messages(1))

    with pytest.raises(DependencyMissing):
        publish(local_pubsub.grpc, use)
    import grpc

    channel = grpc.insecure_channel(local_pubsub.grpc)
    PublisherClient(transport=PublisherGrpcTransport(channel=channel)).create_topic(name="projects/p/topics/tasks")
    assert len(set(publish(local_pubsub.grpc, lambda topic: topic.publish(messages(1000))))) == 1000
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", local_pubsub.grpc)
    sync = GoogleTopic("p", "tasks")
    assert len(sync.publish(messages(3))) == 3
    sync.close()
    channel.close()
