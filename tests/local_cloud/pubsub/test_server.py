"""What only the local Pub/Sub does: time that can be moved, real limits, clear refusals of what it lacks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from google.api_core import exceptions
from google.pubsub_v1 import SchemaServiceClient
from google.pubsub_v1.services.schema_service.transports import SchemaServiceGrpcTransport
from google.pubsub_v1.types import pubsub

from local_cloud.pubsub.model import settings

Aside = Callable[[Callable[[], Any]], Callable[[], Any]]


def _waiting(local_server: Any, subscription: str, count: int) -> None:
    """Returns once exactly so many pulls wait on the subscription; the test's time limit ends a wait in vain."""
    found = local_server.model.subscription(subscription)
    while found.waiting_count != count:
        threading.Event().wait(0.002)


@contextmanager
def _pulling(local_server: Any) -> Iterator[Any]:
    """The method Pull on a channel of its own, without retries and with raw messages."""
    with grpc.insecure_channel(local_server.address, options=[("grpc.max_receive_message_length", -1)]) as channel:
        yield channel.unary_unary(
            "/google.pubsub.v1.Subscriber/Pull",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=pubsub.PullResponse.pb().FromString,
        )


def _pull_request(subscription: str, count: int) -> Any:
    return pubsub.PullRequest.pb()(subscription=subscription, max_messages=count)


def _reading(local_server: Any, cloud: Any) -> Any:
    (reading,) = [reading for reading in local_server.model.readings() if reading.project == cloud.project]
    return reading


def test_an_advance_of_the_clock_ends_leases_and_wakes_a_waiting_pull(cloud: Any, local_server: Any, aside: Aside) -> None:
    topic = cloud.topic()
    subscription = cloud.subscription(topic, ack_deadline_seconds=600)
    cloud.publish(topic, b"task")
    first = cloud.pull(subscription)
    result = aside(lambda: cloud.pull(subscription, timeout=20))
    _waiting(local_server, subscription, 1)
    local_server.clock.advance(601)
    (again,) = result()
    assert again.message == first[0].message
    assert again.ack_id != first[0].ack_id


def test_an_extended_lease_outlives_its_first_deadline(cloud: Any, local_server: Any) -> None:
    topic = cloud.topic()
    subscription = cloud.subscription(topic)
    cloud.publish(topic, b"task")
    ids = [message.ack_id for message in cloud.pull(subscription)]
    cloud.subscriber.modify_ack_deadline(subscription=subscription, ack_ids=ids, ack_deadline_seconds=600)
    local_server.clock.advance(590)
    assert cloud.nothing_left(subscription)
    local_server.clock.advance(11)
    assert len(cloud.pull(subscription)) == 1


def test_a_dead_letter_arrives_although_nobody_pulls_its_source(cloud: Any, local_server: Any, aside: Aside) -> None:
    topic, dead_topic = cloud.topic(), cloud.topic("dead")
    graveyard = cloud.subscription(dead_topic, "graveyard")
    policy = {"dead_letter_topic": dead_topic, "max_delivery_attempts": 5}
    subscription = cloud.subscription(topic, dead_letter_policy=policy)
    cloud.publish(topic, b"poison")
    for _ in range(4):
        cloud.nack(subscription, cloud.pull(subscription))
    result = aside(lambda: cloud.pull(graveyard, timeout=20))
    _waiting(local_server, graveyard, 1)
    assert cloud.pull(subscription)[0].delivery_attempt == 5
    local_server.clock.advance(10)
    assert result()[0].message.data == b"poison"


def test_without_its_dead_letter_topic_a_message_stays(cloud: Any) -> None:
    topic, dead_topic = cloud.topic(), cloud.topic("dead")
    subscription = cloud.subscription(topic, dead_letter_policy={"dead_letter_topic": dead_topic, "max_delivery_attempts": 5})
    cloud.publisher.delete_topic(topic=dead_topic)
    cloud.publish(topic, b"poison")
    for _ in range(7):
        received = cloud.pull(subscription)
        cloud.nack(subscription, received)
    assert received[0].delivery_attempt == 7


