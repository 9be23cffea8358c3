"""`fanout pause` and `resume`: the deployed job is marked, once, and the next tick knows."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from controller.config import ControllerSettings
from controller.lanes.differences import differences
from controller.lanes.lanes import lanes_of
from controller.lanes.manifests import Filling, checked_manifests
from controller.observe.deployed import DeployedJobs
from controller.observe.google_jobs import GoogleJobRunner
from controller.observe.job_documents import job_info
from fanout import launch, pause, tick
from fanout.doctor.google_services import GoogleFixer
from tests.controller.fakes import JOB, World, job, worker, world
from tests.fanout.test_apply import applied, cloud, deployed, jobs_file
from tests.support import Service

__all__ = ["cloud", "jobs_file"]
Run = Callable[..., Result]


def test_a_paused_lane_launches_nothing_until_it_is_resumed(here: World, run: Run) -> None:
    here.backlog_is(10)
    first = run(pause.pause, "default")
    assert (first.exit_code, first.output.startswith("lane default is paused: nothing is launched for it")) == (0, True)
    run(tick.tick, "default")
    assert here.runner.requests == []
    assert run(pause.pause, "default").output == "lane default was paused already\n"
    run(pause.resume, "default")
    run(tick.tick, "default")
    assert len(here.runner.requests) == 1
    assert run(pause.resume, "default").output == "lane default was not paused\n"


def test_what_is_so_already_is_not_set_again(here: World, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(here.runner, "jobs", world([job(paused="true"), job("bulk")]).runner.jobs)
    run(pause.pause, "default")
    run(pause.resume, "bulk")
    assert here.runner.annotated == {}


def test_nothing_is_changed_when_one_name_is_wrong(here: World, run: Run) -> None:
    result = run(pause.pause, "default", "bulki")
    assert (result.exit_code, "did you mean bulk?" in result.output) == (2, True)
    assert here.runner.annotated == {}


def test_json(here: World, run: Run) -> None:
    body = json.loads(run(pause.pause, "default", "--json").output)
    assert body == {"lanes": [{"lane": "default", "job": JOB, "paused": True, "changed": True}]}


def test_a_lane_must_be_named(here: World, run: Run) -> None:
    assert run(pause.pause).exit_code == 2


KEPT: dict[str, Any] = {
    "spec": {
        "volumes": [{"name": "scratch", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}}],
        "containers": [
            {"name": "proxy", "image": "envoy", "command": ["envoy"], "env": [{"name": "TASK_TIMEOUT_S", "value": "its own"}]},
            {"name": "main", "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}], "workingDir": "/scratch"},
        ],
    },
    "annotations": {
        "run.googleapis.com/network-interfaces": '[{"network": "n"}]',
        "run.googleapis.com/encryption-key": "projects/p/locations/r/keyRings/k/cryptoKeys/c",
        "somebody/own": "x",
    },
}
"""What jobs may have that Fanout knows nothing of."""


def with_a_sidecar(project: str, jobs_file: Path, local_run: Service) -> DeployedJobs:
    """The lane `default` deployed so."""
    text, filling = jobs_file.read_text(encoding="utf-8"), Filling(project, f"{project}-bucket", image="an/image")
    (document,) = [one.document for one in checked_manifests(text, filling) if one.lane == "default"]
    template = document["spec"]["template"]
    template["metadata"] = {"annotations": KEPT["annotations"]}
    spec = template["spec"]["template"]["spec"]
    proxy, main = KEPT["spec"]["containers"]
    spec |= {**KEPT["spec"], "containers": [proxy, {**spec["containers"][0], **main}]}
    jobs = DeployedJobs(project, "us-central1", emulator_url=local_run.http)
    jobs.apply("default", document, exists=False)
    return jobs


def test_pause_and_fixes_keep_volumes_sidecars_and_networks(cloud: str, jobs_file: Path, local_run: Service, run: Run) -> None:
    with closing(with_a_sidecar(cloud, jobs_file, local_run)) as jobs:
        before = jobs.read("default")
        assert before is not None
        assert run(pause.pause, "default", "--project", cloud).exit_code == 0
        changes = differences(before, jobs.read("default") or {})
        assert [str(one) for one in changes] == ["+ metadata.annotations[fanout/paused]: true"]
        fixer = GoogleFixer(ControllerSettings(cloud, "b", run_emulator=local_run.http))
        fixer.set_job("default", max_retries=2, env={"TASK_TIMEOUT_S": "9"})
        fixer.close()
        changes = differences(before, jobs.read("default") or {})
        assert [one.short for one in changes if "paused" not in one.path] == [
            "~ containers[main].env[TASK_TIMEOUT_S]: 3600 -> 9",
            "~ maxRetries: 1 -> 2",
        ]


def test_pause_keeps_a_delayed_start_and_a_secret(cloud: str, jobs_file: Path, local_run: Service, run: Run) -> None:
    secret = local_run.state_dir / "secrets" / f"hook-{cloud}"
    secret.parent.mkdir(exist_ok=True)
    secret.write_text("k")
    with closing(with_a_sidecar(cloud, jobs_file, local_run)) as jobs:
        document = jobs.read("default") or {}
        document["spec"]["delayExecution"] = "true"
        env = document["spec"]["template"]["spec"]["template"]["spec"]["containers"][1]["env"]
        env.append({"name": "WEBHOOK_SECRETS", "valueFrom": {"secretKeyRef": {"name": secret.name, "key": "latest"}}})
        jobs.apply("default", document, exists=True)
        before = jobs.read("default") or {}
        for command, paused in ((pause.pause, "true"), (pause.resume, "false")):
            assert run(command, "default", "--project", cloud).exit_code == 0
            changes = differences(before, jobs.read("default") or {})
            assert [str(one) for one in changes] == [f"+ metadata.annotations[fanout/paused]: {paused}"]
        found = job_info(jobs.read("default") or {}, "p")
        assert (found.is_delayed, found.worker.filled) == (True, frozenset({"WEBHOOK_SECRETS"}))


def test_a_launch_names_the_container_that_drains(cloud: str, jobs_file: Path, local_run: Service) -> None:
    with closing(with_a_sidecar(cloud, jobs_file, local_run)):
        result = CliRunner().invoke(launch.command, ["default", "--workers", "1", "--max-messages", "3"])
        assert (result.exit_code, result.stderr) == (0, ""), result.output
    with closing(GoogleJobRunner(cloud, "us-central1", emulator_url=local_run.http)) as runner:
        (execution,) = runner.executions(f"projects/{cloud}/locations/us-central1/jobs/default")
        (lane,), _ = lanes_of(runner.jobs())
    assert (lane.container, lane.problems, execution.env["MAX_MESSAGES"]) == ("main", (), "3")


def test_a_launch_of_a_lane_that_breaks_a_rule_says_so(here: World, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = replace(job(), containers=(worker(job().annotations, SUBSCRIPTION_NAME="bulk"),))
    monkeypatch.setattr(here.runner, "jobs", world([wrong]).runner.jobs)
    result = run(launch.command, "default", "--workers", "1")
    assert (result.exit_code, result.stderr.startswith("advice: job default: env SUBSCRIPTION_NAME='bulk' differs from")) == (0, True)


def test_the_deployed_job_keeps_everything_else(cloud: str, jobs_file: object, local_run: Service, run: Run) -> None:
    assert applied(str(jobs_file), "--yes").exit_code == 0
    before = deployed(cloud, local_run)["default"]
    options = ("--project", cloud)
    result = run(pause.pause, "default", *options)
    assert result.exit_code == 0, result.output
    after = deployed(cloud, local_run)["default"]
    assert after.annotations == {**before.annotations, "fanout/paused": "true"}
    assert (after.env, after.task_timeout_s, after.labels) == (before.env, before.task_timeout_s, before.labels)
    assert "was paused already" in run(pause.pause, "default", *options).output
    assert "- metadata.annotations[fanout/paused]" in applied(str(jobs_file), "--dry-run").output
