"""Jobs, executions and tasks as the v2 API shows them, and its requests as specs.

Requests pass through Google's own message types: so both spellings of a field and both forms of an enum are accepted, and an unknown field
is refused. Answers are written directly: a page of 1,000 executions must not cost a second.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

from local_cloud.run.api import conditions
from local_cloud.run.api.conditions import Condition
from local_cloud.run.api.timestamps import duration, optional_time, parse_duration, rfc3339, without_none
from local_cloud.run.api.v1 import COMPLETION_STATUS, attempt_result, task_name
from local_cloud.run.model.execution import Execution
from local_cloud.run.model.job import Job
from local_cloud.run.model.task import Phase, Task
from local_cloud.run.spec.errors import ApiError
from local_cloud.run.spec.fields import Fields
from local_cloud.run.spec.manifest import read_container, read_env, write_container
from local_cloud.run.spec.template import (
    DEFAULT_MAX_RETRIES,
    DEFAULT_TASK_COUNT,
    DEFAULT_TIMEOUT_S,
    ContainerOverride,
    JobSpec,
    Overrides,
    Template,
)
from local_cloud.run.spec.validation import is_system

_IGNORED = frozenset(
    {"ports", "volumeMounts", "livenessProbe", "startupProbe", "readinessProbe", "dependsOn", "baseImageUri", "buildInfo", "sourceCode"}
)
_STATES = {True: "CONDITION_SUCCEEDED", False: "CONDITION_FAILED", None: "CONDITION_RECONCILING"}
_EXECUTION_REASONS = {
    "NonZeroExitCode": "NON_ZERO_EXIT_CODE",
    "Cancelled": "CANCELLED",
    "Cancelling": "CANCELLING",
    conditions.DELAYED: "DELAYED_START_PENDING",
}
_REASONS = {"ContainerMissing": "CONTAINER_MISSING", "PostponedRetry": "POSTPONED_RETRY"}


Enums = Callable[[str, str], str | int]
"""Writes one of the values of an enum, `(kind, name)`, as the client asked for."""


def enum_name(_kind: str, name: str) -> str:
    return name


@cache
def enum_number(kind: str, name: str) -> int:
    from google.cloud import run_v2

    found = run_v2
    for part in kind.split("."):
        found = getattr(found, part)
    return int(found[name])


def normalise(message: str, body: bytes) -> dict[str, object]:
    """The request's JSON in its canonical spelling. `message` names a type of `google.cloud.run_v2`.
    Raises ApiError INVALID_ARGUMENT when it is not that type's JSON."""
    from google.cloud import run_v2
    from google.protobuf import json_format

    parsed = getattr(run_v2, message).pb()()
    try:
        json_format.Parse(body or b"{}", parsed)
    except (json_format.ParseError, UnicodeDecodeError) as error:
        raise ApiError("INVALID_ARGUMENT", f"Invalid JSON payload received: {error}") from error
    found: dict[str, object] = json_format.MessageToDict(parsed)
    return found


def read_job(job: Fields) -> JobSpec:
    """Notes what is wrong in `job.problems`. Labels and annotations of the platform's own namespaces are refused, as by the real API."""
    execution = job.child("template")
    task = execution.child("template")
    labels, annotations = job.text_map("labels"), job.text_map("annotations")
    for key in (*labels, *annotations):
        if is_system(key):
            job.problems.add(f"labels or annotations, {key}", key, "this namespace belongs to the platform; the v2 API does not take it")
    return JobSpec(
        template=Template(
            containers=tuple(replace(read_container(child, _IGNORED), extras={}) for child in task.items("containers")),
            parallelism=execution.count("parallelism", 0),
            task_count=execution.count("taskCount", DEFAULT_TASK_COUNT),
            max_retries=task.count("maxRetries", DEFAULT_MAX_RETRIES),
            timeout_s=read_timeout(task) if task.has("timeout") else DEFAULT_TIMEOUT_S,
            service_account=task.text("serviceAccount"),
            labels=execution.text_map("labels"),
            annotations=execution.text_map("annotations"),
        ),
        labels=labels,
        annotations=annotations,
    )


def read_timeout(node: Fields) -> float:
    """Seconds; notes a timeout that is not a whole number of them."""
    seconds = parse_duration(node.text("timeout"))
    if seconds is None or seconds != int(seconds):
        node.problems.add(node.at("timeout"), node.raw.get("timeout"), "must be whole seconds such as 600s")
        return DEFAULT_TIMEOUT_S
    return seconds


def read_overrides(node: Fields) -> Overrides:
    containers = [
        ContainerOverride(child.text("name"), child.texts("args"), child.flag("clearArgs"), read_env(child))
        for child in node.items("containerOverrides")
    ]
    return Overrides(
        containers=tuple(containers),
        task_count=node.count("taskCount", 0) if node.has("taskCount") else None,
        timeout_s=read_timeout(node) if node.has("timeout") else None,
    )


