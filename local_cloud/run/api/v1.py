"""Jobs, executions and tasks as the v1 API (Knative style, what gcloud speaks) shows them.

`observedGeneration` always equals `generation`: gcloud waits for ever when it does not.
"""

from __future__ import annotations

from local_cloud.run.api import conditions
from local_cloud.run.api.conditions import Condition
from local_cloud.run.api.timestamps import optional_time, rfc3339, without_none
from local_cloud.run.model.execution import Execution
from local_cloud.run.model.job import Job
from local_cloud.run.model.task import Phase, Task
from local_cloud.run.spec.manifest import API_VERSION, write_execution_spec, write_spec, write_task_spec

LOCATION_LABEL = "cloud.googleapis.com/location"
JOB_LABEL = "run.googleapis.com/job"
EXECUTION_LABEL = "run.googleapis.com/execution"
STATE_LABEL = "run.googleapis.com/runningState"
COMPLETION_STATUS = {
    Phase.PENDING: "EXECUTION_PENDING",
    Phase.RUNNING: "EXECUTION_RUNNING",
    Phase.SUCCEEDED: "EXECUTION_SUCCEEDED",
    Phase.FAILED: "EXECUTION_FAILED",
    Phase.CANCELLED: "EXECUTION_CANCELLED",
}
_STATUS = {True: "True", False: "False", None: "Unknown"}
_STATE = {Phase.STARTING: "Pending"}


def show_job(job: Job, latest: Execution | None) -> dict[str, object]:
    """`latest`: its newest execution."""
    metadata = {
        "name": job.key.job,
        "namespace": job.key.project,
        "uid": job.uid,
        "resourceVersion": job.etag.strip('"'),
        "generation": job.generation,
        "creationTimestamp": rfc3339(job.create_s),
        "deletionTimestamp": optional_time(job.delete_s),
        "labels": job_labels(job),
        "annotations": {**job.spec.annotations, **job.spec.system_annotations},
    }
    status = {
        "observedGeneration": job.generation,
        "conditions": [_show_condition(conditions.of_job(job))],
        "executionCount": job.execution_count,
        "latestCreatedExecution": None if latest is None else _show_reference(latest),
    }
    return {
        "apiVersion": API_VERSION,
        "kind": "Job",
        "metadata": without_none(metadata),
        "spec": write_spec(job.spec),
        "status": without_none(status),
    }


def job_labels(job: Job) -> dict[str, str]:
    return {**job.spec.labels, LOCATION_LABEL: job.key.region}


def execution_labels(execution: Execution) -> dict[str, str]:
    return {
        **execution.template.labels,
        LOCATION_LABEL: execution.key.region,
        JOB_LABEL: execution.key.job,
        "run.googleapis.com/jobUid": execution.job_uid,
        "run.googleapis.com/jobGeneration": str(execution.job_generation),
    }


def task_labels(task: Task, execution: Execution) -> dict[str, str]:
    return {
        LOCATION_LABEL: execution.key.region,
        JOB_LABEL: execution.key.job,
        EXECUTION_LABEL: execution.name,
        STATE_LABEL: _STATE.get(task.phase, task.phase.value),
    }


def show_execution(execution: Execution, log_uri: str) -> dict[str, object]:
    metadata = {
        "name": execution.name,
        "namespace": execution.key.project,
        "uid": execution.uid,
        "resourceVersion": execution.etag.strip('"'),
        "generation": 1,
        "creationTimestamp": rfc3339(execution.create_s),
        "deletionTimestamp": optional_time(execution.delete_s),
        "labels": execution_labels(execution),
        "annotations": dict(execution.template.annotations),
        "ownerReferences": [{"apiVersion": API_VERSION, "kind": "Job", "name": execution.key.job, "uid": execution.job_uid}],
    }
    status = {
        "observedGeneration": 1,
        "conditions": [_show_condition(condition) for condition in conditions.of_execution(execution)],
        "startTime": optional_time(execution.start_s),
        "completionTime": optional_time(execution.completion_s),
        "runningCount": execution.running_count or None,
        "succeededCount": execution.succeeded_count or None,
        "failedCount": execution.failed_count or None,
        "cancelledCount": execution.cancelled_count or None,
        "retriedCount": execution.retried_count or None,
        "logUri": log_uri,
    }
    return {
        "apiVersion": API_VERSION,
        "kind": "Execution",
        "metadata": without_none(metadata),
        "spec": write_execution_spec(execution.template),
        "status": without_none(status),
    }


def task_name(task: Task, execution: Execution) -> str:
    return f"{execution.name}-task{task.index}"


def task_named(name: str, execution: Execution) -> Task | None:
    """The task of an execution that has this name."""
    index = name.removeprefix(f"{execution.name}-task")
    if not (index.isascii() and index.isdecimal() and len(index) <= len(str(len(execution.tasks)))):
        return None
    task = execution.tasks[int(index)] if int(index) < len(execution.tasks) else None
    return task if task is not None and task_name(task, execution) == name else None


def show_task(task: Task, execution: Execution, log_uri: str) -> dict[str, object]:
    """`log_uri`: the address of the execution's logs."""
    metadata = {
        "name": task_name(task, execution),
        "namespace": execution.key.project,
        "uid": f"{execution.uid}-{task.index}",
        "generation": 1,
        "creationTimestamp": rfc3339(execution.create_s),
        "labels": task_labels(task, execution),
    }
    status = {
        "observedGeneration": 1,
        "conditions": [_show_condition(condition) for condition in conditions.of_task(task, execution)],
        "index": task.index,
        "startTime": optional_time(task.start_s),
        "completionTime": optional_time(task.end_s),
        "retried": task.attempt or None,
        "lastAttemptResult": attempt_result(task),
        "logUri": f"{log_uri}/{task.index}",
    }
    return {
        "apiVersion": API_VERSION,
        "kind": "Task",
        "metadata": metadata,
        "spec": write_task_spec(execution.template),
        "status": without_none(status),
    }


def attempt_result(task: Task) -> dict[str, object] | None:
    """How the last finished try ended, in the JSON of both versions; None before any try has ended. Always holds a `status`."""
    if not task.tries:
        return None
    status: dict[str, object] = {"code": 10, "message": task.message} if task.message else {}
    return without_none({"status": status, "exitCode": task.exit_code, "termSignal": task.term_signal})


def _show_reference(execution: Execution) -> dict[str, object]:
    reference = {
        "name": execution.name,
        "creationTimestamp": rfc3339(execution.create_s),
        "completionTimestamp": optional_time(execution.completion_s),
        "completionStatus": COMPLETION_STATUS[execution.outcome],
    }
    return without_none(reference)


def _show_condition(condition: Condition) -> dict[str, object]:
    shown = {
        "type": condition.type,
        "status": _STATUS[condition.ok],
        "lastTransitionTime": rfc3339(condition.at_s),
        "reason": condition.reason or None,
        "message": condition.message or None,
    }
    return without_none(shown)
