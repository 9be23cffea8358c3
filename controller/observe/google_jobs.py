"""Cloud Run Jobs through Google's v2 client over REST: the same transport in production and against the local cloud.

Every answer becomes one of our values and every failure one of our errors; nothing waits for an operation to end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from batch.model.errors import DependencyForbidden, DependencyMissing, DependencyUnavailable, FanoutError
from batch.services.calls import client_info
from controller.model.execution import ExecutionInfo, WorkerInfo
from controller.observe.containers import Container, worker_at
from controller.observe.deployed import DeployedJobs
from controller.observe.job_documents import Document, job_info
from controller.observe.jobs import JobInfo, LaunchUnclear, RunRequest
from controller.observe.refusals import failures, launch_error, no_answer, short, unreadable

PAGE = 100
WORKERS_PAGE = 1000
TIMEOUT_S = 30.0
_MILD = ("WARNING", "INFO")
_ENDED = ("CANCELLED", "CANCELLING", "DELETED", "NON_ZERO_EXIT_CODE")
_MAY_START = ("DELAYED_START_PENDING", "WAITING_FOR_OPERATION", "IMMEDIATE_RETRY")
_NO_REASONS = frozenset((*_ENDED, *_MAY_START))
"""What a condition may have failed by that is no reason why an execution cannot start."""


class GoogleJobRunner:
    """The jobs of one project and region."""

    def __init__(self, project: str, region: str, *, emulator_url: str = "", timeout_s: float = TIMEOUT_S) -> None:
        """`emulator_url`, such as `http://127.0.0.1:1234`, is called without credentials."""
        from google.cloud import run_v2

        options = rest_options(emulator_url)
        self._run_v2 = run_v2
        self._deployed = DeployedJobs(project, region, emulator_url=emulator_url, timeout_s=timeout_s)
        self._jobs = run_v2.JobsClient(**options)
        self._executions = run_v2.ExecutionsClient(**options)
        self._tasks = run_v2.TasksClient(**options)
        self._url = emulator_url.rstrip("/") or f"https://{self._jobs.api_endpoint}"
        self._emulated = bool(emulator_url)
        self._parent = f"projects/{project}/locations/{region}"
        self._timeout_s = timeout_s

    def jobs(self) -> list[JobInfo]:
        """Through the v1 API: only that one says which jobs are delayed."""
        found = (job_info(document, self._parent) for document in self._deployed.list())
        return [job for job in found if job.is_lane]

    def executions(self, job: str) -> Iterator[ExecutionInfo]:
        with self._translated(f"cannot list the executions of {job}"):
            found = self._executions.list_executions(request={"parent": job, "page_size": PAGE}, timeout=self._timeout_s)
            yield from map(execution_info, found)

    def execution(self, full_name: str) -> ExecutionInfo | None:
        from google.api_core.exceptions import NotFound

        with self._translated(f"cannot read {full_name}"), suppress(NotFound):
            return execution_info(self._executions.get_execution(request={"name": full_name}, timeout=self._timeout_s))
        return None

    def workers(self, execution: str) -> Sequence[WorkerInfo]:
        with self._translated(f"cannot list the workers of {execution}"):
            found = self._tasks.list_tasks(request={"parent": execution, "page_size": WORKERS_PAGE}, timeout=self._timeout_s)
            return sorted(map(worker_info, found), key=lambda one: one.index)

    def run(self, job: str, request: RunRequest) -> ExecutionInfo:
        """Never retried: a repeated call may start a second execution."""
        try:
            operation = self._jobs.run_job(request=self._run_request(job, request), retry=None, timeout=self._timeout_s)
        except failures() as error:
            raise launch_error(error, job, self._in_words(error)) from error
        try:
            return execution_info(operation.metadata)
        except (AttributeError, TypeError, ValueError) as error:
            raise LaunchUnclear(f"Cloud Run took the launch of {job} and its answer named no execution: {error}") from error

    def set_annotation(self, job: str, key: str, value: str) -> None:
        def edit(document: Document) -> None:
            document["metadata"].setdefault("annotations", {})[key] = value

        self._deployed.change(job.rsplit("/", 1)[-1], edit, f"set {key} of {job}")

    def close(self) -> None:
        self._deployed.close()
        self._jobs.transport.close()
        self._executions.transport.close()
        self._tasks.transport.close()

    def _run_request(self, job: str, request: RunRequest) -> Any:
        overrides: dict[str, Any] = {"task_count": request.task_count}
        if request.env:
            env = [{"name": name, "value": value} for name, value in request.env.items()]
            overrides["container_overrides"] = [{"name": request.container, "env": env}]
        return self._run_v2.RunJobRequest(name=job, overrides=overrides)

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        try:
            yield
        except failures() as error:
            self._raise(error, what)

    def _raise(self, error: Exception, what: str) -> NoReturn:
        from google.api_core.exceptions import Forbidden, NotFound, Unauthorized
        from google.auth.exceptions import GoogleAuthError

        text = f"{what}: {self._in_words(error)}"
        kind: type[FanoutError] = DependencyUnavailable
        if isinstance(error, NotFound):
            kind, text = DependencyMissing, f"{text}; compare GOOGLE_CLOUD_PROJECT and REGION with where the jobs were applied"
        elif isinstance(error, Forbidden | Unauthorized | GoogleAuthError):
            kind, text = (
                DependencyForbidden,
                f"{text}; the controller needs the custom role fanoutController, a person fanoutOperator, or roles/run.developer",
            )
        raise kind(text) from error

    def _in_words(self, error: Exception) -> str:
        """The error in one line."""
        from requests.exceptions import ConnectionError as NotConnected
        from requests.exceptions import Timeout

        if isinstance(error, NotConnected | Timeout):
            return no_answer(self._url, error, emulated=self._emulated)
        if isinstance(error, unreadable()):
            return f"the answer of {self._url} cannot be read, is that Cloud Run? ({short(error)})"
        return short(error)


def rest_options(emulator_url: str) -> dict[str, Any]:
    """For one of Cloud Run's clients; an emulator is called without credentials."""
    if not emulator_url:
        return {"transport": "rest", "client_info": client_info()}
    from google.auth.credentials import AnonymousCredentials

    endpoint = {"api_endpoint": emulator_url.rstrip("/")}
    return {"transport": "rest", "credentials": AnonymousCredentials(), "client_options": endpoint, "client_info": client_info()}


