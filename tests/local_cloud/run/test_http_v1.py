"""The v1 API as gcloud and plain HTTP clients use it: a manifest goes in unchanged and is the same job in v2."""

from __future__ import annotations

import copy
import http.client
import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from tests.local_cloud.run.conftest import Service

MANIFEST = yaml.safe_load("""
apiVersion: run.googleapis.com/v1
kind: Job
metadata:
  name: bulk
  labels: {fanout-lane: bulk}
  annotations: {fanout/max-workers: "200", run.googleapis.com/launch-stage: BETA}
spec:
  template:
    metadata:
      labels: {tier: low}
      annotations: {run.googleapis.com/execution-environment: gen2}
    spec:
      parallelism: 2
      taskCount: 3
      template:
        spec:
          maxRetries: 1
          timeoutSeconds: "900"
          serviceAccountName: worker@shop.iam.gserviceaccount.com
          containers:
          - image: example.com/worker
            command: ["true"]
            args: ["--now"]
            env: [{name: A, value: b}]
            resources: {limits: {cpu: "2", memory: 512Mi}}
            volumeMounts: [{name: scratch, mountPath: /scratch}]
          volumes: [{name: scratch, emptyDir: {medium: Memory}}]
""")


class Api:
    def __init__(self, service: Service) -> None:
        self._service = service

    def __call__(self, method: str, path: str, body: Any = None, status: int = 200, **query: str) -> Any:
        url = f"{self._service.url}/apis/run.googleapis.com/v1/namespaces/shop/{path}"
        answer = self._service.http.request(method, url, json=body, params={"alt": "json", **query})
        assert answer.status_code == status, answer.text
        return answer.json()


@pytest.fixture
def api(service: Service) -> Api:
    return Api(service)


def test_a_manifest_is_taken_unchanged_and_given_back(api: Api) -> None:
    job = api("POST", "jobs", MANIFEST)
    assert job["spec"] == MANIFEST["spec"]
    assert job["metadata"]["annotations"] == MANIFEST["metadata"]["annotations"]
    assert job["metadata"]["labels"] == {"fanout-lane": "bulk", "cloud.googleapis.com/location": "us-central1"}
    assert job["metadata"]["generation"] == job["status"]["observedGeneration"] == 1
    assert [(condition["type"], condition["status"]) for condition in job["status"]["conditions"]] == [("Ready", "True")]
    assert api("GET", "jobs/bulk") == job
    assert api("GET", "jobs")["items"] == [job]


def test_the_same_job_in_v2(api: Api, service: Service) -> None:
    api("POST", "jobs", MANIFEST)
    job = service.jobs.get_job(name="projects/shop/locations/us-central1/jobs/bulk")
    assert dict(job.labels) == {"fanout-lane": "bulk"}
    assert dict(job.annotations) == {"fanout/max-workers": "200"}
    task = job.template.template
    assert (job.template.parallelism, job.template.task_count, task.max_retries, task.timeout.seconds) == (2, 3, 1, 900)
    container = task.containers[0]
    assert (list(container.command), list(container.args), dict(container.resources.limits)) == (
        ["true"],
        ["--now"],
        {"cpu": "2", "memory": "512Mi"},
    )
    assert task.service_account == "worker@shop.iam.gserviceaccount.com"
    service.jobs.update_job(job=job).result()
    assert "run.googleapis.com/launch-stage" in api("GET", "jobs/bulk")["metadata"]["annotations"], "v2 does not see it, nor drop it"


def test_put_replaces_and_a_stale_version_is_refused(api: Api) -> None:
    api("PUT", "jobs/bulk", MANIFEST, status=404)
    job = api("POST", "jobs", MANIFEST)
    api("POST", "jobs", MANIFEST, status=409)
    changed = copy.deepcopy(MANIFEST)
    changed["spec"]["template"]["spec"]["taskCount"] = 7
    assert api("PUT", "jobs/bulk", changed)["metadata"]["generation"] == 2
    assert api("GET", "jobs/bulk")["spec"]["template"]["spec"]["taskCount"] == 7
    assert api("PUT", "jobs/bulk", job, status=409)["error"]["status"] == "ABORTED"
    assert "metadata.name" in api("PUT", "jobs/other", changed, status=400)["error"]["message"]


@pytest.mark.parametrize("location", ["europe-west1", None])
def test_the_region_comes_from_the_label_or_the_server(api: Api, service: Service, location: str | None) -> None:
    manifest = copy.deepcopy(MANIFEST)
    if location:
        manifest["metadata"]["labels"]["cloud.googleapis.com/location"] = location
    api("POST", "jobs", manifest)
    parent = f"projects/shop/locations/{location or 'us-central1'}"
    assert [job.name for job in service.jobs.list_jobs(parent=parent)] == [f"{parent}/jobs/bulk"]
    assert api("GET", "jobs/bulk")["metadata"]["labels"]["cloud.googleapis.com/location"] == (location or "us-central1")


