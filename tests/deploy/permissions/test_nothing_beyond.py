"""All roles at work on one lane: what their calls need is what the table grants, no less and no more."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import count
from typing import Any

import httpx
import pytest

from controller.lanes.manifests import read_manifests
from controller.observe.deployed import DeployedJobs
from tests.batch.built_in.receiver import Receiver
from tests.deploy.permissions.recording import calls_are_granted, recorded
from tests.deploy.permissions.table import ACCOUNTS, Recorded, grants, not_granted, used
from tests.e2e.conftest import local_site
from tests.e2e.site import ROOT, Site
from tests.e2e.test_dead_letters_job import run_job
from tests.e2e.test_urgent import LIMIT_S, Process, run
from tests.support import Service, wait_until

__all__ = ["calls_are_granted", "local_site", "run"]

JOB = """
apiVersion: run.googleapis.com/v1
kind: Job
metadata:
  name: lane
  labels: {fanout-lane: lane}
  annotations: {fanout/subscription: lane, fanout/topic: lane, fanout/max-wait: 0s, fanout/callbacks: lane}
spec: {template: {spec: {template: {spec: {maxRetries: 1, timeoutSeconds: 600, containers: [{image: any}]}}}}}
"""
CLIENT = """
import random
from contextlib import closing
from itertools import count
from batch.client.proof import prove
from batch.client.submission import Submission
from batch.client.submit import NewTask
from batch.model.clock import SystemClock
from batch.services.objects import GoogleObjectStore
from batch.services.topic import GoogleTopic

with closing(GoogleTopic(PROJECT, "lane")) as topic, closing(GoogleObjectStore(BUCKET, project=PROJECT)) as store:
    submission = Submission(lane="lane", topic=topic, store=store, clock=SystemClock(), rng=random.Random())
    submission.add(NewTask("work", idempotency_key=f"k-{number}") for number in range(3))
    submission.close()
    prove(store, submission.submission_id)
    print(submission.submission_id)
"""
PERSON = """
import io, json
from contextlib import redirect_stdout
from batch.services.calls import role
from fanout.commands import main

role.name = "cli"
said = []
for command in COMMANDS:
    with redirect_stdout(io.StringIO()) as out:
        try:
            main(command)
        except SystemExit as ended:
            assert ended.code in (0, 1), (command, ended.code)
    said.append(out.getvalue())
