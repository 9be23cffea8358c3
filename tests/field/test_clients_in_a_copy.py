"""Clients of services in a copy of the process that made them: a sentence, or a connection of its own; never a hang."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable

import pytest

from batch.model.delivery import Outgoing
from batch.services.async_topic import GooglePublisher
from batch.services.objects import GoogleObjectStore
from batch.services.pubsub import GoogleSubscription
from batch.services.topic import GoogleTopic
from tests.support import Service

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def said_in_a_copy(action: Callable[[], object]) -> str:
    """What an action gives or raises in a copy of this process."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            said = repr(action())
        except BaseException as error:  # noqa: BLE001 - it is told to the test
            said = f"{type(error).__name__}: {error}"
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        said = file.read().decode()
    os.waitpid(pid, 0)
    return said


def refused(said: str) -> bool:
    return said.startswith("CopyRefused: this process is a copy, made by fork, of the one that is connected to projects/p/")


@pytest.mark.parametrize("id_count", [1, 5000])
def test_a_subscription_refuses(monkeypatch: pytest.MonkeyPatch, local_pubsub: Service, id_count: int) -> None:
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", local_pubsub.grpc)
    subscription = GoogleSubscription("p", "lane")
    try:
        assert refused(said_in_a_copy(lambda: subscription.pull(1, 1.0)))
        assert refused(said_in_a_copy(lambda: subscription.info))
        assert refused(said_in_a_copy(lambda: subscription.ack(["id"] * id_count)))
        assert refused(said_in_a_copy(lambda: subscription.nack(["id"] * id_count)))
    finally:
        subscription.close()


@pytest.mark.parametrize("count", [1, 2500])
def test_a_topic_refuses(monkeypatch: pytest.MonkeyPatch, local_pubsub: Service, count: int) -> None:
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", local_pubsub.grpc)
    topic = GoogleTopic("p", "lane")
    try:
        assert refused(said_in_a_copy(lambda: topic.publish([Outgoing(b"x", {})] * count)))
    finally:
        topic.close()


def test_a_topic_of_an_event_loop_refuses(local_pubsub: Service) -> None:
    async def run() -> str:
        publisher = GooglePublisher("p", {"PUBSUB_EMULATOR_HOST": local_pubsub.grpc}, random.Random(1))
        publish = publisher.publish("lane", [Outgoing(b"x", {})])
        try:
            return said_in_a_copy(lambda: publish.send(None))
        finally:
            publish.close()
            await publisher.close()

    assert refused(asyncio.run(run()))


def test_a_bucket_is_reached_anew(monkeypatch: pytest.MonkeyPatch, local_storage: Service, project: str) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", local_storage.http)
    store = GoogleObjectStore(f"no-such-{project}", project=project)
    before = store._client
    try:
        assert "DependencyMissing" in said_in_a_copy(lambda: store.write("a", b"1"))
        assert said_in_a_copy(lambda: store._client is before) == "False"
        assert store._client is before
    finally:
        store.close()