def test_run_with_overrides_and_watch_the_execution(api: Api, service: Service) -> None:
    api("POST", "jobs", MANIFEST)
    change = {"args": ["x"], "clearArgs": False, "env": [{"name": "K", "value": "V"}]}
    overrides = {"containerOverrides": [change], "taskCount": 5, "timeoutSeconds": 120}
    begun = api("POST", "jobs/bulk:run", {"overrides": overrides})
    name = begun["metadata"]["name"]
    assert begun["metadata"]["labels"]["run.googleapis.com/job"] == "bulk"
    assert begun["metadata"]["labels"]["tier"] == "low"
    service.finish(f"projects/shop/locations/us-central1/jobs/bulk/executions/{name}")
    over = api("GET", f"executions/{name}")
    assert over["spec"]["taskCount"] == 5
    assert over["spec"]["template"]["spec"]["timeoutSeconds"] == "120"
    assert over["spec"]["template"]["spec"]["containers"][0]["args"] == ["x"]
    assert over["status"]["succeededCount"] == 5
    assert {condition["type"]: condition["status"] for condition in over["status"]["conditions"]} == {
        "Completed": "True",
        "ResourcesAvailable": "True",
        "Started": "True",
        "ContainerReady": "True",
    }
    assert api("GET", "jobs/bulk")["status"]["latestCreatedExecution"]["name"] == name
    assert "parallelism (2)" in api("POST", "jobs/bulk:run", {"overrides": {"taskCount": 1}}, status=400)["error"]["message"]


def test_executions_and_tasks_are_selected_by_label(api: Api, service: Service) -> None:
    for name in ("bulk", "urgent"):
        api("POST", "jobs", {**MANIFEST, "metadata": {"name": name}})
    first, second, other = (api("POST", f"jobs/{job}:run", {})["metadata"]["name"] for job in ("bulk", "bulk", "urgent"))

    def names(path: str, **query: Any) -> list[str]:
        return [item["metadata"]["name"] for item in api("GET", path, **query)["items"]]

    assert names("executions") == [other, second, first]
    assert names("executions", labelSelector="run.googleapis.com/job = bulk", limit="100") == [second, first]
    assert names("executions", labelSelector="run.googleapis.com/job!=bulk") == [other]
    assert names("tasks", labelSelector=f"run.googleapis.com/execution = {first}") == [f"{first}-task{index}" for index in range(3)]
    following: dict[str, Any] = {"continue": api("GET", "executions", limit="2")["metadata"]["continue"]}
    assert names("executions", limit="2", **following) == [first]
    assert "labelSelector" in api("GET", "executions", status=400, labelSelector="a in (b)")["error"]["message"]
    service.finish(f"projects/shop/locations/us-central1/jobs/bulk/executions/{first}")
    task = api("GET", f"tasks/{first}-task1")
    assert (task["status"]["index"], task["metadata"]["labels"]["run.googleapis.com/runningState"]) == (1, "Succeeded")
    assert "status" in task["status"]["lastAttemptResult"], "gcloud crashes without it"
    assert task["status"]["lastAttemptResult"]["exitCode"] == 0
    api("GET", f"tasks/{first}-task9", status=404)


def test_cancel_and_delete(api: Api, service: Service) -> None:
    service.create_waiting("slow", task_count=2)
    name = api("POST", "jobs/slow:run")["metadata"]["name"]
    service.wait_for_files("0-0.up", "1-0.up")
    assert api("POST", f"executions/{name}:cancel", {})["status"]["conditions"][0]["reason"] == "Cancelling"
    service.finish(f"projects/shop/locations/us-central1/jobs/slow/executions/{name}")
    over = api("GET", f"executions/{name}")
    assert (over["status"]["cancelledCount"], over["status"]["conditions"][0]["status"]) == (2, "False")
    assert api("DELETE", f"executions/{name}")["status"] == "Success"
    api("GET", f"executions/{name}", status=404)
    api("DELETE", "jobs/slow")
    api("GET", "jobs/slow", status=404)


def test_all_problems_of_a_manifest_are_told_at_once(api: Api) -> None:
    manifest = copy.deepcopy(MANIFEST)
    task = manifest["spec"]["template"]["spec"]["template"]["spec"]
    manifest["metadata"]["label"] = {}
    manifest["spec"]["template"]["metadata"]["labels"] = {"Tier": "low"}
    manifest["spec"]["template"]["spec"]["taskCont"] = 4
    task["maxRetries"] = 11
    task["containers"][0].update(command=[], args=[], env=[{"name": "CLOUD_RUN_JOB", "value": "x"}])
    error = api("POST", "jobs", manifest, status=400)["error"]
    assert [violation["field"] for violation in error["details"][0]["fieldViolations"]] == [
        "metadata.label",
        "spec.template.spec.taskCont",
        "spec.template.metadata.labels",
        "spec.template.spec.template.spec.maxRetries",
        "spec.template.spec.template.spec.containers[0].command",
        "spec.template.spec.template.spec.containers[0].env[0].name",
    ]
    assert "did you mean 'taskCount'?" in error["message"]
    assert "the local cloud runs the manifest's command; this container has none" in error["message"]
    assert "CLOUD_RUN_ are reserved" in error["message"]
    api("GET", "jobs/bulk", status=404)


