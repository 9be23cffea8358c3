"""Clients that others wrote, unchanged: `subscribe()` of google-cloud-pubsub and plain `requests`. Celery is in pubsub/test_celery.py.

They are set up as their own documentation says; only the addresses differ.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
import requests
from google.cloud import pubsub_v1

from tests.support import Service, pulled_at_once, wait_until

MESSAGES = 20_000


@pytest.fixture
def emulator(local_pubsub: Service, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", local_pubsub.grpc)
    return local_pubsub.grpc


@pytest.fixture
def publisher(emulator: str) -> Iterator[Any]:
    with pubsub_v1.PublisherClient() as made:
        yield made


@pytest.fixture
def subscriber(emulator: str) -> Iterator[Any]:
    with pubsub_v1.SubscriberClient() as made:
        yield made


@pytest.mark.slow
def test_subscribe_receives_20000_messages_and_leaves_nothing(publisher: Any, subscriber: Any, project: str) -> None:
    topic = publisher.create_topic(name=publisher.topic_path(project, "topic")).name
    subscription = subscriber.create_subscription(name=subscriber.subscription_path(project, "sub"), topic=topic).name
    for sent in [publisher.publish(topic, str(number).encode(), number=str(number)) for number in range(MESSAGES)]:
        sent.result(timeout=60)
    received: Counter[bytes] = Counter()
    lock = threading.Lock()

    def take(message: Any) -> None:
        with lock:
            received[message.data] += 1
        message.ack()

    streaming = subscriber.subscribe(subscription, callback=take)
    wait_until(lambda: len(received) == MESSAGES or streaming.done(), timeout_s=90, description=f"{MESSAGES} distinct messages")
    streaming.cancel()
    streaming.result(timeout=30)
    assert set(received) == {str(number).encode() for number in range(MESSAGES)}
    again = sum(received.values()) - MESSAGES
    assert again == 0, f"{again} messages came twice, though each was acknowledged at once"
    assert [message.message.data for message in pulled_at_once(subscriber, subscription)] == []


def test_plain_requests_put_read_list_and_delete_an_object(local_storage: Service, project: str) -> None:
    base, bucket, name = local_storage.http, f"bucket-{project}", "a/b ü.txt"
    with requests.Session() as http:
        made = http.post(f"{base}/storage/v1/b", params={"project": project}, json={"name": bucket})
        assert made.status_code == 200, made.text
        uploads, objects = f"{base}/upload/storage/v1/b/{bucket}/o", f"{base}/storage/v1/b/{bucket}/o"
        first = {"uploadType": "media", "name": name, "ifGenerationMatch": "0"}
        created = http.post(uploads, params=first, data="grüße".encode(), headers={"content-type": "text/plain"})
        assert (created.status_code, created.json()["size"]) == (200, "7")
        assert http.post(uploads, params=first, data=b"second").status_code == 412
        url = f"{objects}/{quote(name, safe='')}"
        read = http.get(url, params={"alt": "media"})
        assert (read.content.decode(), read.headers["x-goog-generation"]) == ("grüße", created.json()["generation"])
        assert [item["name"] for item in http.get(objects, params={"prefix": "a/"}).json()["items"]] == [name]
        assert http.delete(url).status_code == 204
        assert http.get(url).status_code == 404
