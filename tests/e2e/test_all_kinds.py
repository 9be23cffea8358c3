"""All kinds of handlers in one real worker, under faults of both services, a signal and a kill: each task ends once, none too much."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.site import ROOT, Site, ended
from tests.local_cloud.fault_orders import Orders
from tests.support import Service, start_service, wait_until

HANDLERS = """
import os

from batch.handling.registry import task

noted = os.open(os.environ["TEST_FOLDER"] + "/noted", os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def note(what, task):
    os.write(noted, f"{what} {task.task_id}\\n".encode())


@task("thread")
def in_thread(task, ctx):
    note("began", task)
    ctx.sleep(0.02)
    if ctx.write(f"out/{task.task_id}", b"1").created:
        note("created", task)


@task("async")
async def on_loop(task, ctx):
    note("began", task)
    await ctx.sleep(0.02)
    if (await ctx.write(f"out/{task.task_id}", b"1")).created:
        note("created", task)


@task("process", isolation="process")
def in_child(task, ctx):
    in_thread(task, ctx)


@task("group", group=8)
def in_group(tasks, ctxs):
    for task, ctx in zip(tasks, ctxs):
        in_thread(task, ctx)
    return [None] * len(tasks)
"""

KINDS = ("thread", "async", "process", "group")
PUBSUB_FAULTS = [
    ("Pull", "unavailable"),
    ("Pull", "empty_pull"),
    ("Pull", {"kind": "few_messages", "count": 10}),
    ("Pull", "duplicate_delivery"),
    ("Acknowledge", "lost_response"),
    ("ModifyAckDeadline", "unavailable"),
]
STORAGE_FAULTS = ["unavailable", "lost_response", "http_503", "too_many_requests", {"kind": "reset_connection"}]


@pytest.fixture
def own_pubsub(tmp_path: Path) -> Iterator[Service]:
    """Its clock is moved here."""
    service = start_service("pubsub", tmp_path / "pubsub", "--sample-period-s", "0", "--visibility-lag-s", "0")
    yield service
    service.stop()


@pytest.fixture
def own_site(project: str, local_storage: Service, own_pubsub: Service) -> Iterator[Site]:
    made = Site(project, own_pubsub.grpc, local_storage.http)
    storage = Orders(local_storage.http, project)
    yield made
    storage.clear()
    made.close()


@pytest.mark.slow
def test_all_kinds_in_one_worker_that_is_stopped_and_killed_under_faults(own_site: Site, own_pubsub: Service, tmp_path: Path) -> None:
    tasks = [f"{kind}-{number}" for number in range(80) for kind in KINDS]
    own_site.publish([{"task_id": task_id, "task_type": task_id.split("-")[0]} for task_id in tasks])
    (tmp_path / "own_handlers.py").write_text(HANDLERS)
    own = {"HANDLERS": "own_handlers", "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "TEST_FOLDER": tmp_path}
    own |= {"CHILD_ENVIRONMENT": "TEST_FOLDER", "PROCESSES": "2"}
    settings = {**own, "MAX_MESSAGES": 1000, "CONCURRENCY": 4, "FLUSH_INTERVAL_S": "0.2", "DRAIN_AFTER_S": "0.5"}
    pubsub, storage = Orders(own_pubsub.http, own_site.project), Orders(own_site.storage, own_site.project)
    for seed, (method, fault) in enumerate(PUBSUB_FAULTS):
        pubsub.rate(method, 0.1, seed, fault)
    for seed, fault in enumerate(STORAGE_FAULTS):
        storage.rate("objects.insert", 0.03, seed, fault)

    def noted(what: str) -> list[str]:
        path = tmp_path / "noted"
        return [line.split()[1] for line in path.read_text().splitlines() if line.startswith(what)] if path.exists() else []

    stopped = own_site.start(**settings)
    wait_until(lambda: len(noted("created")) > 40, 30, "the first outputs")
    stopped.send_signal(signal.SIGTERM)
    end = ended(stopped)
    assert (end.code, end.summary["exit_reason"]) == (0, "stopped"), end.text
    assert end.summary["taken"] == end.summary["acked"] + end.summary["returned"]

    killed = own_site.start(**settings, CLOUD_RUN_EXECUTION="lane-y")
    wait_until(lambda: len(noted("created")) > 140, 30, "outputs of the second worker")
    killed.kill()
    killed.wait()
    for retry in range(1, 10):  # on a busy machine many were under way, and a worker takes some thirty of them at a time
        if own_site.final().total() == len(tasks) and not own_site.names("attempts/"):
            break
        own_pubsub.advance(60)
        end = own_site.run(**settings, CLOUD_RUN_EXECUTION="lane-y", CLOUD_RUN_TASK_ATTEMPT=retry)
        assert end.code == 0, end.text
        assert not end.events("runner_fault"), end.text
    assert own_site.final() == {"succeeded": len(tasks)}
    assert {one["task_id"] for one in own_site.outcomes()} == set(tasks)
    assert max(Counter(noted("created")).values()) == 1
    assert {(item["name"], item["metageneration"]) for item in own_site.items("out/")} == {(f"out/{one}", "1") for one in tasks}
    assert own_site.names("attempts/") == [], "no attempt is spent"
    assert pubsub.clear()["met"] > 0
    assert storage.clear()["met"] > 0
    assert own_site.pull("dead-letters") == own_site.pull("lane") == []
