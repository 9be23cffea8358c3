"""A task that kills its worker, on real processes: two workers die of it at most, its neighbours do not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.site import Site
from tests.support import Service, start_service

SETTINGS = {"HANDLERS": "tests.batch.child.handlers", "MAX_MESSAGES": 1000, "CONCURRENCY": 4, "BILLING_FLOOR_S": 0, "DRAIN_AFTER_S": "0.5"}


@pytest.fixture
def own_pubsub(tmp_path: Path) -> Iterator[Service]:
    """Its clock is moved here."""
    service = start_service("pubsub", tmp_path, "--sample-period-s", "0", "--visibility-lag-s", "0")
    yield service
    service.stop()


@pytest.mark.slow
def test_a_task_that_kills_its_worker_does_it_twice_at_most(own_pubsub: Service, local_storage: Service, project: str) -> None:
    site = Site(project, own_pubsub.grpc, local_storage.http)
    try:
        good = [f"good-{number}" for number in range(12)]
        site.publish([{"task_id": task_id, "task_type": "thread-write", "seconds": 0.02} for task_id in good[:6]])
        site.publish([{"task_id": "poison", "task_type": "thread-dies"}])
        site.publish([{"task_id": task_id, "task_type": "thread-write", "seconds": 0.02} for task_id in good[6:]])
        deaths = 0
        while True:
            end = site.run(**SETTINGS, CLOUD_RUN_TASK_ATTEMPT=deaths)
            if end.code != 9:
                break
            deaths += 1
            assert deaths <= 2, "a third worker died"
            own_pubsub.advance(site.ack_deadline_s + 1)
        assert (end.code, end.summary["exit_reason"]) == (0, "drained"), end.text
        assert deaths == 2
        final = {one["task_id"]: one["outcome"] for one in site.outcomes()}
        assert final == {**dict.fromkeys(good, "succeeded"), "poison": "dead"}
        (letter,) = site.pull("dead-letters")
        assert letter.message.attributes["dead_error_type"] == "worker_died"
        assert "exit code 9" in letter.message.attributes["dead_reason"]
        assert site.names("attempts/") == ["attempts/poison.json"]
        record = json.loads(site.read("attempts/poison.json"))
        assert record["lost"] == [{"execution": "lane-x", "index": 0, "retry": 1, "at": record["lost"][0]["at"]}]
        assert record["errors"][0]["error_type"] == "ProcessDied"
        assert "poison" in {line["task_id"] for line in end.events("quarantined_task_runs")}
        assert sorted(site.names("out/")) == sorted(f"out/{task_id}" for task_id in good)
        assert site.pull("lane") == []
    finally:
        site.close()


@pytest.mark.slow
def test_raw_bytes_that_kill_their_worker_are_kept_as_they_came(own_pubsub: Service, local_storage: Service, project: str) -> None:
    site = Site(project, own_pubsub.grpc, local_storage.http)
    data = bytes(range(256)) * 1000
    try:
        site.publish_raw(data, colour="red")
        deaths = 0
        while (end := site.run(**SETTINGS, CLOUD_RUN_TASK_ATTEMPT=deaths, ACCEPT="raw", DEFAULT_TYPE="thread-dies")).code == 9:
            deaths += 1
            assert deaths <= 2, "a third worker died"
            own_pubsub.advance(site.ack_deadline_s + 1)
        assert (end.code, end.summary["exit_reason"], deaths) == (0, "drained", 2), end.text
        (outcome,) = site.outcomes()
        (letter,) = site.pull("dead-letters")
        attributes = dict(letter.message.attributes)
        assert (letter.message.data, attributes["colour"], attributes["dead_error_type"]) == (data, "red", "worker_died")
        assert (outcome["outcome"], outcome["task_id"]) == ("dead", attributes["task_id"])
        assert site.names("attempts/") == [f"attempts/{outcome['task_id']}.json"]
    finally:
        site.close()