def show_job(job: Job, latest: Execution | None, enums: Enums) -> dict[str, object]:
    """`latest`: its newest execution."""
    ready = _show_condition(conditions.of_job(job), enums)
    shown = {
        "name": job.key.name,
        "uid": job.uid,
        "generation": str(job.generation),
        "labels": dict(job.spec.labels),
        "annotations": dict(job.spec.annotations),
        "createTime": rfc3339(job.create_s),
        "updateTime": rfc3339(job.update_s),
        "deleteTime": optional_time(job.delete_s),
        "template": _show_template(job.spec.template),
        "observedGeneration": str(job.generation),
        "terminalCondition": ready,
        "conditions": [ready],
        "executionCount": job.execution_count,
        "latestCreatedExecution": None if latest is None else _show_reference(latest, enums),
        "etag": job.etag,
    }
    return without_none(shown)


def show_execution(execution: Execution, log_uri: str, enums: Enums) -> dict[str, object]:
    shown = {
        "name": execution.full_name,
        "uid": execution.uid,
        "generation": "1",
        "observedGeneration": "1",
        "labels": dict(execution.template.labels),
        "annotations": dict(execution.template.annotations),
        "createTime": rfc3339(execution.create_s),
        "startTime": optional_time(execution.start_s),
        "completionTime": optional_time(execution.completion_s),
        "updateTime": rfc3339(execution.update_s),
        "deleteTime": optional_time(execution.delete_s),
        "job": execution.key.job,
        "parallelism": execution.template.parallelism,
        "taskCount": execution.template.task_count,
        "template": _show_task_template(execution.template),
        "reconciling": not execution.is_over,
        "conditions": [_show_condition(condition, enums) for condition in conditions.of_execution(execution)],
        "runningCount": execution.running_count,
        "succeededCount": execution.succeeded_count,
        "failedCount": execution.failed_count,
        "cancelledCount": execution.cancelled_count,
        "retriedCount": execution.retried_count,
        "logUri": log_uri,
        "etag": execution.etag,
    }
    return without_none(shown)


def show_task(task: Task, execution: Execution, log_uri: str, enums: Enums) -> dict[str, object]:
    template = execution.template
    shown = {
        "name": f"{execution.full_name}/tasks/{task_name(task, execution)}",
        "uid": f"{execution.uid}-{task.index}",
        "generation": "1",
        "observedGeneration": "1",
        "createTime": rfc3339(execution.create_s),
        "scheduledTime": optional_time(task.reserved_s),
        "startTime": optional_time(task.start_s),
        "completionTime": optional_time(task.end_s),
        "job": execution.key.job,
        "execution": execution.name,
        **_show_task_template(template),
        "reconciling": not task.is_over,
        "conditions": [_show_condition(condition, enums) for condition in conditions.of_task(task, execution)],
        "index": task.index,
        "retried": task.attempt,
        "lastAttemptResult": attempt_result(task),
        "logUri": f"{log_uri}/{task.index}",
        "etag": execution.etag,
    }
    return without_none(shown)


def failure_of(execution: Execution) -> dict[str, object] | None:
    """The `error` of the operation that waits for it; None when it succeeded or still runs."""
    if not execution.is_over or execution.outcome is Phase.SUCCEEDED:
        return None
    completed = conditions.of_execution(execution)[0]
    return {"code": 1 if execution.outcome is Phase.CANCELLED else 2, "message": completed.message}


def _show_template(template: Template) -> dict[str, object]:
    return {
        "labels": dict(template.labels),
        "annotations": dict(template.annotations),
        "parallelism": template.parallelism,
        "taskCount": template.task_count,
        "template": _show_task_template(template),
    }


def _show_task_template(template: Template) -> dict[str, object]:
    return {
        "containers": [write_container(replace(container, extras={}), v2=True) for container in template.containers],
        "maxRetries": template.max_retries,
        "timeout": duration(template.timeout_s),
        "serviceAccount": template.service_account,
    }


def _show_reference(execution: Execution, enums: Enums) -> dict[str, object]:
    reference = {
        "name": execution.name,
        "createTime": rfc3339(execution.create_s),
        "completionTime": optional_time(execution.completion_s),
        "completionStatus": enums("ExecutionReference.CompletionStatus", COMPLETION_STATUS[execution.outcome]),
    }
    return without_none(reference)


def _show_condition(condition: Condition, enums: Enums) -> dict[str, object]:
    of_execution, common = _EXECUTION_REASONS.get(condition.reason), _REASONS.get(condition.reason)
    shown = {
        "type": condition.type,
        "state": enums("Condition.State", _STATES[condition.ok]),
        "message": condition.message or None,
        "lastTransitionTime": rfc3339(condition.at_s),
        "reason": enums("Condition.CommonReason", common) if common else None,
        "executionReason": enums("Condition.ExecutionReason", of_execution) if of_execution else None,
    }
    return without_none(shown)
