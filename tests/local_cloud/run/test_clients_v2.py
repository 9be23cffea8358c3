"""The v2 API through Google's own clients."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from google.api_core import exceptions
from google.cloud import run_v2
from google.protobuf import json_format

if TYPE_CHECKING:
    from tests.local_cloud.run.conftest import Service, Starter

PARENT = "projects/shop/locations/us-central1"
LANE = f"{PARENT}/jobs/lane"


def test_a_job_is_created_read_changed_listed_and_deleted(service: Service) -> None:
    created = service.create(task_count=3)
    assert (created.name, created.generation, created.execution_count) == (LANE, 1, 0)
    assert created.terminal_condition.state is run_v2.Condition.State.CONDITION_SUCCEEDED
    created.annotations["fanout/max-workers"] = "20"
    created.labels["team"] = "blue"
    created.template.template.max_retries = 0
    changed = service.jobs.update_job(job=created).result()
    assert (changed.generation, changed.uid, changed.annotations["fanout/max-workers"]) == (2, created.uid, "20")
    assert changed.etag != created.etag
    assert [job.labels["team"] for job in service.jobs.list_jobs(parent=PARENT)] == ["blue"]
    assert service.jobs.delete_job(name=LANE).result().name == LANE
    with pytest.raises(exceptions.NotFound, match="jobs/lane"):
        service.jobs.get_job(name=LANE)


def test_max_retries_zero_is_not_the_default(service: Service) -> None:
    assert service.create(max_retries=0).template.template.max_retries == 0
    body = {"template": {"template": {"containers": [{"image": "i", "command": ["true"]}]}}}
    service.http.post(f"{service.url}/v2/{PARENT}/jobs?jobId=plain", json=body).raise_for_status()
    template = service.jobs.get_job(name=f"{PARENT}/jobs/plain").template
    assert (template.task_count, template.template.max_retries, template.template.timeout.seconds) == (1, 3, 600)


def test_the_operation_of_a_run_ends_with_its_execution(service: Service) -> None:
    service.create(task_count=2)
    operation = service.jobs.run_job(name=LANE)
    assert (operation.metadata.task_count, operation.metadata.job) == (2, "lane")
    execution = operation.result(timeout=60)
    assert (execution.succeeded_count, execution.name) == (2, operation.metadata.name)
    job = service.jobs.get_job(name=LANE)
    assert (job.execution_count, job.latest_created_execution.name) == (1, execution.name.rpartition("/")[2])
    assert job.latest_created_execution.completion_time == execution.completion_time


def test_who_waits_for_a_run_can_go_on_after_a_restart(start: Starter) -> None:
    first = start()
    first.create_waiting(max_retries=1)
    operation = first.jobs.run_job(name=LANE).operation.name
    first.wait_for_files("0-0.up")
    first.stop()
    second = start()
    second.wait_for_files("0-1.up")
    waited = second.jobs.transport.operations_client.get_operation(operation)
    assert not waited.done
    with pytest.raises(exceptions.NotFound):
        second.jobs.transport.operations_client.get_operation(operation.replace("us-central1", "europe-west1"))
    second.executions.cancel_execution(name=next(iter(second.executions.list_executions(parent=LANE))).name).result(timeout=60)
    over = second.jobs.transport.operations_client.get_operation(operation)
    assert (over.done, over.error.message) == (True, "Execution was cancelled.")


def test_the_operation_of_a_failed_run_raises(service: Service) -> None:
    service.create(command=["false"])
    operation = service.jobs.run_job(name=LANE)
    with pytest.raises(exceptions.GoogleAPICallError, match="code 1"):
        operation.result(timeout=60)
    assert operation.metadata.failed_count == 1


def test_an_executions_template_shows_the_merged_environment(service: Service) -> None:
    service.create()
    name = service.run(container_overrides=[{"env": [{"name": "DECISION_ID", "value": "d1.0"}]}])
    env = {variable.name: variable.value for variable in service.get(name).template.containers[0].env}
    assert env == {"OUT": str(service.out), "DECISION_ID": "d1.0"}
    assert [variable.name for variable in service.jobs.get_job(name=LANE).template.template.containers[0].env] == ["OUT"]


def test_validate_only_changes_nothing(service: Service) -> None:
    service.create()
    job = service.jobs.get_job(name=LANE)
    service.jobs.run_job(request={"name": LANE, "validate_only": True}).result(timeout=60)
    service.jobs.delete_job(request={"name": LANE, "validate_only": True}).result(timeout=60)
    service.jobs.update_job(request={"job": job, "validate_only": True}).result(timeout=60)
    service.jobs.create_job(request={"parent": PARENT, "job": job, "job_id": "second", "validate_only": True}).result(timeout=60)
    assert [job.execution_count for job in service.jobs.list_jobs(parent=PARENT)] == [0]
    assert list(service.executions.list_executions(parent=LANE)) == []
    assert service.jobs.get_job(name=LANE).etag == job.etag


def test_an_etag_that_is_not_the_current_one_is_refused(service: Service) -> None:
    job = service.create()
    assert service.jobs.run_job(request={"name": LANE, "etag": job.etag}).metadata.name
    service.jobs.update_job(job=job).result()
    calls: list[Callable[[], object]] = [
        lambda: service.jobs.run_job(request={"name": LANE, "etag": job.etag}),
        lambda: service.jobs.update_job(job=job),
        lambda: service.jobs.delete_job(request={"name": LANE, "etag": job.etag}),
    ]
    for call in calls:
        with pytest.raises(exceptions.Conflict, match="read it again"):
            call()


def _refusal(service: Service, method: str, path: str, body: Any = None) -> tuple[int, str, str]:
    answer = service.http.request(method, f"{service.url}/v2/{path}", data=json.dumps(body) if body is not None else None)
    error = answer.json()["error"]
    assert error["code"] == answer.status_code
    return answer.status_code, error["status"], error["message"]


def test_refusals_have_the_real_shape(service: Service) -> None:
    service.create(parallelism=3, task_count=5)
    name = service.run()
    service.finish(name)
    assert _refusal(service, "GET", f"{PARENT}/jobs/none")[:2] == (404, "NOT_FOUND")
    assert _refusal(service, "GET", f"{LANE}/executions/none")[:2] == (404, "NOT_FOUND")
    assert _refusal(service, "GET", f"{PARENT}/jobs/none/executions")[:2] == (404, "NOT_FOUND")
    assert _refusal(service, "GET", f"{name}/tasks/x-task0")[:2] == (404, "NOT_FOUND")
    assert _refusal(service, "GET", f"{PARENT}/operations/none")[:2] == (404, "NOT_FOUND")
    assert _refusal(service, "GET", "nowhere")[:2] == (404, "NOT_FOUND")
    assert _refusal(service, "POST", f"{name}:cancel", {})[:2] == (400, "FAILED_PRECONDITION")
    assert _refusal(service, "GET", f"{PARENT}/jobs?pageToken=x")[:2] == (400, "INVALID_ARGUMENT")
    assert _refusal(service, "GET", f"{PARENT}/jobs?pageSize=-1")[:2] == (400, "INVALID_ARGUMENT")
    code, status, message = _refusal(service, "POST", f"{LANE}:run", {"overrides": {"taskCount": 2}})
    assert (code, status) == (400, "INVALID_ARGUMENT")
    assert "overrides.taskCount: got 2" in message
    assert "parallelism (3)" in message
    code, status, message = _refusal(service, "POST", f"{PARENT}/jobs?jobId=x", {"tmplate": {}})
    assert (code, status) == (400, "INVALID_ARGUMENT")
    assert "tmplate" in message
    template = {"template": {"template": {"containers": [{"image": "i", "command": ["true"]}]}}}
    assert _refusal(service, "POST", f"{PARENT}/jobs?jobId=lane", template)[:2] == (409, "ALREADY_EXISTS")
    assert "platform" in _refusal(service, "POST", f"{PARENT}/jobs?jobId=x", {**template, "labels": {"run.googleapis.com/x": "y"}})[2]


@pytest.mark.parametrize("page_size", [1, 2, 5, 1000])
def test_lists_come_in_pages(service: Service, page_size: int) -> None:
    names = [f"lane-{letter}" for letter in "abcde"]
    for name in names:
        service.create(name, task_count=5)
    found = service.jobs.list_jobs(request={"parent": PARENT, "page_size": page_size})
    assert [job.name.rpartition("/")[2] for job in found] == names
    started = [service.run("lane-a") for _ in range(5)]
    listed = service.executions.list_executions(request={"parent": f"{PARENT}/jobs/lane-a", "page_size": page_size})
    assert [execution.name for execution in listed] == started[::-1], "newest first"
    tasks = service.tasks.list_tasks(request={"parent": started[0], "page_size": page_size})
    assert [task.index for task in tasks] == [0, 1, 2, 3, 4]


def test_a_page_is_not_shifted_by_what_starts_meanwhile(service: Service) -> None:
    service.create()
    started = [service.run() for _ in range(4)]
    pages = service.executions.list_executions(request={"parent": LANE, "page_size": 2}).pages
    seen = [execution.name for execution in next(pages).executions]
    service.run()
    seen += [execution.name for page in pages for execution in page.executions]
    assert seen == started[::-1]


def test_a_dash_lists_across_jobs_and_executions(service: Service) -> None:
    for name in ("lane-a", "lane-b"):
        service.create(name, task_count=2)
        service.run(name)
    assert len(list(service.executions.list_executions(parent=f"{PARENT}/jobs/-"))) == 2
    assert len(list(service.tasks.list_tasks(parent=f"{PARENT}/jobs/lane-a/executions/-"))) == 2


def test_tasks_are_read_one_by_one(service: Service) -> None:
    service.create(task_count=2)
    name = service.run()
    service.finish(name)
    task = service.tasks.get_task(name=f"{name}/tasks/{name.rpartition('/')[2]}-task1")
    assert (task.index, task.execution, task.last_attempt_result.exit_code) == (1, name.rpartition("/")[2], 0)
    assert task.conditions[0].state.name == "CONDITION_SUCCEEDED"


def test_a_deleted_execution_is_gone_with_its_files_and_a_running_one_first_ends(service: Service) -> None:
    service.create_waiting()
    name = service.run()
    service.wait_for_files("0-0.up")
    operation = service.executions.delete_execution(name=name)
    assert operation.result(timeout=60).cancelled_count == 1
    with pytest.raises(exceptions.NotFound):
        service.get(name)
    assert list((service.state_dir / "executions").iterdir()) == []


def test_a_deleted_job_takes_its_executions_along(service: Service) -> None:
    service.create_waiting()
    service.run()
    service.wait_for_files("0-0.up")
    operation = service.jobs.delete_job(name=LANE)
    assert operation.metadata.delete_time
    operation.result(timeout=60)
    with pytest.raises(exceptions.NotFound):
        service.jobs.get_job(name=LANE)
    assert service.create().execution_count == 0


def test_projects_and_regions_are_apart(service: Service) -> None:
    service.create()
    with pytest.raises(exceptions.NotFound):
        service.jobs.get_job(name="projects/other/locations/us-central1/jobs/lane")
    assert list(service.jobs.list_jobs(parent="projects/shop/locations/europe-west1")) == []
    name = service.run()
    with pytest.raises(exceptions.NotFound):
        service.get(name.replace("/lane/", "/other/"))


@pytest.mark.parametrize("numbers", [True, False])
def test_every_field_is_one_that_googles_types_have(service: Service, numbers: bool) -> None:
    service.create(command=["false"], task_count=2, max_retries=1)
    name = service.run()
    service.finish(name)
    for path, kind in ((LANE, run_v2.Job), (name, run_v2.Execution), (f"{name}/tasks/{name.rpartition('/')[2]}-task0", run_v2.Task)):
        answer = service.http.get(f"{service.url}/v2/{path}", params={"$alt": "json;enum-encoding=int"} if numbers else {}).json()
        json_format.ParseDict(answer, kind.pb()(), ignore_unknown_fields=False)
        condition = answer["conditions"][0]
        assert isinstance(condition["state"], int if numbers else str)
