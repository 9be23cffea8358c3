"""Faults as Google's Cloud Run client meets them at the running service."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests
from google.api_core.exceptions import Forbidden, ServiceUnavailable
from google.auth.credentials import AnonymousCredentials
from google.cloud import run_v2

from local_cloud.run.api.faults import METHODS, method_of
from tests.local_cloud.fault_orders import REFUSALS, Orders, slow_answer
from tests.support import Service, start_service, wait_until

V1 = "/apis/run.googleapis.com/v1/namespaces/shop"
V2 = "/v2/projects/shop/locations/us-central1"


@pytest.mark.parametrize(
    ("http_method", "path", "method"),
    [
        ("GET", f"{V2}/jobs", "jobs.list"),
        ("POST", f"{V2}/jobs", "jobs.create"),
        ("GET", f"{V2}/jobs/lane", "jobs.get"),
        ("PATCH", f"{V2}/jobs/lane", "jobs.patch"),
        ("DELETE", f"{V2}/jobs/lane", "jobs.delete"),
        ("POST", f"{V2}/jobs/lane:run", "jobs.run"),
        ("GET", f"{V2}/jobs/lane/executions", "executions.list"),
        ("GET", f"{V2}/jobs/lane/executions/lane-1", "executions.get"),
        ("POST", f"{V2}/jobs/lane/executions/lane-1:cancel", "executions.cancel"),
        ("DELETE", f"{V2}/jobs/lane/executions/lane-1", "executions.delete"),
        ("GET", f"{V2}/jobs/lane/executions/lane-1/tasks", "tasks.list"),
        ("GET", f"{V2}/jobs/lane/executions/lane-1/tasks/t", "tasks.get"),
        ("GET", f"{V2}/operations", "operations.list"),
        ("GET", f"{V2}/operations/o", "operations.get"),
        ("POST", f"{V2}/operations/o:wait", "operations.wait"),
        ("PUT", f"{V1}/jobs/lane", "jobs.replaceJob"),
        ("POST", f"{V1}/jobs/lane:run", "jobs.run"),
        ("GET", f"{V1}/jobs", "jobs.list"),
        ("GET", f"{V1}/executions", "executions.list"),
        ("POST", f"{V1}/executions/lane-1:cancel", "executions.cancel"),
        ("GET", f"{V1}/tasks/t", "tasks.get"),
        ("GET", f"{V2}/jobs/jobs", "jobs.get"),
    ],
)
def test_a_path_is_a_method_of_the_api(http_method: str, path: str, method: str) -> None:
    assert method in METHODS
    assert method_of(http_method, path) == ("shop", method)


@pytest.mark.parametrize("path", ["/", "/clock", "/faults", "/workers", V1, V2, f"{V2}/services", f"{V2}/jobs/lane:explode"])
def test_other_paths_are_none(path: str) -> None:
    assert method_of("POST", path) == ("", "")


class Site:
    """A job in a project of its own."""

    def __init__(self, service: Service, project: str) -> None:
        self.service = service
        self.orders = Orders(service.http, project)
        kwargs: dict[str, Any] = {
            "transport": "rest",
            "credentials": AnonymousCredentials(),
            "client_options": {"api_endpoint": service.http},
        }
        self.jobs, self.executions = run_v2.JobsClient(**kwargs), run_v2.ExecutionsClient(**kwargs)
        parent = f"projects/{project}/locations/us-central1"
        self.job = f"{parent}/jobs/lane"
        container = {"image": "example.com/worker", "command": ["true"]}
        job = run_v2.Job(template={"template": {"containers": [container], "max_retries": 0}})
        self.jobs.create_job(parent=parent, job=job, job_id="lane").result()

    def close(self) -> None:
        self.orders.clear()
        self.jobs.transport.close()
        self.executions.transport.close()

    def run(self) -> Any:
        return self.jobs.run_job(name=self.job, retry=None, timeout=30)

    @property
    def execution_count(self) -> int:
        return len(list(self.executions.list_executions(parent=self.job, retry=None)))


@pytest.fixture(scope="module")
def own_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose clock these tests may move: others compare the shared one's times with their own."""
    service = start_service("run", tmp_path_factory.mktemp("run"))
    yield service
    service.stop()


@pytest.fixture
def site(own_run: Service, project: str) -> Iterator[Site]:
    made = Site(own_run, project)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("kind", "error"),
    REFUSALS,
)
def test_a_refused_launch_launches_nothing(site: Site, kind: str, error: type[Exception]) -> None:
    site.orders.add("jobs.run", kind)
    with pytest.raises(error, match=f"fault {kind}"):
        site.run()
    assert site.execution_count == 0
    site.run()
    assert site.execution_count == 1
    assert site.orders.all_met(1)


def test_a_launch_whose_response_is_lost_has_launched(site: Site) -> None:
    site.orders.add("jobs.run", "lost_response")
    with pytest.raises(requests.exceptions.ConnectionError):
        site.run()
    assert site.execution_count == 1


