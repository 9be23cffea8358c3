"""Every `gcloud run jobs` command that the local cloud serves, run by the real gcloud; and the environment that makes it possible."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import urllib.request
import uuid
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from local_cloud.addresses import Addresses
from local_cloud.gcloud import gcloud_environment
from tests.real_gcloud import Gcloud, find_gcloud, run_group
from tests.support import Service, clean_environment, wait_until

ROOT = Path(__file__).resolve().parents[2]
NOWHERE = "http://127.0.0.1:9"
ADDRESSES = Addresses("127.0.0.1:1", "http://127.0.0.1:2", "http://127.0.0.1:3", "http://127.0.0.1:4")
EXECUTIONS = ("run", "jobs", "executions")
MANIFEST = """
apiVersion: run.googleapis.com/v1
kind: Job
metadata:
  name: lane
  labels: {fanout-lane: lane}
spec:
  template:
    spec:
      taskCount: 3
      template:
        spec:
          maxRetries: 0
          timeoutSeconds: 600
          containers:
            - image: example.com/worker
              command: [sh, -c, 'echo "$0 $A"; test "$CLOUD_RUN_TASK_INDEX" != "$FAILS"']
              args: [zero]
              env: [{name: A, value: b}]
              resources: {limits: {cpu: "1", memory: 512Mi}}