def test_a_retry_policy_delays_by_the_clock(cloud: Any, local_server: Any) -> None:
    topic = cloud.topic()
    retry = {"minimum_backoff": {"seconds": 100}, "maximum_backoff": {"seconds": 600}}
    subscription = cloud.subscription(topic, retry_policy=retry)
    cloud.publish(topic, b"task")
    for backoff_s in (100, 200):
        cloud.nack(subscription, cloud.pull(subscription))
        local_server.clock.advance(backoff_s - 10)
        assert cloud.nothing_left(subscription)
        local_server.clock.advance(11)
    assert len(cloud.pull(subscription)) == 1


def test_a_pull_whose_client_has_gone_takes_nothing_along(cloud: Any, local_server: Any) -> None:
    topic = cloud.topic()
    subscription = cloud.subscription(topic)
    with _pulling(local_server) as pull:
        calls = [pull.future(_pull_request(subscription, 10), timeout=30) for _ in range(5)]
        _waiting(local_server, subscription, 5)
        for call in calls:
            call.cancel()
        _waiting(local_server, subscription, 0)
        cloud.publish(topic, b"task")
        assert len(cloud.pull(subscription)) == 1
    assert _reading(local_server, cloud).outstanding_count == 1


def test_two_hundred_waiting_pulls_leave_room_and_get_one_message_each(cloud: Any, local_server: Any) -> None:
    topic = cloud.topic()
    subscription = cloud.subscription(topic)
    with _pulling(local_server) as pull:
        calls = [pull.future(_pull_request(subscription, 1), timeout=60) for _ in range(200)]
        _waiting(local_server, subscription, 200)
        ids = cloud.publish(topic, *[b"%d" % number for number in range(200)])
        received = [call.result().received_messages for call in calls]
    assert [len(messages) for messages in received] == [1] * 200
    assert {messages[0].message.message_id for messages in received} == set(ids)


def test_a_deleted_subscription_ends_waiting_pulls(cloud: Any, local_server: Any, aside: Aside) -> None:
    subscription = cloud.subscription(cloud.topic())

    def pull() -> str:
        with pytest.raises(exceptions.NotFound) as refusal:
            cloud.pull(subscription, timeout=20)
        return str(refusal.value)

    result = aside(pull)
    _waiting(local_server, subscription, 1)
    cloud.subscriber.delete_subscription(subscription=subscription)
    assert "Resource not found (resource=worker)." in result()


def test_ack_ids_have_the_size_of_real_ones_and_unknown_ones_are_ignored(cloud: Any) -> None:
    topic = cloud.topic()
    subscription = cloud.subscription(topic)
    cloud.publish(topic, b"task")
    (received,) = cloud.pull(subscription)
    assert 160 <= len(received.ack_id) <= 200
    cloud.subscriber.acknowledge(subscription=subscription, ack_ids=["never given"])
    cloud.subscriber.modify_ack_deadline(subscription=subscription, ack_ids=["never given"], ack_deadline_seconds=0)
    too_many = [received.ack_id] * 3_000
    with pytest.raises(exceptions.InvalidArgument, match="524288 bytes"):
        cloud.subscriber.acknowledge(subscription=subscription, ack_ids=too_many)


def test_a_deadline_above_ten_minutes_is_refused(cloud: Any) -> None:
    subscription = cloud.subscription(cloud.topic())
    with pytest.raises(exceptions.InvalidArgument, match="the maximum value is 600"):
        cloud.subscriber.modify_ack_deadline(subscription=subscription, ack_ids=["x"], ack_deadline_seconds=601)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"data": b"x" * (10 * 1024 * 1024)}, "10485760 bytes"),
        ({"data": b"x", "attributes": {f"key{number}": "" for number in range(101)}}, "attribute_count"),
        ({"data": b"x", "attributes": {"ä" * 129: ""}}, "256 bytes"),
        ({"data": b"x", "attributes": {"key": "ä" * 513}}, "1024 bytes"),
        ({"data": b"x", "attributes": {"googKey": ""}}, "goog"),
    ],
    ids=["size", "attributes", "key", "value", "goog"],
)
def test_limits_of_a_message(cloud: Any, message: dict[str, Any], text: str) -> None:
    topic = cloud.topic()
    with pytest.raises(exceptions.InvalidArgument, match=text):
        cloud.publisher.publish(topic=topic, messages=[message], retry=None)


