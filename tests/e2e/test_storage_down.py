"""Cloud Storage down for longer than its client tries, under real workers: no task dies of it, and the end says why."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.site import ROOT, Ended, Site, ended, wait_for_event
from tests.local_cloud.fault_orders import Orders
from tests.support import Service

HANDLERS = """
from batch.services.objects import GoogleObjectStore
from batch.handling.registry import task

GoogleObjectStore.__init__.__kwdefaults__["timeout_s"] = 0.5  # instead of a minute


@task("writes", retries=0)
def writes(task, ctx):
    ctx.sleep(0.02)
    ctx.write(f"out/{task.task_id}", b"1")


@task("returns", retries=0)
def returns(task, ctx):
    ctx.sleep(0.02)
"""


@pytest.fixture
def faults(local_site: Site) -> Iterator[Orders]:
    orders = Orders(local_site.storage, local_site.project)
    yield orders
    orders.clear()


def settings(folder: Path, **more: object) -> dict[str, object]:
    (folder / "own_handlers.py").write_text(HANDLERS)
    own = {"HANDLERS": "own_handlers", "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "FLUSH_INTERVAL_S": "0.1", "DRAIN_AFTER_S": "0.5"}
    return {**own, "MAX_MESSAGES": 1000, "CONCURRENCY": 4, **more}


def check_broken(site: Site, end: Ended) -> None:
    assert (end.code, end.summary["exit_reason"]) == (3, "broken"), end.text
    (broken,) = end.events("worker_broken")
    assert site.bucket in broken["error"]
    assert "Cloud Storage answered 503" in broken["error"]
    assert end.summary["dead"] == 0
    assert end.summary["taken"] == end.summary["acked"] + end.summary["returned"]


@pytest.mark.slow
@pytest.mark.parametrize("task_type", ["writes", "returns"])
def test_a_bucket_that_is_down_costs_no_task_an_attempt(
    local_site: Site, local_pubsub: Service, faults: Orders, tmp_path: Path, task_type: str
) -> None:
    count = 400
    local_site.publish([{"task_id": f"task-{number}", "task_type": task_type} for number in range(count)])
    worker = local_site.start(**settings(tmp_path))
    wait_for_event(worker, "flushed")
    for method in ("objects.insert", "objects.get", "objects.patch", "objects.list", "objects.delete"):
        faults.rate(method, 1.0, 1, "unavailable")
    first = ended(worker, 60)
    check_broken(local_site, first)
    retry = local_site.run(**settings(tmp_path, CLOUD_RUN_TASK_ATTEMPT=1))
    check_broken(local_site, retry)
    assert retry.summary["taken"] == 0, "its retry takes nothing"
    faults.clear()
    assert local_site.names("attempts/") == []
    assert local_site.pull("dead-letters") == []
    local_pubsub.advance(local_site.ack_deadline_s + 1)
    later = local_site.run(**settings(tmp_path, CLOUD_RUN_EXECUTION="lane-y"))
    assert later.code == 0, later.text
    assert local_site.final() == {"succeeded": count}