"""


@pytest.fixture
def gcloud(local_run: Service, tmp_path: Path, project: str) -> Gcloud:
    find_gcloud()
    return Gcloud(Addresses("127.0.0.1:9", NOWHERE, NOWHERE, local_run.http), tmp_path / "gcloud", project)


def names(listed: list[dict[str, Any]]) -> list[str]:
    return [one["metadata"]["name"] for one in listed]


def conditions(execution: dict[str, Any]) -> dict[str, str]:
    return {one["type"]: one["status"] for one in execution["status"]["conditions"]}


@pytest.mark.slow
@pytest.mark.real
def test_jobs_are_replaced_created_updated_listed_described_and_deleted(gcloud: Gcloud) -> None:
    made = gcloud.json("run", "jobs", "replace", "-", stdin=MANIFEST)
    assert (made["metadata"]["name"], made["metadata"]["generation"], made["spec"]["template"]["spec"]["taskCount"]) == ("lane", 1, 3)
    changed = gcloud.json("run", "jobs", "replace", "-", stdin=MANIFEST.replace("taskCount: 3", "taskCount: 5"))
    assert (changed["metadata"]["generation"], changed["spec"]["template"]["spec"]["taskCount"]) == (2, 5)
    options = ["--image=example.com/x", "--command=true", "--args=a,b", "--tasks=4", "--parallelism=2", "--max-retries=0"]
    created = gcloud.json("run", "jobs", "create", "made", *options)["spec"]["template"]["spec"]
    container = created["template"]["spec"]["containers"][0]
    assert (created["taskCount"], created["parallelism"], container["args"]) == (4, 2, ["a", "b"])
    update = gcloud("run", "jobs", "update", "made", "--tasks=3", "--set-env-vars=A=1", "--task-timeout=20m")
    assert update.code == 0
    assert "has successfully been updated" in update.messages
    described = gcloud.json("run", "jobs", "describe", "made")
    task = described["spec"]["template"]["spec"]["template"]["spec"]
    assert (described["metadata"]["generation"], task["timeoutSeconds"], task["maxRetries"]) == (2, "1200", 0)
    assert task["containers"][0]["env"] == [{"name": "A", "value": "1"}]
    assert names(gcloud.json("run", "jobs", "list")) == ["lane", "made"]
    assert gcloud("run", "jobs", "delete", "made").code == 0
    gone = gcloud("run", "jobs", "describe", "made")
    assert (gone.code, "Cannot find job [made]" in gone.messages) == (1, True)
    assert names(gcloud.json("run", "jobs", "list")) == ["lane"]


@pytest.mark.slow
@pytest.mark.real
def test_an_execution_with_overrides_is_awaited_and_read(gcloud: Gcloud, local_run: Service) -> None:
    gcloud.json("run", "jobs", "replace", "-", stdin=MANIFEST)
    overrides = ["--tasks=5", "--args=one", "--update-env-vars=A=c,FAILS=9", "--task-timeout=20m"]
    over = gcloud.json("run", "jobs", "execute", "lane", "--wait", *overrides)
    name = over["metadata"]["name"]
    assert (over["status"]["succeededCount"], over["spec"]["taskCount"]) == (5, 5)
    assert conditions(over) == dict.fromkeys(("Completed", "ResourcesAvailable", "Started", "ContainerReady"), "True")
    spec = over["spec"]["template"]["spec"]
    assert (spec["timeoutSeconds"], spec["containers"][0]["args"]) == ("1200", ["one"])
    assert spec["containers"][0]["env"] == [{"name": "A", "value": "c"}, {"name": "FAILS", "value": "9"}]
    assert names(gcloud.json(*EXECUTIONS, "list", "--job=lane")) == [name]
    assert names(gcloud.json(*EXECUTIONS, "list")) == [name]
    assert gcloud.json(*EXECUTIONS, "describe", name)["status"] == over["status"]
    tasks = gcloud.json(*EXECUTIONS, "tasks", "list", f"--execution={name}")
    assert sorted(names(tasks)) == [f"{name}-task{index}" for index in range(5)]
    task = gcloud.json(*EXECUTIONS, "tasks", "describe", f"{name}-task3")
    assert (task["status"]["index"], task["status"]["lastAttemptResult"]["exitCode"]) == (3, 0)
    assert task["metadata"]["labels"]["run.googleapis.com/runningState"] == "Succeeded"
    with urllib.request.urlopen(task["status"]["logUri"], timeout=60) as log:
        assert log.read() == b"one c\n"
    job = gcloud.json("run", "jobs", "describe", "lane")["status"]
    assert (job["executionCount"], job["latestCreatedExecution"]["name"]) == (1, name)
    assert gcloud(*EXECUTIONS, "delete", name).code == 0
    assert gcloud(*EXECUTIONS, "describe", name).code == 1


@pytest.mark.slow
@pytest.mark.real
def test_a_failed_task_fails_the_wait_and_a_cancel_ends_the_rest(gcloud: Gcloud) -> None:
    gcloud.json("run", "jobs", "replace", "-", stdin=MANIFEST)
    failed = gcloud("run", "jobs", "execute", "lane", "--wait", "--update-env-vars=FAILS=1")
    assert (failed.code, "The execution failed" in failed.messages) == (1, True)
    (execution,) = gcloud.json(*EXECUTIONS, "list")
    assert (execution["status"]["failedCount"], execution["status"]["succeededCount"]) == (1, 2)
    assert execution["status"]["conditions"][0]["reason"] == "NonZeroExitCode"
    task = gcloud.json(*EXECUTIONS, "tasks", "describe", f"{names([execution])[0]}-task1")
    assert task["status"]["lastAttemptResult"]["exitCode"] == 1
    slow = MANIFEST.replace('echo "$0 $A"', "exec sleep 600")
    gcloud.json("run", "jobs", "replace", "-", stdin=slow)
    begun = gcloud.json("run", "jobs", "execute", "lane", "--async")
    name = begun["metadata"]["name"]
    waited = gcloud("run", "jobs", "execute", "lane")  # returns once it has started
    assert (waited.code, "has successfully started running" in waited.messages) == (0, True), waited.messages
    assert gcloud(*EXECUTIONS, "cancel", name).code == 0
    cancelled = gcloud.json(*EXECUTIONS, "describe", name)
    assert cancelled["status"]["cancelledCount"] == 3
    assert (cancelled["status"]["conditions"][0]["reason"], conditions(cancelled)["Completed"]) == ("Cancelled", "False")
    assert gcloud("run", "jobs", "delete", "lane").code == 0


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.slow
def test_what_is_wrong_is_told_with_path_and_rule(gcloud: Gcloud) -> None:
    bad = MANIFEST.replace("maxRetries: 0", "maxRetries: 11").replace("name: A", "name: CLOUD_RUN_A").replace("512Mi", "64Gi")
    refused = gcloud("run", "jobs", "replace", "-", stdin=bad)
    assert (refused.code, "INVALID_ARGUMENT" in refused.messages) == (1, True)
    task = "spec.template.spec.template.spec"
    for field in (f"{task}.maxRetries", f"{task}.containers[0].env[0].name", f"{task}.containers[0].resources.limits.memory"):
        assert f"field: {field}" in refused.messages
    gcloud.json("run", "jobs", "replace", "-", stdin=MANIFEST)
    assert "must be 1 to 10,000" in gcloud("run", "jobs", "execute", "lane", "--tasks=10001").messages
    assert "Cannot find job [none]" in gcloud("run", "jobs", "describe", "none").messages
    assert "could not be found" in gcloud("run", "jobs", "delete", "none").messages


@pytest.mark.slow
@pytest.mark.real
def test_another_region_is_another_place(gcloud: Gcloud) -> None:
    gcloud.json("run", "jobs", "replace", "-", stdin=MANIFEST)
    elsewhere = "--region=europe-west1"
    assert gcloud.json("run", "jobs", "list", elsewhere) == []
    assert gcloud("run", "jobs", "delete", "lane", elsewhere).code == 1
    moved = gcloud.json("run", "jobs", "replace", "-", elsewhere, stdin=MANIFEST.replace("taskCount: 3", "taskCount: 1"))
    assert moved["metadata"]["labels"]["cloud.googleapis.com/location"] == "europe-west1"
    assert gcloud.json("run", "jobs", "describe", "lane")["spec"]["template"]["spec"]["taskCount"] == 3
    assert gcloud("run", "jobs", "execute", "lane", "--wait", elsewhere).code == 0
    assert gcloud.json(*EXECUTIONS, "list") == []
    assert len(gcloud.json(*EXECUTIONS, "list", elsewhere)) == 1


def test_after_the_limit_nothing_is_left_of_a_command() -> None:
    mark = f"FANOUT_TEST={uuid.uuid4()}"
    name, _, value = mark.partition("=")
    with pytest.raises(subprocess.TimeoutExpired):
        run_group(["sh", "-c", "sleep 600 & sleep 600"], {**clean_environment(), name: value}, limit_s=0.3)
    wait_until(lambda: not marked(mark), description="the end of what the command has started")


def marked(mark: str) -> list[str]:
    """The processes with this in their environment; zombies have none."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark.encode() in (process / "environ").read_bytes():
                found.append(process.name)
    return found


