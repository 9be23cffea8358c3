"""The requests of the v2 API, as Google's client libraries send them over REST.

A request that changes something is answered with an operation; one that reads, with the current state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from starlette.routing import Route

from local_cloud.run.api import v2
from local_cloud.run.api.endpoint import Call, locked_route
from local_cloud.run.api.operations import Operations
from local_cloud.run.api.paging import page
from local_cloud.run.api.v1 import task_named
from local_cloud.run.api.v2 import Enums
from local_cloud.run.model.cloud import Cloud
from local_cloud.run.model.execution import Execution
from local_cloud.run.model.job import Job, JobKey
from local_cloud.run.spec.errors import not_found
from local_cloud.run.spec.fields import Fields, Problems
from local_cloud.run.spec.template import JobSpec
from local_cloud.run.spec.validation import V2_PATHS, V2_RUN_PATHS, check_labels, check_name, check_template

_LOCATION = "/v2/projects/{project}/locations/{region}"
_JOB = _LOCATION + "/jobs/{job}"
_EXECUTION = _JOB + "/executions/{execution}"
ANY = "-"  # in place of a name in a list's parent: all of them


def routes(cloud: Cloud) -> list[Route]:
    handlers = _Handlers(cloud)
    add = partial(locked_route, cloud.condition)
    return [
        add("GET", f"{_LOCATION}/jobs", handlers.list_jobs),
        add("POST", f"{_LOCATION}/jobs", handlers.create_job),
        add("POST", f"{_JOB}:run", handlers.run_job),
        add("GET", _JOB, handlers.get_job),
        add("PATCH", _JOB, handlers.update_job),
        add("DELETE", _JOB, handlers.delete_job),
        add("GET", f"{_JOB}/executions", handlers.list_executions),
        add("POST", f"{_EXECUTION}:cancel", handlers.cancel_execution),
        add("GET", _EXECUTION, handlers.get_execution),
        add("DELETE", _EXECUTION, handlers.delete_execution),
        add("GET", f"{_EXECUTION}/tasks", handlers.list_tasks),
        add("GET", f"{_EXECUTION}/tasks/{{task}}", handlers.get_task),
        add("GET", f"{_LOCATION}/operations", handlers.list_operations),
        add("GET", f"{_LOCATION}/operations/{{operation}}", handlers.get_operation),
        add("POST", f"{_LOCATION}/operations/{{operation}}:wait", handlers.get_operation),
    ]


class _Handlers:
    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._operations = Operations(cloud.new_uid)

    def list_jobs(self, call: Call) -> dict[str, object]:
        jobs = self._cloud.jobs(call.path["project"], None if call.path["region"] == ANY else call.path["region"])
        found, token = page(jobs, *_page_of(call), lambda job: [job.key.region, job.key.job])
        return {"jobs": [self._show_job(job, _enums(call)) for job in found], "nextPageToken": token}

    def create_job(self, call: Call) -> dict[str, object]:
        key = JobKey(call.path["project"], call.path["region"], call.query.get("jobId", ""))
        spec, _ = _read_job(call, key)
        job = self._cloud.create_job(key, spec, validate_only=call.asked("validateOnly"))
        return self._job_operation(job, call)

    def get_job(self, call: Call) -> dict[str, object]:
        return self._show_job(self._cloud.job(_key(call)), _enums(call))

    def update_job(self, call: Call) -> dict[str, object]:
        key = _key(call)
        spec, etag = _read_job(call, key)
        if self._cloud.has_key(key):
            spec = replace(spec, system_annotations=self._cloud.job(key).spec.system_annotations)
        job = self._cloud.replace_job(
            key,
            spec,
            etag=etag,
            allow_missing=call.asked("allowMissing"),
            validate_only=call.asked("validateOnly"),
        )
        return self._job_operation(job, call)

    def delete_job(self, call: Call) -> dict[str, object]:
        key = _key(call)
        validate_only = call.asked("validateOnly")
        job = self._cloud.delete_job(key, etag=call.query.get("etag", ""), validate_only=validate_only)
        return self._job_operation(job, call, lambda: validate_only or not self._cloud.has_job(job))

    def run_job(self, call: Call) -> dict[str, object]:
        problems = Problems()
        request = Fields(v2.normalise("RunJobRequest", call.body), "", problems)
        overrides = v2.read_overrides(request.child("overrides"))
        problems.raise_if_any()
        validate_only = request.flag("validateOnly")
        options = {"etag": request.text("etag"), "cannot_start": call.cannot_start}
        execution = self._cloud.run_job(_key(call), overrides, V2_RUN_PATHS, validate_only=validate_only, **options)
        return self._run_operation(execution, call, validate_only=validate_only)

    def list_executions(self, call: Call) -> dict[str, object]:
        executions = self._executions_of(call)
        found, token = page(executions, *_page_of(call), lambda execution: [-execution.sequence])
        return {"executions": [self._show(execution, _enums(call)) for execution in found], "nextPageToken": token}

    def get_execution(self, call: Call) -> dict[str, object]:
        return self._show(self._execution(call), _enums(call))

    def cancel_execution(self, call: Call) -> dict[str, object]:
        request = Fields(v2.normalise("CancelExecutionRequest", call.body), "", Problems())
        validate_only = request.flag("validateOnly")
        execution = self._cloud.cancel(self._execution(call), etag=request.text("etag"), validate_only=validate_only)
        return self._execution_operation(execution, call, lambda: validate_only or execution.is_over)

    def delete_execution(self, call: Call) -> dict[str, object]:
        validate_only = call.asked("validateOnly")
        execution = self._cloud.delete(self._execution(call), etag=call.query.get("etag", ""), validate_only=validate_only)
        return self._execution_operation(execution, call, lambda: validate_only or not self._cloud.exists(execution))

    def list_tasks(self, call: Call) -> dict[str, object]:
        executions = self._executions_of(call) if call.path["execution"] == ANY else [self._execution(call)]
        pairs = [(task, execution) for execution in executions for task in execution.tasks]
        found, token = page(pairs, *_page_of(call), lambda pair: [-pair[1].sequence, pair[0].index])
        return {
            "tasks": [v2.show_task(task, execution, self._cloud.log_uri(execution), _enums(call)) for task, execution in found],
            "nextPageToken": token,
        }

    def get_task(self, call: Call) -> dict[str, object]:
        execution = self._execution(call)
        task = task_named(call.path["task"], execution)
        if task is None:
            raise not_found("TASK", f"{execution.full_name}/tasks/{call.path['task']}")
        return v2.show_task(task, execution, self._cloud.log_uri(execution), _enums(call))

    def get_operation(self, call: Call) -> dict[str, object]:
        name = f"{_parent(call)}/operations/{call.path['operation']}"
        if not self._operations.has(name):
            execution = self._cloud.execution_of_uid(call.path["operation"])
            if execution is not None and execution.key.parent == _parent(call):
                return self._run_operation(execution, call)
        return self._operations.get(name).to_json()

    def list_operations(self, call: Call) -> dict[str, object]:
        return {"operations": [operation.to_json() for operation in self._operations.below(_parent(call))]}

    def _show(self, execution: Execution, enums: Enums) -> dict[str, object]:
        return v2.show_execution(execution, self._cloud.log_uri(execution), enums)

    def _show_job(self, job: Job, enums: Enums) -> dict[str, object]:
        return v2.show_job(job, self._cloud.latest_execution(job.key), enums)

    def _execution(self, call: Call) -> Execution:
        return self._cloud.execution(_key(call), call.path["execution"])

    def _executions_of(self, call: Call) -> list[Execution]:
        key = _key(call)
        if key.job != ANY:
            self._cloud.job(key)
            return self._cloud.executions(key)
        return [execution for execution in self._cloud.executions_in(key.project) if execution.key.region == key.region]

    def _job_operation(self, job: Job, call: Call, is_done: Callable[[], bool] = lambda: True) -> dict[str, object]:
        enums = _enums(call)
        return self._operations.add(_parent(call), "Job", lambda: self._show_job(job, enums), is_done).to_json()

    def _execution_operation(self, execution: Execution, call: Call, is_done: Callable[[], bool]) -> dict[str, object]:
        enums = _enums(call)
        return self._operations.add(_parent(call), "Execution", lambda: self._show(execution, enums), is_done).to_json()

    def _run_operation(self, execution: Execution, call: Call, *, validate_only: bool = False) -> dict[str, object]:
        """Its id is the execution's, so that a client that waits for a run can go on after a restart of the server."""
        enums = _enums(call)
        return self._operations.add(
            _parent(call),
            "Execution",
            lambda: self._show(execution, enums),
            lambda: validate_only or execution.is_over,
            lambda: v2.failure_of(execution),
            execution.uid,
        ).to_json()


def _read_job(call: Call, key: JobKey) -> tuple[JobSpec, str]:
    """The spec and the etag of the body; all problems are reported at once."""
    problems = Problems()
    body = Fields(v2.normalise("Job", call.body), "", problems)
    spec = v2.read_job(body)
    check_name(key.job, V2_PATHS.name, problems)
    check_labels(spec.labels, V2_PATHS.labels, problems)
    check_template(spec.template, V2_PATHS, problems)
    problems.raise_if_any()
    return spec, body.text("etag")


def _key(call: Call) -> JobKey:
    return JobKey(call.path["project"], call.path["region"], call.path["job"])


def _parent(call: Call) -> str:
    return f"projects/{call.path['project']}/locations/{call.path['region']}"


def _page_of(call: Call) -> tuple[str, str]:
    return call.query.get("pageSize", ""), call.query.get("pageToken", "")


def _enums(call: Call) -> Enums:
    """By name, or as numbers."""
    return v2.enum_number if "enum-encoding=int" in call.query.get("$alt", call.query.get("alt", "")) else v2.enum_name
