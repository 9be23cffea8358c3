"""Celery's own Pub/Sub transport, unchanged, against the local Pub/Sub: tasks sent by one process and run by a real worker.

It needs `celery[gcpubsub]`, in this environment or in that of the interpreter that CELERY_PYTHON names.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.pubsub_v1 import SubscriberClient
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

from tests.local_cloud.fault_orders import Orders
from tests.support import Service, clean_environment, pulled_at_once, wait_until

ROOT = Path(__file__).resolve().parents[3]
COUNT = 200

APP = """
import os
from celery import Celery

app = Celery("tasks", broker=f"gcpubsub://projects/{os.environ['PROJECT']}")
app.conf.update(broker_connection_retry_on_startup=True, task_ignore_result=True, task_acks_late=True)

@app.task(name="note", bind=True, max_retries=1)
def note(self, number):
    if number == 7 and self.request.retries == 0:
        raise self.retry(countdown=0)
    with open(os.environ["NOTES"], "a") as notes:
        notes.write(f"{number}\\n")
"""

SEND = """
import sys
from tasks import app, note

with app.producer_pool.acquire(block=True) as producer:
    # The transport publishes in the background and drops the futures: a process that ends then may take its last messages with it.
    publisher, sent = producer.channel.publisher, []
    publish = publisher.publish
    publisher.publish = lambda *arguments, **options: sent.append(publish(*arguments, **options))
    for number in range(int(sys.argv[1])):
        note.apply_async((number,), producer=producer)
    publisher.stop()
    for future in sent:
        future.result(timeout=30)
"""


@pytest.fixture(scope="module")
def celery_python() -> str:
    """An interpreter that has Celery and its transport."""
    python = os.environ.get("CELERY_PYTHON")
    if python is None and importlib.util.find_spec("celery") and importlib.util.find_spec("google.cloud.monitoring_v3"):
        python = sys.executable
    if python is None:
        reason = "celery[gcpubsub] is not installed: install it in a venv of its own and set CELERY_PYTHON to its python"
        if os.environ.get("REQUIRE_REAL") == "1":
            pytest.fail(f"REQUIRE_REAL=1, but {reason}")
        pytest.skip(reason)
    return python


@pytest.mark.real
@pytest.mark.slow  # a worker of Celery takes its time to start and to end
def test_celery_runs_every_task_and_leaves_nothing(celery_python: str, local_server: Any, tmp_path: Path, project: str) -> None:
    notes = tmp_path / "notes"
    notes.touch()
    (tmp_path / "tasks.py").write_text(APP)
    environment = {**clean_environment(), "PUBSUB_EMULATOR_HOST": local_server.address, "PROJECT": project, "NOTES": str(notes)}
    command = [celery_python, "-m", "celery", "-A", "tasks", "worker", "-P", "threads", "-c", "4", "-l", "INFO"]
    with (tmp_path / "log").open("wb") as log:
        worker = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            wait_until(lambda: b" ready." in (tmp_path / "log").read_bytes(), 60, "a ready worker")
            subprocess.run([celery_python, "-c", SEND, str(COUNT)], cwd=tmp_path, env=environment, check=True, timeout=60)
            wait_until(lambda: len(notes.read_text().split()) >= COUNT, 60, f"{COUNT} notes")
            model = local_server.model.subscription(f"projects/{project}/subscriptions/kombu-celery")
            wait_until(lambda: model.counts()[0] == 0, 30, "an empty queue")
        finally:
            worker.send_signal(signal.SIGTERM)
            worker.wait(30)
    assert sorted(map(int, notes.read_text().split())) == list(range(COUNT))
    assert "Traceback" not in (tmp_path / "log").read_text()


@pytest.mark.real
def test_the_sender_of_the_benchmark_ends_when_all_its_tasks_are_published(celery_python: str, local_pubsub: Service, project: str) -> None:
    """Also when the last request has to be sent again: whatever is lost here, the benchmark's worker waits for in vain."""
    environment = {**clean_environment(), "PUBSUB_EMULATOR_HOST": local_pubsub.grpc, "GOOGLE_CLOUD_PROJECT": project}
    Orders(local_pubsub.http, project).add("Publish", "unavailable")
    command = [celery_python, "-m", "bench.worker.rivals.celery_tasks", "3"]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=60)
    subscriber = SubscriberClient(transport=SubscriberGrpcTransport(channel=grpc.insecure_channel(local_pubsub.grpc)))
    with subscriber:
        assert len(pulled_at_once(subscriber, f"projects/{project}/subscriptions/kombu-celery")) == 3
