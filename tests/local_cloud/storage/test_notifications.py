"""Object notifications as Google's clients make them: each event becomes a message of the local Pub/Sub, whichever service is killed."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import requests
from google.api_core.exceptions import BadRequest, NotFound, ServiceUnavailable
from google.cloud.storage.notification import JSON_API_V1_PAYLOAD_FORMAT, NONE_PAYLOAD_FORMAT
from google.pubsub_v1 import PublisherClient, SubscriberClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

from local_cloud.storage import outbox
from local_cloud.storage.model.storage import Storage
from tests.support import Service, pulled_at_once, start_service, wait_until

TOPIC = "files"


class Plant:
    """A storage server that knows a Pub/Sub, and clients of both."""

    def __init__(self, server: Any, pubsub: Service, project: str) -> None:
        self.project, self.server, self.client = project, server, server.client(project)
        self._channel = grpc.insecure_channel(pubsub.grpc)
        self.publisher = PublisherClient(transport=PublisherGrpcTransport(channel=self._channel))
        self.subscriber = SubscriberClient(transport=SubscriberGrpcTransport(channel=self._channel))
        self.topic, self.subscription = f"projects/{project}/topics/{TOPIC}", f"projects/{project}/subscriptions/files"
        answer = requests.post(f"{server.url}/pubsub", json={"url": pubsub.http}, timeout=60)
        assert answer.status_code == 200, answer.text

    def make_topic(self) -> None:
        self.publisher.create_topic(name=self.topic)
        self.subscriber.create_subscription(name=self.subscription, topic=self.topic)

    def close(self) -> None:
        self._channel.close()

    def received(self, count: int) -> list[Any]:
        """That many messages, acknowledged."""
        found: dict[str, Any] = {}

        def pull() -> bool:
            for one in pulled_at_once(self.subscriber, self.subscription):
                found[one.message.message_id] = one.message
                self.subscriber.acknowledge(subscription=self.subscription, ack_ids=[one.ack_id])
            return len(found) >= count

        wait_until(pull, description=f"{count} notifications")
        assert len(found) == count
        return list(found.values())

    def events(self, count: int) -> list[tuple[str, str, str]]:
        """Type, name and generation of so many, in the order of their publication."""
        return [tuple(one.attributes[key] for key in ("eventType", "objectId", "objectGeneration")) for one in self.received(count)]


@pytest.fixture
def plant(server: Any, local_pubsub: Service, project: str) -> Iterator[Plant]:
    made = Plant(server, local_pubsub, project)
    made.make_topic()
    yield made
    made.close()


@pytest.fixture
def notified(plant: Plant) -> Any:
    """A bucket that sends everything."""
    bucket = plant.client.create_bucket(f"bucket-{plant.project}")
    bucket.notification(TOPIC, topic_project=plant.project, payload_format=JSON_API_V1_PAYLOAD_FORMAT).create()
    return bucket


def test_every_event_of_an_object_is_a_message_with_googles_attributes(plant: Plant, notified: Any) -> None:
    blob = notified.blob("in/a.txt")
    blob.metadata = {"task": "t-1"}
    blob.upload_from_string(b"one", content_type="text/plain")
    first = str(blob.generation)
    (message,) = plant.received(1)
    shown = json.loads(message.data)
    (configuration,) = notified.list_notifications()
    attributes = dict(message.attributes)
    event_time = attributes.pop("eventTime")
    assert attributes == {
        "notificationConfig": f"projects/_/buckets/{notified.name}/notificationConfigs/{configuration.notification_id}",
        "eventType": "OBJECT_FINALIZE",
        "payloadFormat": "JSON_API_V1",
        "bucketId": notified.name,
        "objectId": "in/a.txt",
        "objectGeneration": first,
    }
    assert event_time[:22] == shown["timeCreated"][:22]
    assert event_time.endswith("Z")
    assert (shown["kind"], shown["name"], shown["size"], shown["generation"], shown["metageneration"]) == (
        "storage#object",
        "in/a.txt",
        "3",
        first,
        "1",
    )
    assert (shown["metadata"], shown["contentType"], shown["md5Hash"]) == ({"task": "t-1"}, "text/plain", blob.md5_hash)
    assert requests.get(shown["mediaLink"], timeout=60).content == b"one"

    blob.metadata = {"task": "t-2"}
    blob.patch()
    (updated,) = plant.received(1)
    assert (updated.attributes["eventType"], json.loads(updated.data)["metageneration"]) == ("OBJECT_METADATA_UPDATE", "2")

    blob.upload_from_string(b"two")
    second = str(blob.generation)
    both = {one.attributes["eventType"]: dict(one.attributes) for one in plant.received(2)}
    assert (both["OBJECT_FINALIZE"]["objectGeneration"], both["OBJECT_FINALIZE"]["overwroteGeneration"]) == (second, first)
    assert (both["OBJECT_DELETE"]["objectGeneration"], both["OBJECT_DELETE"]["overwrittenByGeneration"]) == (first, second)

    blob.delete()
    (deleted,) = plant.received(1)
    assert (deleted.attributes["eventType"], deleted.attributes["objectGeneration"]) == ("OBJECT_DELETE", second)
    assert "overwrittenByGeneration" not in deleted.attributes


def test_copies_and_moves_send_what_they_do(plant: Plant, notified: Any) -> None:
    notified.blob("a").upload_from_string(b"x")
    copied = notified.copy_blob(notified.blob("a"), notified, "b")
    moved = notified.move_blob(notified.blob("b"), "c")
    events = plant.events(4)
    assert [event[:2] for event in events] == [
        ("OBJECT_FINALIZE", "a"),
        ("OBJECT_FINALIZE", "b"),
        ("OBJECT_FINALIZE", "c"),
        ("OBJECT_DELETE", "b"),
    ]
    assert [event[2] for event in events[2:]] == [str(moved.generation), str(copied.generation)]


def test_a_configuration_chooses_types_names_payload_and_attributes(plant: Plant) -> None:
    bucket = plant.client.create_bucket(f"bucket-{plant.project}")
    chosen = {"custom_attributes": {"lane": "bulk"}, "event_types": ["OBJECT_FINALIZE"], "blob_name_prefix": "in/"}
    made = bucket.notification(TOPIC, topic_project=plant.project, payload_format=NONE_PAYLOAD_FORMAT, **chosen)
    made.create()
    (listed,) = bucket.list_notifications()
    assert (listed.topic_name, listed.topic_project, listed.payload_format) == (TOPIC, plant.project, "NONE")
    assert (listed.custom_attributes, listed.event_types, listed.blob_name_prefix) == tuple(chosen.values())
    assert bucket.get_notification(made.notification_id).etag == made.etag
    for name in ("out/a", "in/a"):
        bucket.blob(name).upload_from_string(b"x")
    bucket.blob("in/a").delete()
    bucket.blob("in/b").upload_from_string(b"x")
    messages = plant.received(2)
    assert [one.attributes["objectId"] for one in messages] == ["in/a", "in/b"]
    assert {(one.data, one.attributes["lane"], one.attributes["payloadFormat"]) for one in messages} == {(b"", "bulk", "NONE")}
    made.delete()
    assert (list(bucket.list_notifications()), made.exists()) == ([], False)
    with pytest.raises(NotFound):
        made.delete()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"topic": "//pubsub.googleapis.com/projects/none/topics/none"}, "projects/none/topics/none does not exist"),
        ({"topic": "//pubsub.googleapis.com/projects/p/subscriptions/t"}, "Invalid Google Cloud Pub/Sub topic"),
        ({"payload_format": "XML"}, "Invalid payload_format"),
        ({"event_types": ["OBJECT_CREATE"]}, "Invalid event_types"),
        ({"eventTypes": ["OBJECT_FINALIZE"]}, "has no field 'eventTypes'"),
        ({"custom_attributes": {"a": 1}}, "Invalid custom_attributes"),
    ],
)
def test_what_cannot_work_is_refused(plant: Plant, bucket: Any, change: dict[str, Any], reason: str) -> None:
    body = {"topic": f"//pubsub.googleapis.com/{plant.topic}", "payload_format": "JSON_API_V1", **change}
    answer = requests.post(f"{plant.server.url}/storage/v1/b/{bucket.name}/notificationConfigs", json=body, timeout=60)
    assert (answer.status_code, reason in answer.text) == (400, True), answer.text


def test_versions_and_notifications_exclude_each_other(plant: Plant, notified: Any) -> None:
    notified.versioning_enabled = True
    with pytest.raises(BadRequest, match="keeps no versions"):
        notified.patch()
    versioned = plant.client.bucket(f"versioned-{plant.project}")
    versioned.versioning_enabled = True
    plant.client.create_bucket(versioned)
    with pytest.raises(BadRequest, match="keeps no versions"):
        versioned.notification(TOPIC, topic_project=plant.project).create()


@pytest.mark.slow
def test_writes_go_on_without_pubsub_and_their_events_are_sent_after_kills_of_both(
    tmp_path: Path, start_server: Callable[[Path], Any], project: str
) -> None:
    pubsub = start_service("pubsub", tmp_path / "pubsub")
    plant = Plant(start_server(tmp_path / "storage"), pubsub, project)
    plant.make_topic()
    bucket = plant.client.create_bucket("bucket")
    bucket.notification(TOPIC, topic_project=project, payload_format=JSON_API_V1_PAYLOAD_FORMAT).create()
    pubsub.process.kill()
    pubsub.stop()
    for name in ("a", "b"):
        bucket.blob(name).upload_from_string(b"x")
    with pytest.raises(ServiceUnavailable, match="could not be asked"):
        bucket.notification(TOPIC, topic_project=project).create(retry=None)
    plant.server.kill()
    plant.close()
    restarted = start_server(tmp_path / "storage")
    bucket = restarted.client(project).bucket("bucket")
    bucket.blob("c").upload_from_string(b"x")
    again = start_service("pubsub", tmp_path / "pubsub")
    try:
        plant = Plant(restarted, again, project)
        assert [event[:2] for event in plant.events(3)] == [("OBJECT_FINALIZE", name) for name in "abc"]
        plant.close()
    finally:
        again.stop()


def test_what_is_sent_to_a_topic_that_is_gone_is_dropped_and_the_rest_goes_on(plant: Plant, notified: Any) -> None:
    gone = f"projects/{plant.project}/topics/gone"
    plant.publisher.create_topic(name=gone)
    other = plant.client.create_bucket(f"other-{plant.project}")
    other.notification("gone", topic_project=plant.project).create()
    plant.publisher.delete_topic(topic=gone)
    other.blob("lost").upload_from_string(b"x")
    notified.blob("kept").upload_from_string(b"x")
    assert [event[1] for event in plant.events(1)] == ["kept"]


def test_a_pubsub_that_is_frozen_does_not_hold_up_the_end(model: Storage, put: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "REQUEST_S", 3600.0)
    fields = {"topic": "//pubsub.googleapis.com/projects/p/topics/files", "payload_format": "NONE"}
    model.notifications.insert(lambda: model.bucket("bucket"), fields)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        sender = outbox.Outbox(model.store, model.notifications)
        sender.pubsub = f"http://127.0.0.1:{silent.getsockname()[1]}"
        put("a")
        sender.start("http://127.0.0.1:1")
        silent.settimeout(60)
        with silent.accept()[0] as connection:
            connection.settimeout(60)
            assert connection.recv(4) == b"POST"
            ending = threading.Thread(target=sender.stop, daemon=True)
            ending.start()
            ending.join(60)
            assert not ending.is_alive()
    assert len(model.store.messages(10)) == 1