def execution_info(execution: Any) -> ExecutionInfo:
    """From a v2 Execution."""
    why, since = _cannot_start(execution)
    return ExecutionInfo(
        full_name=str(execution.name),
        task_count=int(execution.task_count),
        created_at=float(execution.create_time.timestamp()),
        started_at=_unix(execution.start_time),
        completed_at=_unix(execution.completion_time),
        running_count=int(execution.running_count),
        succeeded_count=int(execution.succeeded_count),
        failed_count=int(execution.failed_count),
        cancelled_count=int(execution.cancelled_count),
        retried_count=int(execution.retried_count),
        env=_worker_env([_container(one) for one in execution.template.containers]),
        cannot_start=why,
        cannot_start_since=since,
    )


def _cannot_start(execution: Any) -> tuple[str, float | None]:
    """Why no worker of it can start, in Cloud Run's words, and since when it is known; empty where one has begun, and where its conditions
    leave it open: a start that is awaited, or tried again at once, may still come. One that is tried again later waits for a person who
    mends the quota, or the subnet."""
    if execution.running_count or execution.succeeded_count or execution.failed_count or execution.retried_count:
        return "", None
    failed = [
        one
        for one in execution.conditions
        if _name(one.state) == "CONDITION_FAILED" and _name(one.severity) not in _MILD and not {*_reasons(one)} & _NO_REASONS
    ]
    # What the execution as a whole says repeats what one of its parts does, with fewer words.
    said = min(failed, key=lambda one: one.type_ == "Completed", default=None)
    if said is None:
        return "", None
    return str(said.message) or " ".join(_reasons(said)) or f"its condition {said.type_} has failed", _unix(said.last_transition_time)


def _reasons(condition: Any) -> list[str]:
    """Why it is in this state; at most one is said."""
    return [_name(one) for one in (condition.reason, condition.execution_reason) if one]


def _name(value: Any) -> str:
    """Of an enum's value; empty for one that the client does not know."""
    return str(getattr(value, "name", ""))


def worker_info(task: Any) -> WorkerInfo:
    """From a v2 Task."""
    result = task.last_attempt_result if "last_attempt_result" in task else None
    return WorkerInfo(
        index=int(task.index),
        retried_count=int(task.retried),
        started_at=_unix(task.start_time),
        completed_at=_unix(task.completion_time),
        exit_code=None if result is None or result.term_signal else int(result.exit_code),
        term_signal=int(result.term_signal) or None if result is not None else None,
        message=str(result.status.message) if result is not None else "",
        log_uri=str(task.log_uri),
    )


def _container(found: Any) -> Container:
    """From a v2 Container. Plain values only: secrets are not read."""
    env = {str(one.name): str(one.value) for one in found.env if "value_source" not in one}
    return Container(str(found.name), str(found.image), (*map(str, found.command), *map(str, found.args)), env)


def _worker_env(containers: Sequence[Container]) -> Mapping[str, str]:
    return containers[worker_at(containers)].env if containers else {}


def _unix(moment: Any) -> float | None:
    return float(moment.timestamp()) if moment else None
