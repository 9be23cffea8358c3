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

import pytest

from tests.support import clean_environment, wait_until

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
    for number in range(int(sys.argv[1])):
        note.apply_async((number,), producer=producer)
    # The transport publishes in the background: nothing is sent for sure before its client is stopped.
    producer.channel.publisher.stop()
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
