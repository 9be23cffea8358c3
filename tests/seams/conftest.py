"""The seams' implementations, each ready to use: one test body holds for all of them."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from batch.model.delivery import Delivery
from batch.services.objects import GoogleObjectStore
from batch.services.ports import ObjectStore, Subscription, Topic
from batch.services.pubsub import GoogleSubscription
from batch.services.topic import GoogleTopic
from batch.testing import ManualClock, MemoryBroker, MemoryObjectStore
from tests.support import Service


def create_bucket(storage: Service, project: str, bucket: str) -> None:
    request = urllib.request.Request(
        f"{storage.http}/storage/v1/b?project={project}", json.dumps({"name": bucket}).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        response.read()


@pytest.fixture(params=["memory", "local"])
def store(request: pytest.FixtureRequest, project: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """An empty bucket."""
    if request.param == "memory":
        yield MemoryObjectStore("bucket")
        return
    storage: Service = request.getfixturevalue("local_storage")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", storage.http)
    create_bucket(storage, project, f"bucket-{project}")
    real = GoogleObjectStore(f"bucket-{project}", project=project)
    yield real
    real.close()


@dataclass
class Lane:
    """A topic and its subscription with an ack deadline of 10 s.

    `pass_time` lets that much pass, where the broker's clock can be moved. `names_unknown_ids`: whether the broker refuses
    ids that it never gave out; the local cloud passes over them.
    """

    topic: Topic
    subscription: Subscription
    pass_time: Callable[[float], None] | None
    names_unknown_ids: bool = True

    def advance(self, seconds: float) -> None:
        if self.pass_time is None:
            pytest.skip("the clock of Google's emulator cannot be moved")
        self.pass_time(seconds)

    def pull(self, count: int, timeout_s: float = 5.0) -> list[Delivery]:
        """Exactly `count` messages, in as many pulls as it takes; fewer when one comes back empty."""
        deliveries: list[Delivery] = []
        while len(deliveries) < count:
            more = self.subscription.pull(count - len(deliveries), timeout_s)
            if not more:
                break
            deliveries += more
        return deliveries

    def is_empty(self) -> bool:
        return self.subscription.pull(10, 1.5) == []


ACK_DEADLINE_S = 10.0
MAX_DELIVERY_ATTEMPTS = 5


@pytest.fixture(params=["memory", "local", pytest.param("google", marks=pytest.mark.real)])
def lane(request: pytest.FixtureRequest, project: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lane]:
    """Without a dead-letter policy: deliveries are not counted."""
    yield from _lane(request, project, monkeypatch, counted=False)


@pytest.fixture(params=["memory", "local", pytest.param("google", marks=pytest.mark.real)])
def counted_lane(request: pytest.FixtureRequest, project: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lane]:
    """Messages go to the topic `dead-letters`, which the subscription `dead` reads, after 5 deliveries."""
    yield from _lane(request, project, monkeypatch, counted=True)


def _lane(request: pytest.FixtureRequest, project: str, monkeypatch: pytest.MonkeyPatch, *, counted: bool) -> Iterator[Lane]:
    if request.param == "memory":
        clock = ManualClock()
        broker = MemoryBroker(clock)
        attempts = MAX_DELIVERY_ATTEMPTS if counted else None
        subscription = broker.subscription("worker", "tasks", ACK_DEADLINE_S, max_delivery_attempts=attempts)
        yield Lane(broker.topic("tasks"), subscription, lambda seconds: void(clock.advance(seconds)))
        return
    service: Service | None = request.getfixturevalue("local_pubsub") if request.param == "local" else None
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", service.grpc if service else request.getfixturevalue("google_pubsub"))
    create_lane(project, counted=counted)
    topic, real = GoogleTopic(project, "tasks"), GoogleSubscription(project, "worker")
    yield Lane(topic, real, service.advance if service else None, names_unknown_ids=service is None)
    real.close()
    topic.close()


def void(_: object) -> None:
    return None


def create_lane(project: str, *, counted: bool, **more: object) -> None:
    """Topic `tasks` and subscription `worker`, with `more` settings, by Google's own clients (which follow PUBSUB_EMULATOR_HOST)."""
    from google.cloud import pubsub_v1

    policy = {"dead_letter_topic": f"projects/{project}/topics/dead-letters", "max_delivery_attempts": MAX_DELIVERY_ATTEMPTS}
    settings = {
        "name": f"projects/{project}/subscriptions/worker",
        "topic": f"projects/{project}/topics/tasks",
        "ack_deadline_seconds": int(ACK_DEADLINE_S),
        **more,
    }
    with pubsub_v1.SubscriberClient() as subscriber:
        publisher = pubsub_v1.PublisherClient()
        for topic in ("tasks", "dead-letters"):
            publisher.create_topic(name=f"projects/{project}/topics/{topic}")
        publisher.transport.close()
        subscriber.create_subscription(request=settings | ({"dead_letter_policy": policy} if counted else {}))
        dead = {"name": f"projects/{project}/subscriptions/dead", "topic": policy["dead_letter_topic"]}
        subscriber.create_subscription(request=dead)
