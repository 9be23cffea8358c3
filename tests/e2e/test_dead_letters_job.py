"""The dead-letters job as real processes: what workers gave up and what Pub/Sub's dead-letter policy caught is in the log, or back."""

from __future__ import annotations

import base64
import itertools
import json
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batch.client.proof import prove
from batch.client.submission import Submission
from batch.client.submit import NewTask
from batch.model.clock import SystemClock
from batch.services.objects import GoogleObjectStore
from batch.services.topic import GoogleTopic
from tests.e2e.site import ROOT, Ended, Site, ended, wait_for_event
from tests.support import Service, pulled_at_once, wait_until

LIMIT = 5
RAW = bytes(range(256)) * 2
RULES = {"errors": [], "after_s": 600, "times": 3, "rate": 100}
LANES = {"lanes": {"lane": {"name": "lane", "subscription": "lane", "topic": "lane", "rules": RULES}}}
HANDLERS = """
from batch.handling.registry import task
from batch.model.errors import Permanent


@task("permanent")
def permanent(task, ctx):
    raise Permanent("no such row 17")


@task("failing", retries=0)
def failing(task, ctx):
    raise KeyError("lines")


@task("work")
def work(task, ctx):
    ctx.write(f"out/{task.task_id}", b"done")
"""


@pytest.fixture(params=["local", pytest.param("google", marks=[pytest.mark.real, pytest.mark.slow])])
def strict(request: pytest.FixtureRequest, project: str, local_storage: Service) -> Iterator[Site]:
    """As `site`, where the policy allows few deliveries."""
    pubsub = request.getfixturevalue("local_pubsub").grpc if request.param == "local" else request.getfixturevalue("google_pubsub")
    made = Site(project, pubsub, local_storage.http, max_delivery_attempts=LIMIT)
    made.upload("controller/lanes.json", json.dumps(LANES).encode())
    yield made
    made.close()


