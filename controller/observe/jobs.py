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
from controller.observe.containers import Container, worker_at

LANE_LABEL = "fanout-lane"
LANE_PREFIX = "fanout/"
"""What the annotations of a lane begin with."""
DEFAULT_TIMEOUT_S = 600.0
DEFAULT_RETRIES = 3
"""What Cloud Run takes where a job does not say."""


class LaunchRefused(FanoutError):
    """Cloud Run refused the launch: nothing was started."""


class LaunchThrottled(LaunchRefused):
    """Refused because there were too many launches, or a quota was used up: nothing was started, and a later launch may succeed."""


class LaunchUnclear(DependencyUnavailable):
    """No usable answer came: the execution may or may not exist. List executions for its decision id before anything is tried again."""


@dataclass(frozen=True, slots=True)
class JobInfo:
    """One job as it is deployed, or as a manifest says it. `full_name` is `projects/P/locations/R/jobs/J`; `execution_count` counts all
    executions ever created, `latest_execution` is the short name of the newest. A job that was deleted and made anew has another `uid`.
    `is_delayed`: Cloud Run may start its executions hours late. `subnet` is that of its workers,
    `projects/P/regions/R/subnetworks/S`; empty without direct VPC."""

    full_name: str
    uid: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    containers: tuple[Container, ...] = (Container(),)
    task_timeout_s: float = DEFAULT_TIMEOUT_S
    parallelism: int = 0
    max_retries: int = DEFAULT_RETRIES
    is_delayed: bool = False
    service_account: str = ""
    subnet: str = ""
    execution_count: int = 0
    latest_execution: str = ""

    @property
    def name(self) -> str:
        """The short name."""
        return self.full_name.rsplit("/", 1)[-1]

    @property
    def is_lane(self) -> bool:
        """Whether it has the label of a lane, or annotations of one and should have the label."""
        return LANE_LABEL in self.labels or any(key.startswith(LANE_PREFIX) for key in self.annotations)

    @property
    def worker(self) -> Container:
        """The container that drains: the one called `worker`, else the one whose command is the worker's, else the first. One that may run
        it counts where the first has a command, and runs something else."""
        return self.containers[worker_at(self.containers)]

    @property
    def env(self) -> Mapping[str, str]:
        """The settings of the worker's container, as far as they are plain values."""
        return {**self.worker.env, **self.worker.options}

    @property
    def vcpu(self) -> float:
        """Of all containers of a worker: all of them are paid for."""
        return sum(one.vcpu for one in self.containers)

    @property
    def memory_gib(self) -> float:
        """Of all containers of a worker."""
        return sum(one.memory_gib for one in self.containers)


@dataclass(frozen=True, slots=True)
class RunRequest:
    """The overrides of one launch. `env` is merged over that of the worker's `container`, which only a job of several must name."""

    task_count: int
    env: Mapping[str, str] = field(default_factory=dict)
    container: str = ""


class JobRunner(Protocol):
    """The jobs of one project and region. All methods may raise DependencyError."""

    def jobs(self) -> list[JobInfo]:
        """The jobs that carry the label `fanout-lane`, or annotations of a lane."""

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