print(json.dumps(said))
"""
RARE = {
    ("controller", "run.executions.get"): "asks for one that the newest no longer show: tests/controller/test_listing.py",
    ("controller", "run.tasks.list"): "looks at the workers of an execution of which some died: tests/controller/test_contained.py",
    ("controller", "pubsub.subscriptions.get"): "asks for one that the listing lacks: tests/controller/test_sources.py",
    ("dead-letters", "pubsub.topics.publish"): "replays by a lane's rule: tests/e2e/test_dead_letters_job.py",
    ("dead-letters", "storage.objects.delete"): "replaces what it knows of lanes and replays: tests/batch/dead/test_replaying.py",
    ("worker", "pubsub.topics.publish"): "publishes again what was delivered often: tests/e2e/test_near_the_dead_letter_policy.py",
    ("submitter", "storage.objects.delete"): "a cancel, and a proof that is stored again: tests/batch/test_stored_proof.py",
    ("operator", "cloudscheduler.jobs.list"): "doctor; the local cloud has no Scheduler: tests/fanout/test_doctor_local.py",
    ("operator", "pubsub.topics.getIamPolicy"): "doctor; the local cloud has no IAM: tests/fanout/test_doctor_local.py",
    ("operator", "pubsub.subscriptions.getIamPolicy"): "as for topics",
    ("operator", "serviceusage.services.use"): "gcloud, and Google's clients, name the project that a person's calls are counted for",
}
"""By account and permission: what the scenario does not need, and which test does."""
UNJUDGED = {"roles/run.invoker", "roles/iam.serviceAccountUser", "roles/artifactregistry.reader"}
"""The local cloud serves neither services nor accounts nor images."""


class Scene:
    """One lane, the two services, and a person."""

    def __init__(self, site: Site, broker: Service, run_api: Service, start: Callable[..., Process]) -> None:
        self.site, self._broker = site, broker
        self.own = {
            "HANDLERS": "tests.deploy.permissions.site_handlers",
            "PYTHONPATH": f"{ROOT}",
            "DRAIN_AFTER_S": "0.5",
            "BILLING_FLOOR_S": "0",
            "FLUSH_INTERVAL_S": "0.1",
            "WEBHOOK_ALLOW_PRIVATE": "1",
            "DEAD_LETTER_TOPIC": "dead-letters",
            "TOPIC_NAME": "lane",
        }
        self.environment = {
            **site.environment(**self.own),
            "CLOUD_RUN_EMULATOR_HOST": run_api.http,
            "CLOUD_MONITORING_EMULATOR_HOST": site.pubsub,
        }
        self._apply(run_api)
        serving = {name: value for name, value in self.environment.items() if name not in ("CLOUD_RUN_JOB", "TOPIC_NAME")}
        self.controller = start("controller", serving)
        self.door = start("intake", {**serving, "LANES": "lane=lane", "CONTROLLER_URL": self.controller.url})

    def _apply(self, run_api: Service) -> None:
        (manifest,) = read_manifests(JOB)
        (container,) = manifest.containers
        names = ("PUBSUB_EMULATOR_HOST", "STORAGE_EMULATOR_HOST", "GOOGLE_CLOUD_PROJECT", "SUBSCRIPTION_NAME", "BUCKET_NAME", *self.own)
        container |= {"command": [sys.executable], "args": ["-m", "batch"]}
        container["env"] = [{"name": name, "value": self.environment[name]} for name in names]
        with closing(DeployedJobs(self.site.project, "us-central1", emulator_url=run_api.http)) as jobs:
            jobs.apply(manifest.name, manifest.document, exists=False)

    def fanout(self, *commands: Sequence[str]) -> list[str]:
        """What commands say, one after the other in one process; also those that end with 1, because they tell of something wrong."""
        said: list[str] = json.loads(self.output("-c", f"COMMANDS = {[*map(list, commands)]!r}\n{PERSON}"))
        return said

    def output(self, *arguments: str) -> str:
        done = subprocess.run([sys.executable, *arguments], cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=LIMIT_S)
        assert done.returncode in (0, 1), done.stdout + done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout

    def post(self, path: str, **options: Any) -> Any:
        answer = httpx.post(f"{self.door.url}{path}", timeout=LIMIT_S, **options)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def get(self, path: str) -> Any:
        return httpx.get(f"{self.door.url}{path}", timeout=LIMIT_S).json()

    def backlog(self) -> int:
        found = httpx.get(self._broker.http, timeout=LIMIT_S).json()["subscriptions"]
        return sum(int(one["backlog"]) for one in found if (one["project"], one["subscription"]) == (self.site.project, "lane"))

    def drained(self) -> None:
        """A tick launches a worker; what it leaves, others take, until nothing waits in the lane. Ticks alone would wait until they know
        which messages were acknowledged before a reading of the backlog."""
        httpx.post(f"{self.controller.url}/tick", timeout=LIMIT_S)
        numbers = count(1)

        def is_done() -> bool:
            self.site.run(**self.own, CLOUD_RUN_EXECUTION=f"lane-{next(numbers)}")
            workers = self.site.progress().values()
            return self.backlog() == 0 and all(one.get("exit_reason") for one in workers)

        wait_until(is_done, LIMIT_S, "the lane is drained")

    def ended(self) -> None:
        """Ticks until the controller has published the end of a submission."""

        def is_told() -> bool:
            httpx.post(f"{self.controller.url}/tick", timeout=LIMIT_S)
            return Recorded("controller", "pubsub.Publish", "topic:lane") in recorded(self.site.project)

        wait_until(is_told, LIMIT_S, "the end is published")


@pytest.fixture
def scene(local_site: Site, local_pubsub: Service, local_run: Service, run: Callable[..., Process]) -> Scene:
    return Scene(local_site, local_pubsub, local_run, run)


@pytest.mark.slow
def test_each_account_uses_all_that_it_is_granted_and_needs_no_more(scene: Scene, project: str) -> None:
    site, door = scene.site, scene.door
    receiver = Receiver()
    httpx.get(f"{scene.controller.url}/readyz", timeout=LIMIT_S)
    for at, kind in enumerate(("work", "later")):
        scene.post("/submit-task", json={"task_type": kind}, headers={"Idempotency-Key": f"one-{at}"})
    ends = {"on_complete": json.dumps({"webhook": receiver.url})}
    kinds = ["work", "work", "broken", "failing"]
    body = "".join(json.dumps({"task_type": kind, "idempotency_key": f"{at}"}) + "\n" for at, kind in enumerate(kinds))
    made = scene.post("/submissions", params=ends, content=body, headers={"Idempotency-Key": "nightly"})
    scene.post("/submissions", params=ends, content=body, headers={"Idempotency-Key": "nightly"})
    submission = made["submission_id"]
    mine = scene.output("-c", CLIENT.replace("PROJECT", repr(project)).replace("BUCKET", repr(site.bucket))).strip()
    scene.fanout(["submit", "--topic", "lane", "--lane", "lane", "--task-type", "work"])
    scene.drained()
    run_job(site)
    scene.ended()
    scene.get(f"/submissions/{submission}")
    httpx.post(f"{door.url}/submissions/{submission}/cancel", timeout=LIMIT_S)
    letters, *_, newest = scene.fanout(
        ["dead", "ls"],
        ["dead", "replay", "--yes", "--to-lane", "lane"],
        ["cancel", mine],
        ["proof", submission],
        ["outcomes", mine],
        ["explain", "lane"],
        ["lanes"],
        ["tick"],
        ["doctor"],
        ["pause", "lane"],
        ["resume", "lane"],
        ["launch", "lane", "--workers", "1"],
        ["executions", "--json"],
    )
    assert "it can never succeed" in letters
    scene.fanout(["execution", json.loads(newest)["executions"][0]["execution"]])
    receiver.server.shutdown()
    receiver.server.server_close()

    calls = recorded(project)
    assert not_granted(calls) == []
    found = used(calls)
    unused = {
        (row.account, permission)
        for row in grants()
        if row.account in ACCOUNTS.values() and row.role not in UNJUDGED
        for permission in row.permissions - found.get((row.account, row.role, row.on), set())
    }
    assert unused - set(RARE) == set(), "granted, and used by nothing"
    assert set(RARE) <= {(row.account, one) for row in grants() for one in row.permissions}