def start_job(site: Site, **settings: object) -> subprocess.Popen[bytes]:
    given: dict[str, object] = {
        "CLOUD_RUN_JOB": "dead-letters",
        "CLOUD_RUN_EXECUTION": "dead-letters-x",
        "DRAIN_AFTER_S": "0.5",
        **settings,
    }
    command = [sys.executable, "-W", "error", "-m", "batch", "dead-letters"]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=site.environment(**{**given, **settings}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    site.processes.append(process)
    return process


def run_job(site: Site, **settings: object) -> Ended:
    end = ended(start_job(site, **settings))
    assert (end.code, end.lines[-1]["event"]) == (0, "dead_letters_ended"), end.text
    return end


def in_log(site: Site, lane: str = "lane") -> list[dict[str, Any]]:
    return [json.loads(line) for name in site.names(f"dead/{lane}/") for line in site.read(name).splitlines()]


def caught(site: Site, count: int) -> None:
    """Deliver what lies in the lane, and nack it, until the policy takes it."""
    path = f"projects/{site.project}/subscriptions/lane"
    for _ in range(LIMIT):
        got: list[Any] = []

        def all_came(got: list[Any] = got) -> bool:
            got += pulled_at_once(site.subscriber, path)
            return len(got) >= count

        wait_until(all_came, description="all are delivered")
        site.subscriber.modify_ack_deadline(subscription=path, ack_ids=[one.ack_id for one in got], ack_deadline_seconds=0)


@pytest.mark.slow
def test_all_that_died_is_in_the_log_and_the_rest_is_back(strict: Site, tmp_path: Path) -> None:
    site = strict
    (tmp_path / "giving_up.py").write_text(HANDLERS)
    workers: dict[str, object] = {
        "HANDLERS": "giving_up",
        "PYTHONPATH": f"{tmp_path}:{ROOT}",
        "FLUSH_INTERVAL_S": 0.1,
        "DRAIN_AFTER_S": 0.5,
    }
    # What Pub/Sub's policy caught: one without a failed attempt, one with, one that is no task.
    site.publish([{"task_id": "back", "task_type": "work"}, {"task_id": "caught", "task_type": "work"}])
    site.publish_raw(RAW, shard="s-1")
    error = {
        "at": "2026-01-01T00:00:00Z",
        "error_type": "OSError",
        "reason": "no space",
        "execution": "lane-w",
        "index": 4,
        "traceback": "T",
    }
    site.upload("attempts/caught.json", json.dumps({"attempt_count": 1, "not_before": 0, "errors": [error]}).encode())
    caught(site, 3)
    wait_until(lambda: not pulled_at_once(site.subscriber, f"projects/{site.project}/subscriptions/lane"), description="the lane is empty")
    # What a worker gives up: permanent, without attempts left, poison, and what it cannot read.
    marker = {"execution": "lane-gone", "index": 0, "retry": 0, "at": "2026-01-01T00:00:00Z"}
    record = {"attempt_count": 0, "not_before": 0, "errors": [], "in_progress": marker, "lost": [marker] * 4}
    site.upload("attempts/poison.json", json.dumps(record).encode())
    types = {"permanent": "permanent", "failing": "failing"}
    site.publish([{"task_id": task_id, "task_type": task_type, "n": 1} for task_id, task_type in types.items()])
    site.publish_raw(b'{"task_id": "poison", "task_type": "work"}', shard="s-1", delayed="0000000000 1.000000 m 1 1")
    site.publish_raw(RAW + b"!", shard="s-1", color="blue")
    assert site.run(**workers).code == 0
    end = run_job(site, LANE="ignored")
    lines = in_log(site)
    letters = {
        one["task_id"] if not one["task_id"].startswith("message-") else one["error_type"]: one for one in lines if one["event"] == "died"
    }
    assert sorted(letters) == ["caught", "failing", "not_json", "permanent", "poison", "undeliverable"], end.text
    assert {name: letters[name]["error_type"] for name in ("permanent", "failing", "poison", "caught")} == {
        "permanent": "permanent",
        "failing": "KeyError",
        "poison": "worker_died",
        "caught": "OSError",
    }
    assert json.loads(letters["permanent"]["data"]) == {"task_id": "permanent", "task_type": "permanent", "n": 1}
    assert [base64.b64decode(letters[name]["data_base64"]) for name in ("not_json", "undeliverable")] == [RAW + b"!", RAW]
    assert letters["not_json"]["attributes"]["color"] == "blue"
    (error,) = letters["failing"]["errors"]
    assert (error["error_type"], "giving_up.py" in error["traceback"]) == ("KeyError", True)
    assert letters["caught"]["source"]["CloudPubSubDeadLetterSourceDeliveryCount"] == f"{LIMIT}"
    assert (letters["caught"]["execution"], letters["caught"]["index"]) == ("lane-w", 4)
    assert "no task that can be read" in letters["undeliverable"]["kept_because"]
    assert all(one["shard"] == "s-1" and one["fingerprint"] and one["first_at"] <= one["died_at"] for one in letters.values())
    assert letters["permanent"]["execution"] == "lane-x"
    assert [(one["event"], one["task_id"]) for one in lines if one["event"] != "died"] == [("returned", "back")]
    assert site.pull("dead-letters") == []
    again = site.run(**workers, CLOUD_RUN_EXECUTION="lane-y")
    assert (again.code, site.names("out/")) == (0, ["out/back"]), again.text
    assert site.final() == Counter(dead=6, succeeded=1)
    assert run_job(site, CLOUD_RUN_EXECUTION="dead-letters-y").lines[-1]["logged_count"] == 0


def test_it_ends_cleanly_when_it_is_told_to(local_site: Site) -> None:
    local_site.upload("controller/lanes.json", json.dumps(LANES).encode())
    process = start_job(local_site, DRAIN_AFTER_S=6, CLOUD_RUN_TASK_INDEX=1)
    local_site.publisher.publish(topic=f"projects/{local_site.project}/topics/dead-letters", messages=[{"data": b"x"}])
    wait_for_event(process, "dead_letters_logged")
    process.send_signal(signal.SIGTERM)
    end = ended(process)
    assert (end.code, end.lines[-1]["exit_reason"], end.lines[-1]["logged_count"]) == (0, "stopped", 1), end.text


@pytest.mark.slow
def test_eight_workers_at_once(local_site: Site) -> None:
    local_site.upload("controller/lanes.json", json.dumps(LANES).encode())
    topic, count = f"projects/{local_site.project}/topics/dead-letters", 8000
    facts = {"dead_error_type": "KeyError", "dead_reason": "'lines'", "dead_lane": "lane", "dead_attempt_count": "0", "shard": "s-1"}
    for at in range(0, count, 500):
        messages = [{"data": b"{}", "attributes": facts | {"task_id": f"task-{number}"}} for number in range(at, at + 500)]
        local_site.publisher.publish(topic=topic, messages=messages)
    processes = [start_job(local_site, CLOUD_RUN_TASK_INDEX=index, CLOUD_RUN_TASK_COUNT=8) for index in range(8)]
    ends = [ended(process) for process in processes]
    assert [end.code for end in ends] == [0] * 8, ends
    found = Counter(one["task_id"] for one in in_log(local_site))
    assert (len(found), set(found.values())) == (count, {1})
    assert sum(end.lines[-1]["logged_count"] for end in ends) == count
    assert local_site.pull("dead-letters") == []


OUTAGE = """
import os

from batch.handling.registry import task


@task("work", retries=0)
def work(task, ctx):
    if task.fields["n"] % 5 and not os.environ.get("IS_UP"):
        raise TimeoutError("the database does not answer")
    ctx.write(f"out/{task.task_id}", b"done")
"""


@pytest.mark.slow
def test_an_outage_that_killed_500_tasks_needs_no_person(local_site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = local_site
    (tmp_path / "outage.py").write_text(OUTAGE)
    rules = {"errors": ["TimeoutError"], "after_s": 3, "times": 3, "rate": 1000}
    site.upload("controller/lanes.json", json.dumps({"lanes": {"lane": {**LANES["lanes"]["lane"], "rules": rules}}}).encode())
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", site.pubsub)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", site.storage)
    topic, store = GoogleTopic(site.project, "lane"), GoogleObjectStore(site.bucket, project=site.project)
    submission = Submission(lane="lane", topic=topic, store=store, clock=SystemClock(), rng=random.Random(1))
    submission.add(NewTask("work", {"n": number}) for number in range(625))
    submission.close()
    workers: dict[str, object] = {"HANDLERS": "outage", "PYTHONPATH": f"{tmp_path}:{ROOT}", "FLUSH_INTERVAL_S": 0.1, "MAX_MESSAGES": 5000}
    workers |= {"DRAIN_AFTER_S": 0.5}
    assert site.run(**workers).code == 0
    assert prove(store, submission.submission_id).counts.items() >= {"succeeded": 125, "dead": 500}.items()
    replayed: list[int] = []
    for execution in itertools.count(1):
        replayed.append(run_job(site, CLOUD_RUN_EXECUTION=f"dead-letters-{execution}").lines[-1]["replayed_count"])
        assert site.run(**workers, CLOUD_RUN_EXECUTION=f"lane-{execution}", IS_UP=1).code == 0
        if sum(replayed) >= 500:
            break
    proof = prove(store, submission.submission_id)
    assert (proof.complete, {name: count for name, count in proof.counts.items() if count}) == (True, {"succeeded": 625})
    assert sum(count > 0 for count in replayed) > 1, replayed
    assert len(site.names("out/")) == 625
    topic.close()


def test_help_and_settings(local_site: Site) -> None:
    command = [sys.executable, "-m", "batch"]
    shown = subprocess.run([*command, "dead-letters", "--help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "DEAD_LETTER_SUBSCRIPTION" in shown
    shown = subprocess.run([*command, "--help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "python -m batch dead-letters drains the dead-letter subscription" in shown
    end = ended(start_job(local_site, DEAD_LETTER_SUBSCRIPTION="goog?", TASK_TIMEOUT_S="none"))
    assert (end.code, len(end.events("settings_wrong"))) == (2, 2), end.text
