"""The real clients against the local cloud: jobs, executions, gauges and a whole tick."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from batch.model.clock import SystemClock
from batch.model.errors import DependencyMissing, DependencyUnavailable
from batch.testing import ManualClock
from controller.config import controller_settings
from controller.decide.decision import Kind
from controller.lanes.differences import differences
from controller.lanes.lanes import lane_of
from controller.lanes.manifests import Manifest, read_manifests
from controller.lanes.resources import Creator, needed
from controller.model.reading import Idle, Unknown, Value
from controller.observe.backlog import GoogleBacklogReader
from controller.observe.deployed import DeployedJobs, ManifestRefused
from controller.observe.google_jobs import GoogleJobRunner
from controller.observe.jobs import JobInfo, LaunchRefused, LaunchUnclear, RunRequest
from controller.tick.outside import Outside
from controller.tick.rounds import tick_lanes
from controller.wiring import connected
from tests.controller.fakes import job_of
from tests.support import Service, wait_until

MANIFEST = """
apiVersion: run.googleapis.com/v1
kind: Job
metadata:
  name: default
  labels: {fanout-lane: default}
  annotations:
    fanout/subscription: tasks-sub
    fanout/topic: tasks
    fanout/max-messages: "10"
    fanout/max-workers: "20"
    fanout/max-wait: 0s
spec:
  template:
    spec:
      template:
        spec:
          maxRetries: 1
          timeoutSeconds: 900
          containers:
            - image: any
              command: [python, -c, "import sys; sys.exit(0)", -m, batch]
              env:
                - {name: SUBSCRIPTION_NAME, value: tasks-sub}
                - {name: TOPIC_NAME, value: tasks}
                - {name: BUCKET_NAME, value: %s}
                - {name: CONCURRENCY, value: "3"}
              resources:
                limits: {cpu: "2", memory: 1Gi}
