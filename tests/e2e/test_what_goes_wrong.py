"""Kills, signals and wrong settings, on real processes: nothing lost, no output twice, and an exit code that says what it was."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections import Counter
from pathlib import Path

import pytest

from tests.e2e.site import ROOT, Site, ended, wait_for_event
from tests.support import Service, wait_until


def submit(site: Site, count: int, processing_time: float = 0.0) -> list[str]:
    """Tasks on inputs that do not exist: the plain report is written."""
    names = [f"file-{number:04d}" for number in range(count)]
    site.publish(
        [{"task_id": f"id-{name}", "task_type": "file_processing", "filename": name, "processing_time": processing_time} for name in names]
    )
    return names


def check_all_done_once(site: Site, names: list[str]) -> None:
    assert site.final() == {"succeeded": len(names)}
    items = {item["name"]: item for item in site.items("processed/")}
    assert sorted(items) == sorted(f"processed/{name}" for name in names)
    for name in names:
        item = items[f"processed/{name}"]
        assert item["metadata"]["task_id"] == f"id-{name}"
        assert item["metageneration"] == "1"
    writers = Counter(one["output"] for one in site.outcomes() if one["outcome"] == "succeeded")
    assert set(writers) == set(items)
    assert site.pull("lane") == []
    assert site.pull("dead-letters") == []


def kill_in_the_middle(site: Site, **settings: object) -> int:
    """SIGKILL a worker once some of its work is on record; returns what its progress says it had acknowledged."""
    killed = site.start(**settings)
    wait_until(lambda: int(site.progress().get("lane-x/0-0", {}).get("acked", 0)) > 0, 60, "progress of the first acks")
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    left = site.progress()["lane-x/0-0"]
    assert left["exit_reason"] == ""
    return int(left["acked"])


KILLED = {"BACKLOG": 120, "CONCURRENCY": 2, "PROGRESS_INTERVAL_S": "0.2", "FLUSH_INTERVAL_S": "0.2"}
"""It would need 18 s for tasks of 0.3 s: nobody can come too late to kill it. Its retry has a place for each half of them."""
RETRY = {**KILLED, "CONCURRENCY": 64, "CLOUD_RUN_TASK_ATTEMPT": 1}


@pytest.mark.slow
def test_a_killed_worker_loses_nothing_and_its_retry_takes_the_rest_of_the_share(local_site: Site, local_pubsub: Service) -> None:
    names = submit(local_site, 120, processing_time=0.3)
    acked = kill_in_the_middle(local_site, **KILLED)
    local_pubsub.advance(local_site.ack_deadline_s)
    retry = local_site.run(**RETRY, BILLING_FLOOR_S=0)
    assert retry.code == 0
    assert retry.summary["share"] == 120 - acked
    assert retry.summary["exit_reason"] in ("share_done", "drained")
    local_site.run(MAX_MESSAGES=1000, CLOUD_RUN_EXECUTION="lane-y")
    check_all_done_once(local_site, names)


@pytest.mark.slow
def test_the_retry_of_a_killed_worker_waits_for_what_the_killed_one_held(site: Site) -> None:
    names = submit(site, 120, processing_time=0.3)
    kill_in_the_middle(site, **KILLED)
    retry = site.run(**RETRY, BILLING_FLOOR_S=25)
    assert retry.code == 0
    check_all_done_once(site, names)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_stopped_worker_hands_back_at_once_what_has_not_started(site: Site, number: int) -> None:
    names = submit(site, 60, processing_time=0.3)
    worker = site.start(MAX_MESSAGES=1000, CONCURRENCY=4, FLUSH_INTERVAL_S="0.2")
    wait_for_event(worker, "flushed")
    worker.send_signal(number)
    end = ended(worker)
    assert (end.code, end.summary["exit_reason"]) == (0, "stopped"), end.text
    done = site.final()["succeeded"]
    assert 0 < done < 60
    summary = end.summary
    assert summary["taken"] == summary["acked"] + summary["returned"]
    assert summary["acked"] == done
    # What was handed back can be had at once, without waiting for a lease of 10 s to end.
    assert len(site.pull("lane")) == 60 - done
    assert names


@pytest.mark.slow
def test_a_worker_near_its_timeout_hands_back_and_ends_well(local_site: Site) -> None:
    submit(local_site, 200, processing_time=0.2)
    end = local_site.run(MAX_MESSAGES=1000, CONCURRENCY=4, TASK_TIMEOUT_S=4, PREFETCH_S="0.3")
    assert (end.code, end.summary["exit_reason"]) == (0, "out_of_time"), end.text
    done = local_site.final()["succeeded"]
    assert 0 < done < 200
    assert len(local_site.pull("lane")) == 200 - done


def test_a_second_execution_of_a_decision_takes_nothing(local_site: Site) -> None:
    names = submit(local_site, 6)
    first = local_site.run(BACKLOG=6, DECISION_ID="d-1.0")
    assert first.summary["exit_reason"] == "share_done"
    submit(local_site, 6)
    second = local_site.run(BACKLOG=6, DECISION_ID="d-1.0", CLOUD_RUN_EXECUTION="lane-y")
    assert (second.code, second.summary["exit_reason"], second.summary["taken"]) == (0, "not_claimed", 0)
    assert "lane-x" in second.events("worker_not_claimed")[0]["holder"]
    assert len(local_site.pull("lane")) == len(names)


def test_all_wrong_settings_are_told_at_once(local_site: Site) -> None:
    end = local_site.run(
        MAX_MESSAGES="abc", CONCURRENCY="0", TASK_TIMEOUT_S="-1", SUBSCRIPTION_NAME="", BUCKET_NAME="", CLOUD_RUN_TASK_INDEX="x"
    )
    assert end.code == 2
    problems = [line["error"] for line in end.events("settings_wrong")]
    assert [problem.split("=")[0].split(" ")[0] for problem in problems] == [
        "SUBSCRIPTION_NAME",
        "BUCKET_NAME",
        "MAX_MESSAGES",
        "CONCURRENCY",
        "TASK_TIMEOUT_S",
        "CLOUD_RUN_TASK_INDEX",
    ]
    assert problems[2] == "MAX_MESSAGES='abc': a whole number, 1 or more"


def test_a_setting_that_is_not_there_is_named_with_the_one_that_was_meant(local_site: Site) -> None:
    environment = local_site.environment(SUBSCRIPTION_NAM="lane")
    del environment["SUBSCRIPTION_NAME"]
    end = local_site.run_with(environment)
    assert end.code == 2
    (problem,) = end.events("settings_wrong")
    assert "SUBSCRIPTION_NAM is set; did you mean SUBSCRIPTION_NAME?" in problem["error"]


def test_handlers_that_cannot_be_imported_are_named(local_site: Site) -> None:
    end = local_site.run(HANDLERS="batch.handlers,no_such_module")
    assert end.code == 2
    assert "no_such_module" in end.events("settings_wrong")[0]["error"]


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("SUBSCRIPTION_NAME", "no-such-lane", "subscription projects/{project}/subscriptions/no-such-lane does not exist"),
        ("BUCKET_NAME", "no-such-bucket", "bucket no-such-bucket does not exist"),
        ("GOOGLE_CLOUD_PROJECT", "no-such-project", "projects/no-such-project/subscriptions/lane does not exist"),
    ],
)
def test_what_does_not_exist_is_named_with_the_fix(site: Site, setting: str, value: str, told: str) -> None:
    submit(site, 3)
    end = site.run(**{setting: value})
    assert (end.code, end.summary["exit_reason"]) == (3, "broken"), end.text
    (broken,) = end.events("worker_broken")
    assert told.format(project=site.project) in broken["error"]
    assert "create it with" in broken["error"]
    assert "\n" not in broken["error"]
    assert len(site.pull("lane")) == 3


def test_the_log_is_json_and_its_last_line_has_the_counts(local_site: Site) -> None:
    submit(local_site, 3)
    end = local_site.run(BACKLOG=3, HANDLERS="batch.handlers")
    assert [json.loads(line) for line in end.text.splitlines()] == end.lines
    summary = end.summary
    assert {"share", "taken", "acked", "returned", "succeeded", "dead", "handler_s", "elapsed_s"} <= set(summary)
    assert (summary["severity"], summary["execution"], summary["index"], summary["retry"]) == ("INFO", "lane-x", 0, 0)


@pytest.mark.slow
def test_a_stopped_worker_ends_in_time_whoever_does_not_answer(local_site: Site) -> None:
    """The bucket's server takes connections and never answers: a worker that waits for it must not outlive its grace of 10 s."""
    submit(local_site, 3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        worker = local_site.start(STORAGE_EMULATOR_HOST=f"http://127.0.0.1:{silent.getsockname()[1]}")
        wait_for_event(worker, "worker_started")
        worker.send_signal(signal.SIGTERM)
        end = ended(worker)
    assert end.code == 3
    assert end.lines[-1]["event"] == "worker_cut_short"
    assert len(local_site.pull("lane")) == 3


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("x = (", "SyntaxError"),
        ("raise SystemExit(0)", "SystemExit"),
        ("import no_such_thing", "no_such_thing"),
        ("1 / 0", "division by zero"),
    ],
)
def test_a_broken_handlers_module_is_named_with_its_error_and_all_else(local_site: Site, tmp_path: Path, source: str, told: str) -> None:
    (tmp_path / "broken_handlers.py").write_text(source)
    end = local_site.run(HANDLERS="broken_handlers", MAX_MESSAGES="abc", PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    assert end.code == 2
    problems = [line["error"] for line in end.events("settings_wrong")]
    assert problems[0].startswith("MAX_MESSAGES='abc'")
    assert "broken_handlers" in problems[1]
    assert told in problems[1]