def test_a_launch_takes_effect_after_its_error(site: Site) -> None:
    site.orders.add("jobs.run", {"kind": "effect_after", "seconds": 60})
    with pytest.raises(ServiceUnavailable):
        site.run()
    assert site.execution_count == 0
    site.service.advance(60)
    wait_until(lambda: site.execution_count == 1, description="the late launch")


def test_v1_meets_the_same_faults(site: Site, project: str) -> None:
    site.orders.add("jobs.run", "unavailable", "lost_response")
    url = f"{site.service.http}/apis/run.googleapis.com/v1/namespaces/{project}/jobs/lane:run"
    answer = requests.post(url, json={}, timeout=60)
    assert (answer.status_code, answer.json()["error"]["status"]) == (503, "UNAVAILABLE")
    with pytest.raises(requests.exceptions.ConnectionError):
        requests.post(url, json={}, timeout=60)
    assert site.execution_count == 1


def test_reading_executions_may_fail_or_be_slow(site: Site) -> None:
    name = site.run().metadata.name
    site.orders.add("executions.list", "unavailable")
    with pytest.raises(ServiceUnavailable):
        list(site.executions.list_executions(parent=site.job, retry=None))
    found = slow_answer(
        site.service, site.orders, "executions.get", lambda: site.executions.get_execution(name=name, retry=None, timeout=30)
    )
    assert found.name == name


def test_faults_of_one_project_never_touch_another(site: Site, own_run: Service, project: str) -> None:
    other = Site(own_run, f"{project}-b")
    try:
        site.orders.rate("jobs.run", 1.0, 1, "unavailable")
        other.run()
        assert other.execution_count == 1
        with pytest.raises(ServiceUnavailable):
            site.run()
    finally:
        other.close()


def test_what_cannot_be_met_is_refused(site: Site) -> None:
    with pytest.raises(AssertionError, match=r"did you mean 'jobs\.run'"):
        site.orders.add("job.run", "unavailable")
    with pytest.raises(AssertionError, match=r"jobs\.run cannot meet precondition_failed"):
        site.orders.add("jobs.run", "precondition_failed")


@pytest.mark.parametrize(
    ("reason", "condition", "message"),
    [
        ("image", "ContainerReady", "Image 'example.com/worker' not found."),
        ("quota", "ResourcesAvailable", "Quota exceeded for total allowable CPU per project per region."),
        ("addresses", "ResourcesAvailable", "Instances cannot be started: insufficient free IP addresses in the subnetwork."),
    ],
)
def test_an_execution_that_cannot_start_says_why_until_it_is_cancelled(site: Site, reason: str, condition: str, message: str) -> None:
    site.orders.add("jobs.run", {"kind": "cannot_start", "reason": reason})
    v1 = f"{site.service.http}/apis/run.googleapis.com/v1/namespaces/{site.job.split('/')[1]}"
    if reason == "image":
        made = requests.post(f"{v1}/jobs/lane:run", timeout=60).json()
        name = f"{site.job}/executions/{made['metadata']['name']}"
    else:
        name = site.jobs.run_job(name=site.job).metadata.name
    execution = site.executions.get_execution(name=name)
    failed = [(one.type_, one.message) for one in execution.conditions if one.state == run_v2.Condition.State.CONDITION_FAILED]
    assert failed == [(condition, message)]
    assert (execution.start_time, execution.completion_time, execution.running_count) == (None, None, 0)
    seen = requests.get(f"{v1}/executions/{name.rpartition('/')[2]}", timeout=60)
    shown = {one["type"]: one for one in seen.json()["status"]["conditions"]}
    assert (shown[condition]["status"], shown[condition]["message"], bool(shown[condition]["reason"])) == ("False", message, True)
    assert shown["Completed"]["status"] == "Unknown"
    over = site.executions.cancel_execution(name=name).result()
    assert (over.cancelled_count, over.completion_time is not None) == (1, True)
    # The next run starts.
    assert site.jobs.run_job(name=site.job).result().succeeded_count == 1


def test_a_reason_that_does_not_exist_is_refused(site: Site) -> None:
    body: dict[str, Any] = {
        "project": site.job.split("/")[1],
        "method": "jobs.run",
        "faults": [{"kind": "cannot_start", "reason": "qouta"}],
    }
    refused = requests.post(f"{site.service.http}/faults", json=body, timeout=60)
    assert (refused.status_code, "did you mean 'quota'?" in refused.text) == (400, True)


def test_permission_denied_is_403_of_both_versions(site: Site) -> None:
    site.orders.add("jobs.get", "permission_denied", "permission_denied")
    with pytest.raises(Forbidden, match="permission_denied"):
        site.jobs.get_job(name=site.job, retry=None)
    v1 = f"{site.service.http}/apis/run.googleapis.com/v1/namespaces/{site.job.split('/')[1]}/jobs/lane"
    refused = requests.get(v1, timeout=60)
    assert (refused.status_code, refused.json()["error"]["status"]) == (403, "PERMISSION_DENIED")
