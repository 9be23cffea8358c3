"""An upgrade while work runs, and a roll back: the code that froze 0.1 and today's, as processes on one lane of the local cloud."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from batch.client.proof import prove
from batch.client.submission import Submission
from batch.client.submit import NewTask
from batch.model.clock import SystemClock
from batch.services.objects import GoogleObjectStore
from batch.services.topic import GoogleTopic
from tests.e2e.site import Ended, Site, ended
from tests.fanout.test_apply import JOBS_FILE
from tests.formats.old import environment, old_code
from tests.support import Service, clean_environment, wait_until

pytestmark = pytest.mark.slow
NEW = "new"


@pytest.fixture
def codes(tmp_path: Path) -> dict[str, dict[str, str]]:
    """By name, what a process runs it with."""
    (tmp_path / "old").mkdir()
    return {"old": environment(old_code(tmp_path / "old")), NEW: environment(Path(__file__).resolve().parents[2])}


def submit(lane: str, bucket: str, project: str, count: int) -> str:
    """As today's front door does: files, and one task that can only die."""
    with closing(GoogleObjectStore(bucket, project=project)) as store, closing(GoogleTopic(project, lane)) as topic:
        submission = Submission(lane=lane, topic=topic, store=store, clock=SystemClock(), rng=random.Random(count))
        for number in range(count):
            store.write(f"input/{count}-{number}.csv", b"id\n1\n")
        submission.add(NewTask("file_processing", {"filename": f"{count}-{number}.csv"}) for number in range(count))
        submission.add([NewTask("nobody_knows", {})])
        submission.close()
    return submission.submission_id


def proven(bucket: str, project: str, submission: str) -> Counter[str]:
    with closing(GoogleObjectStore(bucket, project=project)) as store:
        proof = prove(store, submission)
    assert not proof.problems
    return Counter({"missing": len(proof.missing), **{name: count for name, count in proof.counts.items() if count}})


def running(run: Service, project: str) -> list[str]:
    """The executions of lane default that have not ended."""
    with urllib.request.urlopen(f"{run.http}/v2/projects/{project}/locations/us-central1/jobs/default/executions", timeout=60) as answer:
        found = json.load(answer)["executions"]
    return [one["name"] for one in found if "completionTime" not in one]


@pytest.fixture
def site(project: str, local_storage: Service, local_pubsub: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", local_pubsub.grpc)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", local_storage.http)
    made = Site(project, local_pubsub.grpc, local_storage.http)
    yield made
    made.close()


def test_old_and_new_workers_drain_one_lane_side_by_side(site: Site, codes: dict[str, dict[str, str]]) -> None:
    submission = submit("lane", site.bucket, site.project, 100)
    processes = []
    for index, code in enumerate(codes.values()):
        given = {**site.environment(CLOUD_RUN_TASK_INDEX=index, CLOUD_RUN_TASK_COUNT=2, LANE="lane"), **code}
        command = [sys.executable, "-P", "-m", "batch"]
        processes.append(subprocess.Popen(command, env=given, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
    site.processes += processes
    ends: list[Ended] = [ended(one) for one in processes]
    assert [one.code for one in ends] == [0, 0], "\n".join(one.text for one in ends)
    assert all(one.summary["acked"] > 0 for one in ends), "both took a part"
    assert proven(site.bucket, site.project, submission) == {"succeeded": 100, "dead": 1, "missing": 0}


def test_controllers_and_workers_take_over_from_each_other(
    codes: dict[str, dict[str, str]], local_run: Service, local_pubsub: Service, local_storage: Service, project: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """An old controller, then a new one with old workers, then the old one again with new workers: each reads the other's state."""
    given = {
        "GOOGLE_CLOUD_PROJECT": project,
        "BUCKET_NAME": f"{project}-bucket",
        "CLOUD_RUN_EMULATOR_HOST": local_run.http,
        "CLOUD_MONITORING_EMULATOR_HOST": local_pubsub.grpc,
        "PUBSUB_EMULATOR_HOST": local_pubsub.grpc,
        "STORAGE_EMULATOR_HOST": local_storage.http,
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)

    emulators = {name: value for name, value in given.items() if name.startswith(("PUBSUB_", "STORAGE_"))}
    emulators["DRAIN_AFTER_S"] = "2"

    def fanout(code: str, *arguments: str) -> str:
        command = [sys.executable, "-P", "-m", "fanout", *arguments]
        done = subprocess.run(
            command, env={**clean_environment(), **given, **codes[code]}, cwd="/", capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, f"{code} {arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def deploy(code: str) -> None:
        file = tmp_path / f"jobs-{code}.yaml"
        document = next(one for one in yaml.safe_load_all(JOBS_FILE.read_text(encoding="utf-8")) if one["metadata"]["name"] == "default")
        document["metadata"]["annotations"]["fanout/max-wait"] = "0s"
        container = document["spec"]["template"]["spec"]["template"]["spec"]["containers"][0]
        container["command"] = [sys.executable, "-P", "-m", "batch"]
        container["env"] += [{"name": name, "value": value} for name, value in (codes[code] | emulators).items()]
        file.write_text(yaml.safe_dump(document), encoding="utf-8")
        fanout(NEW, "apply", str(file), "--yes", "--create-missing")

    for number, (controller, worker) in enumerate([("old", "old"), (NEW, "old"), ("old", NEW)], 1):
        deploy(worker)
        submission = submit("default", given["BUCKET_NAME"], project, 20 * number)
        launched: list[str] = []

        def drained(controller: str = controller, submission: str = submission, launched: list[str] = launched) -> bool:
            (found,) = json.loads(fanout(controller, "tick", "--json"))["lanes"]
            launched.extend(found["launched"])
            return proven(given["BUCKET_NAME"], project, submission)["missing"] == 0

        wait_until(drained, 100, f"round {number}: a {controller} controller with {worker} workers")
        assert proven(given["BUCKET_NAME"], project, submission) == {"succeeded": 20 * number, "dead": 1, "missing": 0}
        assert launched, "this controller went on from the other's state"
        # A worker that is still there would take the next round's tasks, and nothing would be launched for them.
        wait_until(lambda: not running(local_run, project), 100, f"the workers of round {number} have ended")
