"""The main path with the real gcloud: our own manifest, a real backlog, five real workers that share it, and what each of them did."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_cloud.addresses import Addresses
from tests.e2e.site import ROOT, Site
from tests.real_gcloud import Gcloud, find_gcloud
from tests.support import Service, clean_environment

TASKS = 200
SHARE = 45  # four workers are too few for all, so each of the five is needed
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def site(project: str, local_storage: Service, local_pubsub: Service) -> Iterator[Site]:
    made = Site(project, local_pubsub.grpc, local_storage.http)
    yield made
    made.close()


def rendered(site: Site, name: str = "default") -> str:
    command = [sys.executable, "-m", "fanout", "render", name, "jobs.yaml"]
    options = ["--project", site.project, "--bucket", site.bucket, "--image", "us-central1-docker.pkg.dev/p/fanout/fanout"]
    done = subprocess.run([*command, *options], cwd=ROOT, env=clean_environment(), capture_output=True, text=True, check=True)
    return done.stdout


def submit(site: Site) -> None:
    for number in range(TASKS):
        site.upload(f"input/{number:03d}.txt", b"line\n" * number + b"end\n")
    bodies = [{"task_id": f"id-{number:03d}", "task_type": "file_processing", "filename": f"{number:03d}.txt"} for number in range(TASKS)]
    site.publish(bodies)


@pytest.mark.slow
@pytest.mark.real
def test_execute_with_five_tasks_drains_the_backlog_in_bounded_shares(site: Site, local_run: Service, tmp_path: Path) -> None:
    find_gcloud()
    gcloud = Gcloud(Addresses(site.pubsub, NOWHERE, site.storage, local_run.http), tmp_path / "gcloud", site.project)
    submit(site)
    gcloud.json("run", "jobs", "replace", "-", stdin=rendered(site))
    settings = {
        "SUBSCRIPTION_NAME": "lane",
        "TOPIC_NAME": "lane",
        "MAX_MESSAGES": SHARE,
        "DRAIN_AFTER_S": 2,
        "PUBSUB_EMULATOR_HOST": site.pubsub,
        "STORAGE_EMULATOR_HOST": site.storage,
    }
    variables = ",".join(f"{name}={value}" for name, value in settings.items())
    assert gcloud("run", "jobs", "update", "default", f"--update-env-vars={variables}").code == 0
    over = gcloud("run", "jobs", "execute", "default", "--tasks", "5", "--wait", "--format=json")
    assert over.code == 0, over.messages
    execution = over.json["metadata"]["name"]
    assert over.json["status"]["succeededCount"] == 5
    progress = site.progress()
    assert sorted(progress) == [f"{execution}/{index}-0" for index in range(5)]
    for worker in progress.values():
        assert worker["share"] == str(SHARE)
        assert 0 < int(worker["taken"]) <= SHARE
        assert worker["acked"] == worker["taken"]
        assert worker["exit_reason"] in ("share_done", "drained")
    assert sum(int(worker["acked"]) for worker in progress.values()) == TASKS
    assert site.final() == {"succeeded": TASKS}
    assert len(site.names("processed/")) == TASKS
    assert site.pull("lane") == []
    with urllib.request.urlopen(f"{local_run.http}/executions/{execution}/usage", timeout=60) as answer:
        used = json.load(answer)
    assert [(one["index"], one["exit_code"]) for one in used["tries"]] == [(index, 0) for index in range(5)]
    assert all(one["cpu_s"] > 0.1 and one["peak_memory_bytes"] > 20e6 for one in used["tries"])
    with urllib.request.urlopen(f"{local_run.http}/executions/{execution}/logs/4", timeout=60) as answer:
        assert json.loads(answer.read().splitlines()[-1])["event"] == "worker_ended"


@pytest.mark.slow
@pytest.mark.real
def test_the_dead_letters_job_of_jobs_yaml_takes_what_is_dead_into_the_log(site: Site, local_run: Service, tmp_path: Path) -> None:
    find_gcloud()
    gcloud = Gcloud(Addresses(site.pubsub, NOWHERE, site.storage, local_run.http), tmp_path / "gcloud", site.project)
    lane = {"subscription": "lane", "topic": "lane", "rules": {"errors": [], "after_s": 600, "times": 3, "rate": 100}}
    site.upload("controller/lanes.json", json.dumps({"lanes": {"lane": lane}}).encode())  # as a tick writes it
    facts = {"dead_error_type": "KeyError", "dead_reason": "'lines'", "dead_lane": "lane"}
    messages = [{"data": b"{}", "attributes": facts | {"task_id": f"task-{number}"}} for number in range(TASKS)]
    site.publisher.publish(topic=f"projects/{site.project}/topics/dead-letters", messages=messages)
    gcloud.json("run", "jobs", "replace", "-", stdin=rendered(site, "dead-letters"))
    variables = f"--update-env-vars=DRAIN_AFTER_S=1,PUBSUB_EMULATOR_HOST={site.pubsub},STORAGE_EMULATOR_HOST={site.storage}"
    assert gcloud("run", "jobs", "update", "dead-letters", variables).code == 0
    over = gcloud("run", "jobs", "execute", "dead-letters", "--tasks", "3", "--wait", "--format=json")
    assert over.code == 0, over.messages
    assert over.json["status"]["succeededCount"] == 3
    lines = [json.loads(line) for name in site.names("dead/lane/") for line in site.read(name).splitlines()]
    assert sorted(line["task_id"] for line in lines) == sorted(f"task-{number}" for number in range(TASKS))
    assert site.pull("dead-letters") == []