def test_a_pull_answers_at_most_a_thousand_messages(cloud: Any) -> None:
    topic = cloud.topic()
    subscription = cloud.subscription(topic)
    for _ in range(2):
        cloud.publish(topic, *[b"x"] * 1_000)
    assert len(cloud.subscriber.pull(subscription=subscription, max_messages=5_000, timeout=10).received_messages) == 1_000


def test_a_pull_answers_what_a_client_takes_that_knows_no_larger_answers(cloud: Any, local_server: Any) -> None:
    topic = cloud.topic()
    subscription = cloud.subscription(topic)
    for _ in range(5):
        cloud.publish(topic, b"x" * 1_000_000)
    # Google's client takes 4 MiB when it talks to an emulator.
    assert len(cloud.subscriber.pull(subscription=subscription, max_messages=10, timeout=10).received_messages) == 4
    cloud.publish(topic, b"x" * 9_000_000)
    with _pulling(local_server) as pull:
        assert len(pull.future(_pull_request(subscription, 1), timeout=10).result().received_messages) == 1
        assert len(pull.future(_pull_request(subscription, 1), timeout=10).result().received_messages[0].message.data) == 9_000_000


def test_settings_are_echoed_with_their_defaults(cloud: Any) -> None:
    path = cloud.subscription(cloud.topic())
    seen = cloud.subscriber.get_subscription(subscription=path)
    assert (seen.ack_deadline_seconds, seen.message_retention_duration.days, seen.expiration_policy.ttl.days) == (10, 7, 31)
    assert seen.state.name == "ACTIVE"


def test_every_mutable_setting_can_be_changed_and_taken_away(cloud: Any) -> None:
    topic = cloud.topic()
    path = cloud.subscription(topic, labels={"lane": "a"})
    wanted = {
        "name": path,
        "labels": {"lane": "b"},
        "dead_letter_policy": {"dead_letter_topic": topic, "max_delivery_attempts": 7},
        "retry_policy": {"minimum_backoff": {"seconds": 1}},
        "expiration_policy": {"ttl": {"seconds": 100_000}},
        "message_retention_duration": {"seconds": 600},
    }
    paths = [key for key in wanted if key != "name"]
    cloud.subscriber.update_subscription(request={"subscription": wanted, "update_mask": {"paths": paths}})
    seen = cloud.subscriber.get_subscription(subscription=path)
    assert dict(seen.labels) == {"lane": "b"}
    assert seen.dead_letter_policy.max_delivery_attempts == 7
    assert (seen.retry_policy.minimum_backoff.seconds, seen.retry_policy.maximum_backoff.seconds) == (1, 600)
    assert (seen.expiration_policy.ttl.total_seconds(), seen.message_retention_duration.seconds) == (100_000, 600)
    cloud.subscriber.update_subscription(
        request={"subscription": {"name": path}, "update_mask": {"paths": ["dead_letter_policy", "retry_policy", "labels"]}}
    )
    seen = cloud.subscriber.get_subscription(subscription=path)
    assert "dead_letter_policy" not in seen
    assert "retry_policy" not in seen
    assert not seen.labels


def test_a_field_within_a_field_can_be_changed_alone(cloud: Any) -> None:
    topic = cloud.topic()
    path = cloud.subscription(topic, dead_letter_policy={"dead_letter_topic": topic, "max_delivery_attempts": 7})
    wanted = {"name": path, "expiration_policy": {"ttl": {"seconds": 100_000}}, "dead_letter_policy": {"max_delivery_attempts": 8}}
    paths = ["expiration_policy.ttl", "dead_letter_policy.max_delivery_attempts"]
    changed = cloud.subscriber.update_subscription(request={"subscription": wanted, "update_mask": {"paths": paths}})
    assert (changed.dead_letter_policy.dead_letter_topic, changed.dead_letter_policy.max_delivery_attempts) == (topic, 8)
    assert changed.expiration_policy.ttl.total_seconds() == 100_000