"""


def manifest(cloud: dict[str, str]) -> Manifest:
    (found,) = read_manifests(MANIFEST % cloud["BUCKET_NAME"])
    return found


@pytest.fixture
def deployed(cloud: dict[str, str]) -> Iterator[DeployedJobs]:
    with closing(DeployedJobs(cloud["GOOGLE_CLOUD_PROJECT"], cloud["REGION"], emulator_url=cloud["CLOUD_RUN_EMULATOR_HOST"])) as jobs:
        found = manifest(cloud)
        jobs.apply(found.name, found.document, exists=False)
        yield jobs


@pytest.fixture
def runner(cloud: dict[str, str], deployed: DeployedJobs) -> Iterator[GoogleJobRunner]:
    with closing(GoogleJobRunner(cloud["GOOGLE_CLOUD_PROJECT"], cloud["REGION"], emulator_url=cloud["CLOUD_RUN_EMULATOR_HOST"])) as found:
        yield found


@pytest.fixture
def outside(cloud: dict[str, str], deployed: DeployedJobs) -> Iterator[Outside]:
    with closing(Creator(cloud["GOOGLE_CLOUD_PROJECT"], cloud["REGION"])) as creator:
        list(creator.create_missing(needed(manifest(cloud))))
    with connected(controller_settings(cloud)) as found:
        yield found


def publish(project: str, count: int) -> None:
    from google.cloud import pubsub_v1

    publisher: Any = pubsub_v1.PublisherClient()
    for future in [publisher.publish(f"projects/{project}/topics/tasks", b"{}") for _ in range(count)]:
        future.result(timeout=60)
    publisher.stop()
    publisher.transport.close()


def put_gauge(service: Service, **gauge: object) -> None:
    body = json.dumps(gauge).encode()
    request = urllib.request.Request(f"{service.http}/gauges", body, {"Content-Type": "application/json"}, method="PUT")
    with urllib.request.urlopen(request, timeout=60) as response:
        assert response.status == 200


def the_job(runner: GoogleJobRunner) -> JobInfo:
    (found,) = runner.jobs()
    return found


def test_a_deployed_manifest_shows_no_difference(cloud: dict[str, str], deployed: DeployedJobs) -> None:
    assert differences(deployed.read("default"), manifest(cloud).document) == []
    assert deployed.read("other") is None


def test_a_manifest_that_cloud_run_refuses_says_why(cloud: dict[str, str], deployed: DeployedJobs) -> None:
    wrong = Manifest("default", json.loads(json.dumps(manifest(cloud).document)))
    wrong.containers[0]["env"].append({"name": "CLOUD_RUN_JOB", "value": "x"})
    with pytest.raises(ManifestRefused, match="CLOUD_RUN_JOB"):
        deployed.apply(wrong.name, wrong.document, exists=True)


def test_a_job_becomes_a_lane(runner: GoogleJobRunner) -> None:
    lane = lane_of(the_job(runner))
    assert (lane.name, lane.subscription, lane.topic) == ("default", "tasks-sub", "tasks")
    assert (lane.policy.max_messages, lane.policy.max_workers) == (10, 20)
    assert (lane.task_timeout_s, lane.max_retries, lane.concurrency) == (900.0, 1, 3)
    assert (lane.vcpu, lane.memory_gib) == (2.0, 1.0)


def test_a_launch_returns_at_once_and_is_listed_with_its_overrides(runner: GoogleJobRunner) -> None:
    job = the_job(runner).full_name
    first = runner.run(job, RunRequest(1, {"DECISION_ID": "a.0"}))
    second = runner.run(job, RunRequest(3, {"DECISION_ID": "b.0", "BACKLOG": "7"}))
    assert (second.task_count, job_of(second)) == (3, job)
    listed = list(runner.executions(job))
    assert [one.name for one in listed] == [second.name, first.name]
    assert listed[0].env.items() >= {"DECISION_ID": "b.0", "BACKLOG": "7", "SUBSCRIPTION_NAME": "tasks-sub"}.items()

    def ended() -> bool:
        found = runner.execution(second.full_name)
        return found is not None and not found.live and found.succeeded_count == 3

    wait_until(ended, 60, "the execution has ended")
    workers = runner.workers(second.full_name)
    assert [(one.index, one.exit_code, one.term_signal, one.message) for one in workers] == [(at, 0, None, "") for at in range(3)]
    assert all(second.created_at <= (one.completed_at or 0.0) <= SystemClock().now() for one in workers)
    assert runner.execution(f"{job}/executions/default-00000") is None
    assert the_job(runner).execution_count == 2


def test_an_annotation_is_set_and_the_rest_of_the_job_stays(runner: GoogleJobRunner, deployed: DeployedJobs, cloud: dict[str, str]) -> None:
    before = the_job(runner)
    runner.set_annotation(before.full_name, "fanout/paused", "true")
    after = the_job(runner)
    assert lane_of(after).policy.paused
    assert after == replace(before, annotations={**before.annotations, "fanout/paused": "true"})
    runner.set_annotation(before.full_name, "fanout/paused", "false")
    assert not lane_of(the_job(runner)).policy.paused
    document = deployed.read("default")
    assert document is not None
    assert [one.path for one in differences(document, manifest(cloud).document)] == ["metadata.annotations[fanout/paused]"]


def test_what_cloud_run_refuses_is_no_unclear_launch(runner: GoogleJobRunner) -> None:
    job = the_job(runner).full_name
    with pytest.raises(LaunchRefused):
        runner.run(job, RunRequest(10_001))
    with pytest.raises(LaunchRefused, match="404"):
        runner.run(f"{job}-other", RunRequest(1))
    with pytest.raises(DependencyMissing, match="REGION"):
        list(runner.executions(f"{job}-other"))


def test_no_answer_makes_a_launch_unclear() -> None:
    with closing(GoogleJobRunner("p", "r", emulator_url="http://127.0.0.1:1")) as runner:
        with pytest.raises(LaunchUnclear):
            runner.run("projects/p/locations/r/jobs/j", RunRequest(1))
        with pytest.raises(DependencyUnavailable):
            runner.jobs()


def test_readings_have_three_states(cloud: dict[str, str], outside: Outside, local_pubsub: Service) -> None:
    project = cloud["GOOGLE_CLOUD_PROJECT"]
    with closing(GoogleBacklogReader(project, SystemClock(), emulator_host=local_pubsub.grpc, retry_s=0.3)) as reader:
        publish(project, 3)
        now = SystemClock().now()
        found = reader.read(["tasks-sub", "nobody"])
        value = found["tasks-sub"]
        assert isinstance(value, Value)
        assert (value.undelivered_count, found["nobody"]) == (3, Idle())
        assert now - 5 < value.sampled_at < SystemClock().now() + 5
        assert value.oldest_age_s is not None
        put_gauge(local_pubsub, project=project, error="UNAVAILABLE")
        unknown = reader.read(["tasks-sub"])["tasks-sub"]
        assert isinstance(unknown, Unknown)
        assert "UNAVAILABLE" in unknown.reason or "503" in unknown.reason


def test_a_reading_carries_its_sample_time_and_nothing_older_than_the_window_is_used(cloud: dict[str, str], local_pubsub: Service) -> None:
    project = cloud["GOOGLE_CLOUD_PROJECT"]
    clock = ManualClock(SystemClock().now() - 260)
    gauge = {"project": project, "subscription": "by-hand", "num_undelivered_messages": 7, "oldest_unacked_message_age": 12}
    put_gauge(local_pubsub, **gauge, sampled_at=clock.now() - 100)
    with closing(GoogleBacklogReader(project, clock, emulator_host=local_pubsub.grpc)) as reader:
        reading = reader.read(["by-hand"])["by-hand"]
        assert isinstance(reading, Value)
        assert (reading.undelivered_count, reading.oldest_age_s) == (7, 12.0)
        assert reading.sampled_at == pytest.approx(clock.now() - 100, abs=0.01)
        clock.advance(250)
        assert reader.read(["by-hand"])["by-hand"] == Idle()


def test_a_whole_tick_launches_once(cloud: dict[str, str], outside: Outside) -> None:
    publish(cloud["GOOGLE_CLOUD_PROJECT"], 35)
    (first,) = tick_lanes(outside).results
    assert (first.decision.kind, first.decision.workers, first.decision.backlog) == (Kind.LAUNCH, 4, 35)
    execution = next(iter(outside.runner.executions(the_lane(outside))))
    assert (execution.task_count, execution.env["BACKLOG"]) == (4, "35")
    assert execution.env["DECISION_ID"] == f"{first.decision.decision_id}.0"
    assert execution.env["TASK_TIMEOUT_S"] == "900"


def the_lane(outside: Outside) -> str:
    (found,) = outside.runner.jobs()
    return found.full_name
