"""Clients that others wrote, unchanged: `subscribe()` of google-cloud-pubsub, Celery's gcpubsub transport, plain `requests`.

They are set up as their own documentation says; only the addresses differ.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import requests
from google.cloud import pubsub_v1

from tests.support import Service, clean_environment, wait_until

MESSAGES = 20_000
TASKS = 200


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
    left = subscriber.pull(subscription=subscription, max_messages=10, timeout=2, retry=None).received_messages
    assert [message.message.data for message in left] == []


# The worker sends as well: the transport does not wait for what it has published, so a sender that ends at once loses the last ones.
CELERY_MODULE = """
import os
from celery import Celery
from celery.signals import worker_ready

app = Celery("tasks", broker=f"gcpubsub://projects/{os.environ['PROJECT']}")
app.conf.update(broker_connection_retry_on_startup=True, broker_transport_options={"wait_time_seconds": 1})

@app.task
def note(number):
    with open(os.path.join(os.environ["NOTES"], str(number)), "a") as file:
        file.write("x")

@worker_ready.connect
def send(**_):
    for number in range(int(os.environ["TASKS"])):
        note.delay(number)
"""


def find_celery() -> None:
    """Skip, or fail, without Celery."""
    if importlib.util.find_spec("celery") is None:
        if os.environ.get("REQUIRE_REAL") == "1":
            pytest.fail("REQUIRE_REAL=1, but `celery` is not installed")
        pytest.skip("`celery` is not installed")


@pytest.mark.slow
@pytest.mark.real
def test_celery_runs_every_task_once_through_its_own_transport(emulator: str, project: str, tmp_path: Path) -> None:
    find_celery()
    notes = tmp_path / "notes"
    notes.mkdir()
    (tmp_path / "tasks.py").write_text(CELERY_MODULE)
    environment = {**clean_environment(), "PUBSUB_EMULATOR_HOST": emulator, "PROJECT": project, "NOTES": str(notes), "TASKS": str(TASKS)}
    command = [sys.executable, "-m", "celery", "-A", "tasks", "worker", "--pool=threads", "--concurrency=4", "--loglevel=warning"]
    with (tmp_path / "log").open("wb") as log:
        worker = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log)
    try:
        wait_until(
            lambda: len(list(notes.iterdir())) == TASKS or worker.poll() is not None, timeout_s=60, description=f"{TASKS} tasks done"
        )
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(timeout=30) == 0, (tmp_path / "log").read_text()
    finally:
        worker.kill()
        worker.wait()
    done = {path.name: path.read_text() for path in notes.iterdir()}
    assert done == {str(number): "x" for number in range(TASKS)}


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