def test_a_mask_that_names_a_setting_that_is_not_there_changes_nothing(cloud: Any) -> None:
    """As Terraform's do: they name everything that a subscription could have."""
    path = cloud.subscription(cloud.topic(), labels={"lane": "a"})
    mask = {"paths": ["labels", "bigquery_config", "cloud_storage_config"]}
    request = {"subscription": {"name": path, "labels": {"lane": "b"}}, "update_mask": mask}
    assert dict(cloud.subscriber.update_subscription(request=request).labels) == {"lane": "b"}
    request["subscription"] = {"name": path, "bigquery_config": {"table": "p.d.t"}}
    with pytest.raises(exceptions.MethodNotImplemented, match="does not support BigQuery"):
        cloud.subscriber.update_subscription(request=request)


@pytest.mark.parametrize(
    "settings",
    [{"push_config": {"push_endpoint": "http://127.0.0.1"}}, {"bigquery_config": {"table": "p.d.t"}}],
    ids=["push", "bigquery"],
)
def test_settings_that_would_not_be_obeyed_are_refused(cloud: Any, settings: dict[str, Any]) -> None:
    topic = cloud.topic()
    with pytest.raises(exceptions.MethodNotImplemented, match="does not support"):
        cloud.subscription(topic, **settings)


def test_methods_that_are_not_here_are_refused_by_name(cloud: Any, local_server: Any) -> None:
    with pytest.raises(exceptions.MethodNotImplemented, match=r"does not support the method google\.iam\.v1\.IAMPolicy/GetIamPolicy"):
        cloud.publisher.get_iam_policy(request={"resource": cloud.topic()}, retry=None)
    with grpc.insecure_channel(local_server.address) as channel:
        schemas = SchemaServiceClient(transport=SchemaServiceGrpcTransport(channel=channel))
        with pytest.raises(exceptions.MethodNotImplemented, match=r"google\.pubsub\.v1\.SchemaService/ListSchemas"):
            list(schemas.list_schemas(parent=cloud.parent))


def test_two_updates_at_once_both_count(cloud: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    subscription = cloud.subscription(cloud.topic())

    def update(**fields: Any) -> None:
        request = {"subscription": {"name": subscription, **fields}, "update_mask": {"paths": list(fields)}}
        cloud.subscriber.update_subscription(request=request, retry=None)

    other = threading.Thread(target=lambda: update(labels={"a": "b"}))
    real = settings.updated

    def slowly(kept: bytes, *patch: Any) -> Any:
        monkeypatch.setattr(settings, "updated", real)
        other.start()
        # The other one has all the time to come first, unless it has to wait for this one.
        other.join(0.2)
        return real(kept, *patch)

    monkeypatch.setattr(settings, "updated", slowly)
    update(ack_deadline_seconds=77)
    other.join()
    found = cloud.subscriber.get_subscription(subscription=subscription)
    assert (found.ack_deadline_seconds, dict(found.labels)) == (77, {"a": "b"})


def test_methods_that_are_missing_say_so(cloud: Any) -> None:
    subscription = cloud.subscription(cloud.topic())
    with pytest.raises(exceptions.MethodNotImplemented, match="does not support push subscriptions"):
        cloud.subscriber.modify_push_config(subscription=subscription, push_config={"push_endpoint": "http://127.0.0.1"})


def test_lists_have_pages(cloud: Any) -> None:
    topics = [cloud.topic(name) for name in ("aaa", "bbb", "ccc")]
    pages = cloud.publisher.list_topics(request={"project": cloud.parent, "page_size": 2}).pages
    assert [[topic.name for topic in page.topics] for page in pages] == [topics[:2], topics[2:]]


def test_readings_count_leased_messages_and_give_the_age_of_the_oldest(cloud: Any, local_server: Any) -> None:
    topic = cloud.topic()
    subscription = cloud.subscription(topic)
    cloud.publish(topic, b"old")
    local_server.clock.advance(100)
    cloud.publish(topic, b"young")
    received = cloud.pull(subscription)
    reading = _reading(local_server, cloud)
    assert (reading.subscription, reading.undelivered_count, reading.outstanding_count) == ("worker", 2, 1)
    assert 100 <= reading.oldest_age_s < 160
    cloud.ack(subscription, received)
    reading = _reading(local_server, cloud)
    assert (reading.undelivered_count, reading.outstanding_count) == (1, 0)
    assert reading.oldest_age_s < 60