@pytest.mark.real
def test_our_own_lane_is_applied_by_gcloud(gcloud: Gcloud) -> None:
    command = [sys.executable, "-m", "fanout", "render", "default", "jobs.yaml"]
    options = ["--project", gcloud.project, "--bucket", "b", "--image", "us-central1-docker.pkg.dev/p/fanout/fanout"]
    rendered = subprocess.run([*command, *options], cwd=ROOT, env=clean_environment(), capture_output=True, text=True, check=True)
    applied = gcloud.json("run", "jobs", "replace", "-", stdin=rendered.stdout)
    assert applied["metadata"]["annotations"]["fanout/drain-within"] == "10m"
    assert applied["metadata"]["labels"]["fanout-lane"] == "default"
    container = applied["spec"]["template"]["spec"]["template"]["spec"]["containers"][0]
    assert container["command"] == ["python", "-m", "batch"]
    assert {"name": "GOOGLE_CLOUD_PROJECT", "value": gcloud.project} in container["env"]


@pytest.mark.slow
@pytest.mark.real
def test_storage_commands_go_to_the_local_storage(gcloud: Gcloud, local_storage: Service, tmp_path: Path, project: str) -> None:
    storage = Gcloud(Addresses("127.0.0.1:9", NOWHERE, local_storage.http, NOWHERE), tmp_path / "gcloud", project)
    there, back = tmp_path / "there", tmp_path / "back"
    there.write_bytes(b"\r\n--x\n" * 100)
    bucket = f"gs://bucket-{project}"
    assert storage("storage", "buckets", "create", bucket).code == 0
    assert storage("storage", "cp", str(there), f"{bucket}/a/there").code == 0
    assert storage("storage", "ls", f"{bucket}/a/").output.split() == [f"{bucket}/a/there"]
    assert storage("storage", "cp", f"{bucket}/a/there", str(back)).code == 0
    assert back.read_bytes() == there.read_bytes()
    assert storage("storage", "rm", f"{bucket}/a/there").code == 0
    assert storage("storage", "ls", f"{bucket}/a/").code == 1


