"""Real worker processes drain a real backlog of real files; afterwards the bucket and the broker are looked at independently."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from tests.e2e.site import Site, ended, standard_library


def submit_files(site: Site, count: int) -> dict[str, bytes]:
    """`count` real files in the bucket and a task for each; returns their content by name."""
    files = {f"{number:04d}-{path.name}": path.read_bytes() for number, path in enumerate(standard_library(count))}
    for name, data in files.items():
        site.upload(f"input/{name}", data)
    site.publish([{"task_id": f"id-{name}", "task_type": "file_processing", "filename": name} for name in files])
    return files


def check_reports(site: Site, files: dict[str, bytes]) -> None:
    assert sorted(site.names("processed/")) == sorted(f"processed/{name}" for name in files)
    for name, data in files.items():
        report = json.loads(site.read(f"processed/{name}"))
        assert report["original_file"] == name
        assert report["size"] == len(data)
        assert report["sha256"] == hashlib.sha256(data).hexdigest()
        assert report["line_count"] == len(data.splitlines())
        assert report["processed_at"]


@pytest.mark.slow
def test_two_hundred_real_files_by_four_workers(site: Site) -> None:
    files = submit_files(site, 200)
    workers = [site.start(BACKLOG=200, CLOUD_RUN_TASK_COUNT=4, CLOUD_RUN_TASK_INDEX=index, BILLING_FLOOR_S=20) for index in range(4)]
    ends = [ended(worker) for worker in workers]
    assert [one.code for one in ends] == [0, 0, 0, 0], [one.text for one in ends]
    assert {one.summary["exit_reason"] for one in ends} == {"share_done"}
    assert [one.summary["taken"] for one in ends] == [50, 50, 50, 50]
    check_reports(site, files)
    assert site.final() == {"succeeded": 200}
    assert site.pull("lane") == []
    assert site.pull("dead-letters") == []
    progress = site.progress()
    assert sorted(progress) == [f"lane-x/{index}-0" for index in range(4)]
    assert {(one["share"], one["taken"], one["acked"], one["exit_reason"]) for one in progress.values()} == {
        ("50", "50", "50", "share_done")
    }


def test_a_manual_worker_stops_at_max_messages(site: Site) -> None:
    submit_files(site, 15)
    end = site.run(MAX_MESSAGES=10)
    assert (end.code, end.summary["exit_reason"], end.summary["taken"]) == (0, "share_done", 10)
    assert len(site.names("processed/")) == 10
    assert len(site.pull("lane")) == 5


@pytest.mark.slow
def test_three_workers_on_an_empty_subscription_end_drained(site: Site) -> None:
    workers = [site.start(CLOUD_RUN_TASK_COUNT=3, CLOUD_RUN_TASK_INDEX=index, DRAIN_AFTER_S=5, BILLING_FLOOR_S=60) for index in range(3)]
    ends = [ended(worker, 15) for worker in workers]
    assert [(one.code, one.summary["exit_reason"], one.summary["taken"]) for one in ends] == [(0, "drained", 0)] * 3


def test_bad_messages_are_dead_with_their_reason_and_stop_nobody(site: Site) -> None:
    site.publish_raw(b"not json at all", colour="red")
    site.publish_raw(b'{"task_id":"t-1","task_type":"file_procesing","filename":"a"}')
    site.publish_raw(b'{"task_id":"t-2","task_type":"file_processing","filename":"../../etc/passwd"}')
    files = submit_files(site, 5)
    end = site.run(MAX_MESSAGES=1000)
    assert (end.code, end.summary["exit_reason"]) == (0, "drained")
    check_reports(site, files)
    letters = {one.message.data: dict(one.message.attributes) for one in site.pull("dead-letters")}
    assert len(letters) == 3
    unreadable = letters[b"not json at all"]
    assert unreadable["colour"] == "red"
    assert unreadable["dead_error_type"] == "not_json"
    assert unreadable["task_id"].startswith("message-")
    unknown = letters[b'{"task_id":"t-1","task_type":"file_procesing","filename":"a"}']
    assert "did you mean 'file_processing'" in unknown["dead_reason"]
    climbing = letters[b'{"task_id":"t-2","task_type":"file_processing","filename":"../../etc/passwd"}']
    assert "'..'" in climbing["dead_reason"]
    assert site.final() == {"succeeded": 5, "dead": 3}
    assert site.pull("lane") == []
    assert not [name for name in site.names() if "passwd" in name]


@pytest.mark.slow
def test_the_same_task_from_two_workers_gives_one_output(site: Site) -> None:
    site.upload("input/one.txt", b"one\n")
    body: dict[str, Any] = {"task_id": "same", "task_type": "file_processing", "filename": "one.txt", "processing_time": 1}
    site.publish([body, body])
    workers = [site.start(MAX_MESSAGES=1, CLOUD_RUN_TASK_COUNT=2, CLOUD_RUN_TASK_INDEX=index) for index in range(2)]
    assert [ended(worker).code for worker in workers] == [0, 0]
    assert [one["outcome"] for one in site.outcomes()] == ["succeeded", "succeeded"]
    assert site.final() == {"succeeded": 1}
    (item,) = site.items("processed/")
    assert item["metadata"]["task_id"] == "same"
    assert item["metageneration"] == "1"
