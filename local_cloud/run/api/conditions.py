"""What the API says about an execution or a task in its `conditions`: one table for both versions of the API.

A condition is never guessed: each follows from the state alone. v1 has True, False, Unknown; v2 has states.
"""

from __future__ import annotations

from dataclasses import dataclass

from local_cloud.faults.kinds import CannotStart
from local_cloud.run.api.timestamps import duration_text
from local_cloud.run.model.execution import Execution
from local_cloud.run.model.job import Job
from local_cloud.run.model.task import Phase, Task
from local_cloud.run.spec.template import main_of

DELAYED = "DelayedStartPending"
_SHORT_OF: dict[str, str] = {
    CannotStart.QUOTA: "Quota exceeded for total allowable CPU per project per region.",
    CannotStart.ADDRESSES: "Instances cannot be started: insufficient free IP addresses in the subnetwork.",
}


@dataclass(frozen=True)
class Condition:
    """`ok`: True succeeded, False failed, None not yet known. `at_s`: Unix seconds of the last change."""

    type: str
    ok: bool | None
    at_s: float
    reason: str = ""
    message: str = ""


def of_job(job: Job) -> Condition:
    """Says which containers the local cloud does not run."""
    containers = job.spec.template.containers
    if len(containers) < 2:
        return Condition("Ready", True, job.update_s)
    main = containers[main_of(job.spec.template)].name
    others = ", ".join(container.name for container in containers if container.name != main)
    text = f"The local cloud runs the container {main}, or the one that a run's overrides name. It does not run beside it: {others}."
    return Condition("Ready", True, job.update_s, message=text)


def of_execution(execution: Execution) -> list[Condition]:
    """Completed, ResourcesAvailable, Started and ContainerReady; the first one is what clients wait for."""
    created_s = execution.create_s
    available = Condition("ResourcesAvailable", True, created_s, message="Provisioned imported containers.")
    ready = Condition("ContainerReady", True, created_s, message="Imported container image.")
    if execution.cannot_start:
        available, ready = _obstacles(execution, ready)
    elif execution.not_before_s is not None and execution.start_s is None:
        text = "Waiting for resources: the start of this execution is delayed."
        available = Condition("ResourcesAvailable", None, created_s, DELAYED, text)
    return [_completed(execution), available, _started(execution), ready]


def _obstacles(execution: Execution, ready: Condition) -> tuple[Condition, Condition]:
    """ResourcesAvailable and ContainerReady of an execution that cannot start."""
    at_s = execution.create_s
    if execution.cannot_start == CannotStart.IMAGE:
        text = f"Image '{execution.template.containers[execution.main].image}' not found."
        return Condition("ResourcesAvailable", None, at_s), Condition("ContainerReady", False, at_s, "ContainerMissing", text)
    return Condition("ResourcesAvailable", False, at_s, "PostponedRetry", _SHORT_OF[execution.cannot_start]), ready


def _started(execution: Execution) -> Condition:
    if execution.start_s is None:
        reason = DELAYED if execution.not_before_s is not None else ""
        return Condition("Started", None, execution.create_s, reason)
    taken = duration_text(execution.start_s - execution.create_s)
    return Condition("Started", True, execution.start_s, message=f"Started deployed execution in {taken}.")


def _completed(execution: Execution) -> Condition:
    if execution.completion_s is None:
        if execution.cancel_s is not None:
            return Condition("Completed", None, execution.cancel_s, "Cancelling", "Cancelling execution.")
        return Condition("Completed", None, execution.start_s or execution.create_s, message="Waiting for execution to complete.")
    at_s = execution.completion_s
    if execution.outcome is Phase.SUCCEEDED:
        return Condition("Completed", True, at_s, message=f"Execution completed successfully in {_taken(execution, at_s)}.")
    if execution.outcome is Phase.CANCELLED:
        return Condition("Completed", False, at_s, "Cancelled", "Execution was cancelled.")
    return Condition("Completed", False, at_s, "NonZeroExitCode", _failure(execution))


def _taken(execution: Execution, at_s: float) -> str:
    return duration_text(at_s - (execution.create_s if execution.start_s is None else execution.start_s))


def _failure(execution: Execution) -> str:
    first = next(task for task in execution.tasks if task.phase is Phase.FAILED)
    more = execution.failed_count - 1
    rest = f" {more} more failed." if more else ""
    return f"Task {execution.name}-task{first.index} failed with message: {first.message}{rest}"


def of_task(task: Task, execution: Execution) -> list[Condition]:
    started = None if task.start_s is None else True
    at_s = task.end_s or task.start_s or execution.create_s
    ended: bool | None = None
    reason = ""
    if task.is_over:
        ended = task.phase is Phase.SUCCEEDED
        reason = {Phase.FAILED: "NonZeroExitCode", Phase.CANCELLED: "Cancelled"}.get(task.phase, "")
    return [
        Condition("Completed", ended, at_s, reason, task.message),
        Condition("Started", started, task.start_s or execution.create_s),
    ]