def test_each_group_gets_its_own_way(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "gcloud"
    run = gcloud_environment(ADDRESSES, folder, ["run", "jobs", "list"])
    assert (run["CLOUDSDK_PROXY_ADDRESS"], run["CLOUDSDK_PROXY_PORT"]) == ("127.0.0.1", "4")
    assert run["CLOUDSDK_API_ENDPOINT_OVERRIDES_RUN"] == "http://run.local/"
    for group in ("storage", "pubsub"):
        assert "CLOUDSDK_PROXY_PORT" not in gcloud_environment(ADDRESSES, folder, ["--quiet", "beta", group])
    assert run["CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE"] == "http://127.0.0.1:3/storage/v1/"
    assert run["CLOUDSDK_API_ENDPOINT_OVERRIDES_PUBSUB"] == "http://127.0.0.1:2/"
    assert run["CLOUDSDK_CONFIG"] == str(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert "CLOUDSDK_PROXY_PORT" in gcloud_environment(ADDRESSES, folder, ["config", "list"]), "whatever else it asks is refused"


def test_the_value_of_an_option_is_no_group(tmp_path: Path) -> None:
    storage = gcloud_environment(ADDRESSES, tmp_path, ["--project", "run", "--format", "json", "storage", "ls"])
    assert "CLOUDSDK_PROXY_PORT" not in storage
    assert "CLOUDSDK_PROXY_PORT" in gcloud_environment(ADDRESSES, tmp_path, ["--project", "pubsub", "run", "jobs", "list"])


NOT_SERVED = [["projects", "list"], ["beta", "scheduler", "jobs", "list"], ["--project", "storage", "projects", "list"]]


@pytest.mark.parametrize("arguments", NOT_SERVED)
def test_what_is_not_served_is_refused_before_it_can_reach_a_real_project(tmp_path: Path, arguments: list[str]) -> None:
    with pytest.raises(ValueError, match=r"does not serve `gcloud (projects|scheduler)`: it serves run, storage, pubsub"):
        gcloud_environment(ADDRESSES, tmp_path, arguments)


TWO = """
apiVersion: run.googleapis.com/v1
kind: Job
metadata: {name: two}
spec:
  template:
    spec:
      taskCount: 1
      template:
        spec:
          maxRetries: 0
          timeoutSeconds: 600
          containers:
            - {name: worker, image: example.com/worker, command: [sh, -c, 'test "$A" = given']}
            - name: proxy
              image: example.com/proxy
              volumeMounts: [{name: scratch, mountPath: /scratch}]
          volumes: [{name: scratch, emptyDir: {medium: Memory, sizeLimit: 64Mi}}]
"""


@pytest.mark.slow
@pytest.mark.real
def test_a_job_of_two_containers_is_run_with_overrides_for_one_and_survives_an_update(gcloud: Gcloud) -> None:
    made = gcloud.json("run", "jobs", "replace", "-", stdin=TWO)
    task = made["spec"]["template"]["spec"]["template"]["spec"]
    assert gcloud("run", "jobs", "update", "two", "--container=worker", "--update-env-vars=B=c").code == 0
    changed = gcloud.json("run", "jobs", "describe", "two")["spec"]["template"]["spec"]["template"]["spec"]
    assert changed["containers"][0].pop("env") == [{"name": "B", "value": "c"}]
    assert changed == task
    nameless = gcloud("run", "jobs", "execute", "two", "--update-env-vars=A=given")
    assert (nameless.code, "a container name must be specified" in nameless.messages) == (1, True), nameless.messages
    # No option of the whole command may follow --container.
    ran = gcloud("run", "jobs", "execute", "two", "--wait", "--container=worker", "--update-env-vars=A=given")
    assert ran.code == 0, ran.messages
    (over,) = gcloud.json(*EXECUTIONS, "list", "--job=two")
    assert (over["status"]["succeededCount"], len(over["spec"]["template"]["spec"]["containers"])) == (1, 2)


@pytest.mark.slow
@pytest.mark.real
def test_a_delayed_job_waits_and_one_without_its_secret_is_refused(gcloud: Gcloud, local_run: Service) -> None:
    delayed = yaml.safe_load(MANIFEST)
    delayed["spec"]["delayExecution"] = "true"  # gcloud takes it since 2026
    jobs = f"{local_run.http}/apis/run.googleapis.com/v1/namespaces/{gcloud.project}/jobs"
    requests.post(jobs, json=delayed, timeout=60).raise_for_status()
    assert gcloud("run", "jobs", "update", "lane", "--tasks=2").code == 0
    assert requests.get(f"{jobs}/lane", timeout=60).json()["spec"]["delayExecution"] == "true"
    name = gcloud.json("run", "jobs", "execute", "lane", "--async")["metadata"]["name"]
    waiting = gcloud.json(*EXECUTIONS, "describe", name)
    assert (conditions(waiting)["Started"], waiting["status"].get("startTime")) == ("Unknown", None)
    assert gcloud(*EXECUTIONS, "cancel", name).code == 0
    missing = gcloud("run", "jobs", "create", "other", "--image=example.com/x", "--command=true", "--set-secrets=KEY=key:latest")
    assert (missing.code, "secrets/key/versions/latest was not found" in missing.messages) == (1, True), missing.messages
    folder = local_run.state_dir / "secrets"
    folder.mkdir()
    (folder / "key").write_text("x")
    made = gcloud.json("run", "jobs", "create", "other", "--image=example.com/x", "--command=true", "--set-secrets=KEY=key:latest")
    (variable,) = made["spec"]["template"]["spec"]["template"]["spec"]["containers"][0]["env"]
    assert variable == {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "key", "key": "latest"}}}
