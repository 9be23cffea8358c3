"""The seam to Cloud Run Jobs: what a job is, and what can be asked of jobs and executions.

A launch that failed either certainly did nothing (`LaunchRefused`) or may have taken effect (`LaunchUnclear`); the API knows
no request id, so the two must never be mixed up: only the first may be tried again without looking.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from batch.model.errors import DependencyUnavailable, FanoutError
from controller.model.execution import ExecutionInfo, WorkerInfo

LANE_LABEL = "fanout-lane"


class LaunchRefused(FanoutError):
    """Cloud Run refused the launch: nothing was started."""


class LaunchThrottled(LaunchRefused):
    """Refused because there were too many launches, or a quota was used up: nothing was started, and a later launch may succeed."""


class LaunchUnclear(DependencyUnavailable):
    """No usable answer came: the execution may or may not exist. List executions for its decision id before anything is tried again."""


@dataclass(frozen=True, slots=True)
class JobInfo:
    """One job. `full_name` is `projects/P/locations/R/jobs/J`; `env` holds the plain values of its first container; `vcpu` and
    `memory_gib` are the container's limits; `execution_count` counts all executions ever created, `latest_execution` is the short name of
    the newest. A job that was deleted and made anew has another `uid`."""

    full_name: str
    uid: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    task_timeout_s: float = 600.0
    parallelism: int = 0
    max_retries: int = 3
    vcpu: float = 1.0
    memory_gib: float = 0.5
    execution_count: int = 0
    latest_execution: str = ""

    @property
    def name(self) -> str:
        """The short name."""
        return self.full_name.rsplit("/", 1)[-1]


@dataclass(frozen=True, slots=True)
class RunRequest:
    """The overrides of one launch. `env` is merged over the job's."""

    task_count: int
    env: Mapping[str, str] = field(default_factory=dict)


class JobRunner(Protocol):
    """The jobs of one project and region. All methods may raise DependencyError."""

    def jobs(self) -> list[JobInfo]:
        """The jobs that carry the label `fanout-lane`."""

    def executions(self, job: str) -> Iterator[ExecutionInfo]:
        """Executions of the job with this full name, newest first, fetched page by page as the caller goes on."""

    def execution(self, full_name: str) -> ExecutionInfo | None:
        """The execution with this full name; None if it does not exist, or no longer."""

    def workers(self, execution: str) -> Sequence[WorkerInfo]:
        """The workers of the execution with this full name, by index."""

    def run(self, job: str, request: RunRequest) -> ExecutionInfo:
        """Start an execution and return at once. Raises LaunchRefused (LaunchThrottled among them), LaunchUnclear."""

    def set_annotation(self, job: str, key: str, value: str) -> None:
        """Set one annotation of the job with this full name; the rest of the job stays as it is."""