BODIES = [b"{", b"[]", b'"x"', b'{"metadata": []}', b'{"spec": {"template": 3}}', b"\xff", b"[" * 100_000, b'{"spec": NaN}']


@pytest.mark.parametrize("body", BODIES, ids=[body[:20].decode("latin-1") for body in BODIES])
def test_bodies_that_are_no_manifest(service: Service, body: bytes) -> None:
    answer = service.http.post(f"{service.url}/apis/run.googleapis.com/v1/namespaces/shop/jobs", data=body)
    assert (answer.status_code, answer.json()["error"]["status"]) == (400, "INVALID_ARGUMENT")


@pytest.mark.parametrize(
    ("host", "region"),
    [("run.local", "us-central1"), ("europe-west1-run.local", "europe-west1"), ("europe-west1-run.local:80", "europe-west1")],
)
def test_gcloud_takes_the_server_for_its_proxy_and_puts_the_region_before_the_host(service: Service, host: str, region: str) -> None:
    status, job = through_proxy(service, "POST", host, "/apis/run.googleapis.com/v1/namespaces/shop/jobs?alt=json", MANIFEST)
    assert (status, job["metadata"]["labels"]["cloud.googleapis.com/location"]) == (200, region)


@pytest.mark.parametrize("host", ["www.example.com", "run.local.example.com", "other.local", "127.0.0.1:80"])
def test_it_is_a_proxy_to_nowhere(service: Service, host: str) -> None:
    status, _ = through_proxy(service, "GET", host, "/apis/run.googleapis.com/v1/namespaces/shop/jobs")
    assert status in (403, 421)


def through_proxy(service: Service, method: str, host: str, path: str, body: Any = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(service.url.removeprefix("http://"))
    connection.request(method, f"http://{host}{path}", None if body is None else json.dumps(body))
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer.status, json.loads(text) if answer.status == 200 else text


def test_half_a_character_is_refused_before_it_can_break_every_list(api: Api) -> None:
    manifest = copy.deepcopy(MANIFEST)
    manifest["metadata"]["annotations"]["fanout/topic"] = "\ud800"
    assert "surrogate" in api("POST", "jobs", manifest, status=400)["error"]["message"]
    assert api("GET", "jobs")["items"] == []


@pytest.mark.parametrize("location", ["x/../../../there", "x" * 300, "-", "Nowhere 1"])
def test_a_place_that_cannot_be_is_refused(api: Api, location: str) -> None:
    manifest = copy.deepcopy(MANIFEST)
    manifest["metadata"]["labels"]["cloud.googleapis.com/location"] = location
    assert "must be the name of a region" in api("POST", "jobs", manifest, status=400)["error"]["message"]


def test_a_request_that_names_a_region_sees_no_other(api: Api, service: Service) -> None:
    def of_region(method: str, path: str, region: str = "europe-west1", body: Any = None) -> tuple[int, Any]:
        return through_proxy(service, method, f"{region}-run.local", f"/apis/run.googleapis.com/v1/namespaces/shop/{path}", body)

    api("POST", "jobs", MANIFEST)
    name = api("POST", "jobs/bulk:run", {})["metadata"]["name"]
    for path in ("jobs", "executions", "tasks"):
        assert of_region("GET", path)[1]["items"] == []
        assert len(of_region("GET", path, "us-central1")[1]["items"]) == (3 if path == "tasks" else 1)
    requests = [("GET", "jobs/bulk"), ("POST", "jobs/bulk:run"), ("DELETE", "jobs/bulk"), ("GET", f"executions/{name}")]
    requests += [("POST", f"executions/{name}:cancel"), ("DELETE", f"executions/{name}"), ("GET", f"tasks/{name}-task0")]
    for method, path in requests:
        assert of_region(method, path)[0] == 404, (method, path)
    assert of_region("PUT", "jobs/bulk", body=MANIFEST)[0] == 404
    assert of_region("POST", "jobs", body=MANIFEST)[0] == 200
    assert len(api("GET", "jobs")["items"]) == 2
    assert api("GET", "jobs/bulk")["metadata"]["generation"] == 1
    assert api("GET", f"tasks/{name}-task2")["status"]["index"] == 2
    for index in ("3", "02", "9" * 5000):
        api("GET", f"tasks/{name}-task{index}", status=404)


def test_the_token_of_another_list_is_refused(api: Api) -> None:
    manifest = copy.deepcopy(MANIFEST)
    for name in ("a", "b"):
        manifest["metadata"]["name"] = name
        api("POST", "jobs", manifest)
        api("POST", "jobs/a:run", {})
    token = api("GET", "executions", limit="1")["metadata"]["continue"]
    assert "is not one that this server gave out" in api("GET", "jobs", status=400, **{"continue": token})["error"]["message"]
