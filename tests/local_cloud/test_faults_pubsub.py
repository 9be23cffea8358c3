"""Faults as Google's Pub/Sub and Monitoring clients meet them at the running service."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

import grpc
import pytest
import requests
from google.api_core.exceptions import DeadlineExceeded, PermissionDenied, ResourceExhausted, ServiceUnavailable
from google.cloud import monitoring_v3, pubsub_v1
from google.cloud.monitoring_v3.services.metric_service.transports import MetricServiceGrpcTransport
from google.pubsub_v1 import PublisherClient, SubscriberClient

from tests.local_cloud.fault_orders import Orders
from tests.support import Service, pulled_at_once, wait_until

ACK_DEADLINE_S = 10


class Site:
    """A topic and a subscription in a project of their own, with clients of the server that the environment names."""

    def __init__(self, service: Service, project: str) -> None:
        self.service = service
        self.orders = Orders(service.http, project)
        publisher, self._subscriber = pubsub_v1.PublisherClient(), pubsub_v1.SubscriberClient()
        self._publisher = PublisherClient(transport=publisher.transport)
        self.subscriber = SubscriberClient(transport=self._subscriber.transport)
        self.topic = f"projects/{project}/topics/tasks"
        self.subscription = f"projects/{project}/subscriptions/worker"
        self._publisher.create_topic(name=self.topic)
        self.subscriber.create_subscription(name=self.subscription, topic=self.topic)

    def close(self) -> None:
        self._publisher.transport.close()
        self._subscriber.close()

    def publish(self, *bodies: bytes) -> None:
        self._publisher.publish(topic=self.topic, messages=[{"data": body} for body in bodies], retry=None)

    def pull(self, count: int = 10) -> list[Any]:
        """What is there at once."""
        return pulled_at_once(self.subscriber, self.subscription, count)

    def bodies(self) -> list[bytes]:
        return [received.message.data for received in self.pull()]

    def ack(self, received: list[Any]) -> None:
        self.subscriber.acknowledge(subscription=self.subscription, ack_ids=[one.ack_id for one in received], retry=None)

    def nack(self, received: list[Any]) -> None:
        ids = [one.ack_id for one in received]
        self.subscriber.modify_ack_deadline(subscription=self.subscription, ack_ids=ids, ack_deadline_seconds=0, retry=None)

    @property
    def backlog(self) -> int:
        """Messages that are not acknowledged, as the service itself counts them."""
        counts = requests.get(self.service.http, timeout=60).json()["subscriptions"]
        project = self.orders.project
        return int(next(one["backlog"] for one in counts if one["project"] == project))


@pytest.fixture
def site(local_pubsub: Service, project: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", local_pubsub.grpc)
    made = Site(local_pubsub, project)
    yield made
    made.orders.clear()
    made.close()


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("unavailable", ServiceUnavailable),
        ("deadline_exceeded", DeadlineExceeded),
        ("too_many_requests", ResourceExhausted),
        ("permission_denied", PermissionDenied),
    ],
)
def test_a_refused_publish_publishes_nothing(site: Site, kind: str, error: type[Exception]) -> None:
    site.orders.add("Publish", kind)
    with pytest.raises(error, match=f"fault {kind}"):
        site.publish(b"a")
    assert site.backlog == 0
    site.publish(b"b")
    assert site.bodies() == [b"b"]
    assert site.orders.all_met(1)


def test_a_publish_whose_response_is_lost_is_published(site: Site) -> None:
    site.orders.add("Publish", "lost_response")
    with pytest.raises(ServiceUnavailable):
        site.publish(b"a")
    assert site.bodies() == [b"a"]


def test_a_publish_takes_effect_after_its_error(site: Site) -> None:
    site.orders.add("Publish", {"kind": "effect_after", "seconds": 60}, {"kind": "effect_after", "seconds": 30})
    for body in (b"late", b"half-way"):
        with pytest.raises(ServiceUnavailable):
            site.publish(body)
    site.service.advance(30)
    wait_until(lambda: site.backlog == 1, description="the publish that is due first")
    assert site.bodies() == [b"half-way"]
    site.service.advance(30)
    wait_until(lambda: site.backlog == 2, description="the late publish")


def test_an_acknowledgement_whose_response_is_lost_has_its_effect(site: Site) -> None:
    site.publish(b"a")
    received = site.pull()
    site.orders.add("Acknowledge", "lost_response")
    with pytest.raises(ServiceUnavailable):
        site.ack(received)
    assert site.backlog == 0


def test_a_late_ack_is_answered_at_once_and_counts_later(site: Site) -> None:
    site.publish(b"a")
    site.orders.add("Acknowledge", {"kind": "late_ack", "seconds": 5})
    site.ack(site.pull())
    assert site.backlog == 1
    site.service.advance(5)
    wait_until(lambda: site.backlog == 0, description="the late ack")


def test_a_late_ack_after_the_lease_counts_for_nothing(site: Site) -> None:
    site.publish(b"a")
    site.orders.add("Acknowledge", {"kind": "late_ack", "seconds": ACK_DEADLINE_S + 5})
    site.ack(site.pull())
    site.service.advance(ACK_DEADLINE_S + 1)
    again = site.pull()
    assert [one.message.data for one in again] == [b"a"]
    site.service.advance(5)
    site.orders.add("Acknowledge", "ok")
    site.ack(again)
    assert site.backlog == 0


def test_an_empty_pull_leaves_the_messages_to_the_next(site: Site) -> None:
    site.publish(b"a")
    site.orders.add("Pull", "empty_pull")
    waiting = site.subscriber.pull(subscription=site.subscription, max_messages=10, retry=None, timeout=30)
    assert list(waiting.received_messages) == []
    assert site.bodies() == [b"a"]


def test_a_pull_gets_few_messages(site: Site) -> None:
    site.publish(b"a", b"b", b"c")
    site.orders.add("Pull", {"kind": "few_messages", "count": 2}, {"kind": "few_messages", "count": 2})
    assert [len(site.pull()), len(site.pull())] == [2, 1]


def test_a_duplicate_delivery_has_ack_ids_of_its_own_that_count(site: Site) -> None:
    site.publish(b"a", b"b")
    site.orders.add("Pull", "duplicate_delivery")
    first = site.pull()
    again = site.pull(1) + site.pull(1)
    assert [one.message.message_id for one in again] == [one.message.message_id for one in first]
    assert {one.ack_id for one in again}.isdisjoint({one.ack_id for one in first})
    assert site.pull() == []
    site.ack(first[:1])
    site.ack(again)
    assert site.backlog == 0


def test_a_nacked_duplicate_returns_the_message(site: Site) -> None:
    site.publish(b"a")
    site.orders.add("Pull", "duplicate_delivery")
    site.pull()
    site.nack(site.pull())
    assert site.bodies() == [b"a"]


def test_a_duplicate_of_a_duplicate_can_be_acknowledged(site: Site) -> None:
    site.publish(b"a")
    site.orders.add("Pull", "duplicate_delivery", "duplicate_delivery")
    site.pull()
    site.pull()
    site.ack(site.pull())
    assert site.backlog == 0


def test_a_deadline_may_leave_the_messages_leased(site: Site) -> None:
    site.publish(b"a")
    site.orders.add("Pull", "deadline_with_lease")
    with pytest.raises(DeadlineExceeded):
        site.pull()
    assert site.pull() == []
    site.service.advance(ACK_DEADLINE_S + 1)
    assert site.bodies() == [b"a"]


def test_a_slow_pull_is_answered_when_the_clock_has_moved(site: Site) -> None:
    site.publish(b"a")
    site.orders.add("Pull", {"kind": "slow", "seconds": 3600})
    found: list[bytes] = []
    pulling = threading.Thread(target=lambda: found.extend(site.bodies()))
    pulling.start()
    wait_until(lambda: site.orders.all_met(1), description="the slow pull's arrival")
    assert found == []
    site.service.advance(3600)
    pulling.join(60)
    assert found == [b"a"]


def test_a_rate_fails_calls_by_its_seed(site: Site) -> None:
    site.orders.rate("Publish", 0.5, 3, "unavailable")
    failed = 0
    for _ in range(40):
        try:
            site.publish(b"a")
        except ServiceUnavailable:
            failed += 1
    assert 10 < failed < 30
    assert site.orders.report()["met"] == failed
    assert site.backlog == 40 - failed


def test_a_stream_is_refused_once_and_opened_again(site: Site) -> None:
    """Without `subscribe()`, which chooses for itself when to open a stream again."""
    site.publish(b"a")
    site.orders.add("StreamingPull", "unavailable")
    client = pubsub_v1.SubscriberClient()
    ends: list[SimpleQueue[Any]] = []

    def opened() -> Any:
        sent: SimpleQueue[Any] = SimpleQueue()
        sent.put({"subscription": site.subscription, "stream_ack_deadline_seconds": 10})
        ends.append(sent)
        return client.streaming_pull(requests=iter(sent.get, None), timeout=30)

    with pytest.raises(ServiceUnavailable):
        next(iter(opened()))
    stream = opened()
    response = next(one for one in stream if one.received_messages)
    assert [one.message.data for one in response.received_messages] == [b"a"]
    stream.cancel()
    for end in ends:
        end.put(None)
    client.close()
    assert site.orders.all_met(1)


def test_faults_of_one_project_never_touch_another(site: Site, local_pubsub: Service, project: str) -> None:
    other = Site(local_pubsub, f"{project}-b")
    try:
        site.orders.rate("Publish", 1.0, 1, "unavailable")
        site.orders.rate("Pull", 1.0, 1, "empty_pull")
        other.publish(b"a")
        assert other.bodies() == [b"a"]
        with pytest.raises(ServiceUnavailable):
            site.publish(b"a")
        other.orders.clear()
        with pytest.raises(ServiceUnavailable):
            site.publish(b"a")
    finally:
        other.close()


def test_unknown_methods_are_refused_by_name(site: Site) -> None:
    with pytest.raises(AssertionError, match="did you mean 'Acknowledge'"):
        site.orders.add("acknowlege", "unavailable")
    with pytest.raises(AssertionError, match="StreamingPull cannot meet empty_pull"):
        site.orders.add("StreamingPull", "empty_pull")


def test_reading_gauges_may_be_unavailable_denied_or_slow(site: Site) -> None:
    with grpc.insecure_channel(site.service.grpc) as channel:
        client = monitoring_v3.MetricServiceClient(transport=MetricServiceGrpcTransport(channel=channel))
        request = {
            "name": f"projects/{site.orders.project}",
            "filter": 'metric.type="pubsub.googleapis.com/subscription/num_undelivered_messages"',
            "interval": {"end_time": {"seconds": 4_000_000_000}, "start_time": {"seconds": 1}},
        }
        site.publish(b"a")
        site.orders.add("ListTimeSeries", "unavailable", "permission_denied", {"kind": "slow", "seconds": 3600})
        with pytest.raises(ServiceUnavailable):
            client.list_time_series(request=request, retry=None)
        with pytest.raises(PermissionDenied, match="fault permission_denied"):
            client.list_time_series(request=request, retry=None)
        found: list[int] = []

        def read() -> None:
            series = client.list_time_series(request=request, retry=None, timeout=30)
            found.extend(one.points[0].value.int64_value for one in series)

        reading = threading.Thread(target=read)
        reading.start()
        wait_until(lambda: site.orders.all_met(3), description="the slow reading's arrival")
        assert found == []
        site.service.advance(3600)
        reading.join(60)
        assert found == [1]
