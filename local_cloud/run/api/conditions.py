"""What the API says about an execution or a task in its `conditions`: one table for both versions of the API.

A condition is never guessed: each follows from the state alone. v1 has True, False, Unknown; v2 has states.
"""

from __future__ import annotations

from dataclasses import dataclass

from local_cloud.run.api.timestamps import duration_text
from local_cloud.run.model.execution import Execution
from local_cloud.run.model.task import Phase, Task


@dataclass(frozen=True)
class Condition:
    """`ok`: True succeeded, False failed, None not yet known. `at_s`: Unix seconds of the last change."""

    type: str
    ok: bool | None
    at_s: float
    reason: str = ""
    message: str = ""


def of_execution(execution: Execution) -> list[Condition]:
    """Completed, ResourcesAvailable, Started and ContainerReady; the first one is what clients wait for."""
    created_s = execution.create_s
    return [
        _completed(execution),
        Condition("ResourcesAvailable", True, created_s, message="Provisioned imported containers."),
        _started(execution),
        Condition("ContainerReady", True, created_s, message="Imported container image."),
    ]


def _started(execution: Execution) -> Condition:
    if execution.start_s is None:
        return Condition("Started", None, execution.create_s)
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
