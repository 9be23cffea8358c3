"""`gcloud pubsub` of the real gcloud against the local Pub/Sub: exit codes and fields of the output."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from local_cloud.addresses import Addresses
from tests.real_gcloud import Gcloud, find_gcloud
from tests.support import Service

NOWHERE = "http://127.0.0.1:9"

pytestmark = pytest.mark.real


@pytest.fixture
def gcloud(local_pubsub: Service, tmp_path: Path, project: str) -> Gcloud:
    find_gcloud()
    return Gcloud(Addresses(local_pubsub.grpc, local_pubsub.http, NOWHERE, NOWHERE), tmp_path / "gcloud", project)


@pytest.mark.slow
def test_topics_and_subscriptions_are_created_described_listed_updated_and_deleted(gcloud: Gcloud, project: str) -> None:
    topic, subscription = f"projects/{project}/topics/tasks", f"projects/{project}/subscriptions/worker"
    assert gcloud.json("pubsub", "topics", "create", "tasks") == [{"name": topic}]
    assert gcloud.json("pubsub", "topics", "describe", "tasks") == {"name": topic}
    assert gcloud.json("pubsub", "topics", "list") == [{"name": topic}]
    (made,) = gcloud.json("pubsub", "subscriptions", "create", "worker", "--topic=tasks", "--ack-deadline=20")
    assert (made["name"], made["topic"], made["ackDeadlineSeconds"]) == (subscription, topic, 20)
    changed = gcloud.json("pubsub", "subscriptions", "update", "worker", "--ack-deadline=30")
    assert changed["ackDeadlineSeconds"] == 30
    assert gcloud.json("pubsub", "subscriptions", "describe", "worker") == changed
    assert gcloud.json("pubsub", "subscriptions", "list") == [changed]
    assert gcloud("pubsub", "subscriptions", "delete", "worker").code == 0
    assert gcloud("pubsub", "topics", "delete", "tasks").code == 0
    gone = gcloud("pubsub", "topics", "describe", "tasks")
    assert gone.code == 1
    assert "NOT_FOUND: Resource not found (resource=tasks)" in gone.messages


@pytest.mark.slow
def test_messages_are_published_pulled_acknowledged_and_sought_back(gcloud: Gcloud, local_pubsub: Service) -> None:
    assert gcloud("pubsub", "topics", "create", "tasks").code == 0
    assert gcloud("pubsub", "subscriptions", "create", "worker", "--topic=tasks", "--retain-acked-messages").code == 0
    (message_id,) = gcloud.json("pubsub", "topics", "publish", "tasks", "--message=hello", "--attribute=a=b")["messageIds"]
    (received,) = gcloud.json("pubsub", "subscriptions", "pull", "worker", "--limit=5")
    message = received["message"]
    assert (message["messageId"], message["attributes"], base64.b64decode(message["data"])) == (message_id, {"a": "b"}, b"hello")
    assert gcloud("pubsub", "subscriptions", "ack", "worker", f"--ack-ids={received['ackId']}").code == 0
    assert gcloud("pubsub", "subscriptions", "seek", "worker", "--time=2020-01-01T00:00:00Z").code == 0
    (again,) = gcloud.json("pubsub", "subscriptions", "pull", "worker", "--limit=5", "--auto-ack")
    assert (again["message"]["messageId"], again["ackStatus"]) == (message_id, "SUCCESS")
    local_pubsub.advance(60)
    assert gcloud.json("pubsub", "subscriptions", "pull", "worker", "--limit=5") == []
