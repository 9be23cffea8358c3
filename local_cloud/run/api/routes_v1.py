"""The requests of the v1 API, as gcloud and clients with a plain HTTP session send them.

A path has a project and no region. A host that names a region, as gcloud's does, limits the request to that region; otherwise a job is
looked up in the default region first and then in the others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from starlette.routing import Route

from local_cloud.addresses import region_of
from local_cloud.run.api import v1
from local_cloud.run.api.endpoint import Call, locked_route
from local_cloud.run.api.paging import Position, page
from local_cloud.run.model.cloud import Cloud
from local_cloud.run.model.execution import Execution
from local_cloud.run.model.job import Job, JobKey
from local_cloud.run.spec.errors import ApiError, not_found
from local_cloud.run.spec.fields import Fields, Problems
from local_cloud.run.spec.manifest import API_VERSION, read_env, read_spec
from local_cloud.run.spec.template import ContainerOverride, JobSpec, Overrides
from local_cloud.run.spec.validation import V1_PATHS, V1_RUN_PATHS, check_delay, check_labels, check_name, check_template

_ROOT = "/apis/run.googleapis.com/v1/namespaces/{project}"
Item = TypeVar("Item")


def routes(cloud: Cloud, region: str) -> list[Route]:
    """`region`: of a new job whose request names none."""
    handlers = _Handlers(cloud, region)
    add = partial(locked_route, cloud.condition)
    return [
        add("GET", f"{_ROOT}/jobs", handlers.list_jobs),
        add("POST", f"{_ROOT}/jobs", handlers.create_job),
        add("POST", f"{_ROOT}/jobs/{{job}}:run", handlers.run_job),
        add("GET", f"{_ROOT}/jobs/{{job}}", handlers.get_job),
        add("PUT", f"{_ROOT}/jobs/{{job}}", handlers.replace_job),
        add("DELETE", f"{_ROOT}/jobs/{{job}}", handlers.delete_job),
        add("GET", f"{_ROOT}/executions", handlers.list_executions),
        add("POST", f"{_ROOT}/executions/{{execution}}:cancel", handlers.cancel_execution),
        add("GET", f"{_ROOT}/executions/{{execution}}", handlers.get_execution),
        add("DELETE", f"{_ROOT}/executions/{{execution}}", handlers.delete_execution),
        add("GET", f"{_ROOT}/tasks", handlers.list_tasks),
        add("GET", f"{_ROOT}/tasks/{{task}}", handlers.get_task),
    ]


class _Handlers:
    def __init__(self, cloud: Cloud, region: str) -> None:
        self._cloud = cloud
        self._region = region

    def list_jobs(self, call: Call) -> dict[str, object]:
        jobs = select(self._cloud.jobs(call.path["project"], region_of(call.host) or None), call, v1.job_labels)
        found, token = _page(jobs, call, lambda job: [job.key.region, job.key.job])
        return _list("JobList", [self._show_job(job) for job in found], token)

    def create_job(self, call: Call) -> dict[str, object]:
        name, region, spec, _ = _read_job(call)
        key = JobKey(call.path["project"], region_of(call.host) or region or self._region, name)
        return self._show_job(self._cloud.create_job(key, spec, validate_only=_dry(call)))

    def get_job(self, call: Call) -> dict[str, object]:
        return self._show_job(self._cloud.job(self._find(call)))

    def replace_job(self, call: Call) -> dict[str, object]:
        name, _, spec, etag = _read_job(call)
        if name != call.path["job"]:
            raise ApiError("INVALID_ARGUMENT", f"metadata.name: got {name!r}, must be {call.path['job']!r} as in the address")
        return self._show_job(self._cloud.replace_job(self._find(call), spec, etag=etag, validate_only=_dry(call)))

    def delete_job(self, call: Call) -> dict[str, object]:
        self._cloud.delete_job(self._find(call), validate_only=_dry(call))
        return {"apiVersion": "v1", "kind": "Status", "status": "Success"}

    def run_job(self, call: Call) -> dict[str, object]:
        overrides = _read_overrides(call)
        return self._show(self._cloud.run_job(self._find(call), overrides, V1_RUN_PATHS, cannot_start=call.cannot_start))

    def list_executions(self, call: Call) -> dict[str, object]:
        executions = select(self._executions(call), call, v1.execution_labels)
        found, token = _page(executions, call, lambda execution: [-execution.sequence])
        return _list("ExecutionList", [self._show(execution) for execution in found], token)

    def get_execution(self, call: Call) -> dict[str, object]:
        return self._show(self._execution(call, call.path["execution"]))

    def cancel_execution(self, call: Call) -> dict[str, object]:
        return self._show(self._cloud.cancel(self._execution(call, call.path["execution"])))

    def delete_execution(self, call: Call) -> dict[str, object]:
        self._cloud.delete(self._execution(call, call.path["execution"]), validate_only=_dry(call))
        return {"apiVersion": "v1", "kind": "Status", "status": "Success"}

    def list_tasks(self, call: Call) -> dict[str, object]:
        pairs = [(task, execution) for execution in self._executions(call) for task in execution.tasks]
        chosen = select(pairs, call, lambda pair: v1.task_labels(*pair))
        found, token = _page(chosen, call, lambda pair: [-pair[1].sequence, pair[0].index])
        return _list("TaskList", [v1.show_task(task, execution, self._cloud.log_uri(execution)) for task, execution in found], token)

    def get_task(self, call: Call) -> dict[str, object]:
        name = call.path["task"]
        execution = self._execution(call, name.rpartition("-task")[0])
        task = v1.task_named(name, execution)
        if task is None:
            raise not_found("TASK", f"namespaces/{call.path['project']}/tasks/{name}")
        return v1.show_task(task, execution, self._cloud.log_uri(execution))

    def _execution(self, call: Call, name: str) -> Execution:
        execution = self._cloud.execution_named(name, call.path["project"])
        if region_of(call.host) not in ("", execution.key.region):
            raise not_found("EXECUTION", f"namespaces/{call.path['project']}/executions/{name} in {region_of(call.host)}")
        return execution

    def _executions(self, call: Call) -> list[Execution]:
        """The executions of the region that the request names, or of all regions."""
        found = self._cloud.executions_in(call.path["project"])
        return [execution for execution in found if region_of(call.host) in ("", execution.key.region)]

    def _show(self, execution: Execution) -> dict[str, object]:
        return v1.show_execution(execution, self._cloud.log_uri(execution))

    def _show_job(self, job: Job) -> dict[str, object]:
        return v1.show_job(job, self._cloud.latest_execution(job.key))

    def _find(self, call: Call) -> JobKey:
        """The job in the region that the request names; without one, in the default region, or else in the only region that has it."""
        project, name = call.path["project"], call.path["job"]
        if region_of(call.host):
            return JobKey(project, region_of(call.host), name)
        keys = [job.key for job in self._cloud.jobs(project) if job.key.job == name]
        preferred = JobKey(project, self._region, name)
        if preferred in keys or len(keys) != 1:
            return preferred
        return keys[0]


def _dry(call: Call) -> bool:
    return call.query.get("dryRun", "") == "all"


def _read_job(call: Call) -> tuple[str, str, JobSpec, str]:
    """The name, the region (empty without one), the spec and the etag of a manifest; all problems are reported at once."""
    problems = Problems()
    manifest = Fields(call.json(), "", problems)
    spec = read_spec(manifest)
    metadata = manifest.child("metadata")
    name = metadata.text("name")
    check_name(name, V1_PATHS.name, problems)
    if metadata.text("namespace", call.path["project"]) != call.path["project"]:
        problems.add("metadata.namespace", metadata.raw["namespace"], f"must be the project of the address, {call.path['project']!r}")
    check_labels(spec.labels, V1_PATHS.labels, problems)
    check_template(spec.template, V1_PATHS, problems)
    check_delay(spec, V1_PATHS, problems)
    problems.raise_if_any()
    version = metadata.text("resourceVersion")
    region = metadata.text_map("labels").get(v1.LOCATION_LABEL, "")
    return name, region, spec, f'"{version}"' if version else ""


def _read_overrides(call: Call) -> Overrides:
    problems = Problems()
    body = Fields(call.json(), "", problems)
    body.only(frozenset({"overrides"}))
    node = body.child("overrides")
    node.only(frozenset({"containerOverrides", "taskCount", "timeoutSeconds"}))
    changes = []
    for child in node.items("containerOverrides"):
        child.only(frozenset({"name", "args", "clearArgs", "env"}))
        changes.append(ContainerOverride(child.text("name"), child.texts("args"), child.flag("clearArgs"), read_env(child)))
    overrides = Overrides(
        containers=tuple(changes),
        task_count=node.count("taskCount", 0) if node.has("taskCount") else None,
        timeout_s=float(node.count("timeoutSeconds", 0)) if node.has("timeoutSeconds") else None,
    )
    problems.raise_if_any()
    return overrides


def select(items: Sequence[Item], call: Call, labels: Callable[[Item], Mapping[str, str]]) -> Sequence[Item]:
    """The items that the query's `labelSelector` matches. Raises ApiError INVALID_ARGUMENT when it cannot be read."""
    rules = [_rule(part.strip()) for part in call.query.get("labelSelector", "").split(",") if part.strip()]
    if not rules:
        return items
    return [item for item in items if all(rule(labels(item)) for rule in rules)]


def _rule(text: str) -> Callable[[Mapping[str, str]], bool]:
    matched = re.fullmatch(r"(!?)\s*([^\s=!]+)\s*(?:(==|=|!=)\s*([^\s=!]*))?", text)
    if matched is None or (matched.group(1) and matched.group(3)):
        raise ApiError("INVALID_ARGUMENT", f"labelSelector: got {text!r}, must be 'key', '!key', 'key = value' or 'key != value'")
    absent, key, operator, value = matched.groups()
    if operator is None:
        return lambda labels: (key in labels) != bool(absent)
    return lambda labels: (labels.get(key) == value) == (operator != "!=")


def _page(items: Sequence[Item], call: Call, position: Callable[[Item], Position]) -> tuple[Sequence[Item], str]:
    return page(items, call.query.get("limit", ""), call.query.get("continue", ""), position)


def _list(kind: str, items: list[dict[str, object]], token: str) -> dict[str, object]:
    metadata = {"continue": token} if token else {}
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "items": items, "unreachable": []}
