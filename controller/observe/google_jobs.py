"""Cloud Run Jobs through Google's v2 client over REST: the same transport in production and against the local cloud.

Every answer becomes one of our values and every failure one of our errors; nothing waits for an operation to end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, NoReturn

from batch.model.errors import DependencyForbidden, DependencyMissing, DependencyUnavailable, FanoutError
from controller.model.execution import ExecutionInfo, WorkerInfo
from controller.observe.jobs import (
    LANE_LABEL,
    JobInfo,
    LaunchRefused,
    LaunchThrottled,
    LaunchUnclear,
    RunRequest,
)

PAGE = 100
WORKERS_PAGE = 1000
TIMEOUT_S = 30.0
ANNOTATION_TRIES = 5
_UNCLEAR_STATUS = frozenset({408, 499})
"""The 4xx that do not say whether the call took effect."""
_BYTES = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "": 1}


class GoogleJobRunner:
    """The jobs of one project and region."""

    def __init__(self, project: str, region: str, *, emulator_url: str = "", timeout_s: float = TIMEOUT_S) -> None:
        """`emulator_url`, such as `http://127.0.0.1:1234`, is called without credentials."""
        from google.cloud import run_v2

        options = rest_options(emulator_url)
        self._run_v2 = run_v2
        self._jobs = run_v2.JobsClient(**options)
        self._executions = run_v2.ExecutionsClient(**options)
        self._tasks = run_v2.TasksClient(**options)
        self._url = emulator_url.rstrip("/") or f"https://{self._jobs.api_endpoint}"
        self._emulated = bool(emulator_url)
        self._parent = f"projects/{project}/locations/{region}"
        self._timeout_s = timeout_s

    def jobs(self) -> list[JobInfo]:
        with self._translated(f"cannot list the jobs of {self._parent}"):
            found = self._jobs.list_jobs(request={"parent": self._parent, "page_size": PAGE}, timeout=self._timeout_s)
            return [job_info(job) for job in found if LANE_LABEL in job.labels]

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
        except _failures() as error:
            raise launch_error(error, job, self._in_words(error)) from error
        try:
            return execution_info(operation.metadata)
        except (AttributeError, TypeError, ValueError) as error:
            raise LaunchUnclear(f"Cloud Run took the launch of {job} and its answer named no execution: {error}") from error

    def set_annotation(self, job: str, key: str, value: str) -> None:
        """Reads the job and replaces it: the API has no call for a part of it. The etag protects changes of others: the job is then read
        again. Does not wait for the operation: an annotation starts nothing."""
        from google.api_core.exceptions import Aborted, Conflict

        for try_number in range(1, ANNOTATION_TRIES + 1):
            try:
                found = self._jobs.get_job(request={"name": job}, timeout=self._timeout_s)
                found.annotations[key] = value
                self._jobs.update_job(request={"job": found}, retry=None, timeout=self._timeout_s)
                return
            except (Aborted, Conflict) as error:
                if try_number == ANNOTATION_TRIES:
                    self._raise(error, f"cannot set {key} of {job}, which somebody else keeps changing")
            except _failures() as error:
                self._raise(error, f"cannot set {key} of {job}")

    def close(self) -> None:
        self._jobs.transport.close()
        self._executions.transport.close()
        self._tasks.transport.close()

    def _run_request(self, job: str, request: RunRequest) -> Any:
        overrides: dict[str, Any] = {"task_count": request.task_count}
        if request.env:
            overrides["container_overrides"] = [{"env": [{"name": name, "value": value} for name, value in request.env.items()]}]
        return self._run_v2.RunJobRequest(name=job, overrides=overrides)

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        try:
            yield
        except _failures() as error:
            self._raise(error, what)

    def _raise(self, error: Exception, what: str) -> NoReturn:
        from google.api_core.exceptions import Forbidden, NotFound, Unauthorized
        from google.auth.exceptions import GoogleAuthError

        text = f"{what}: {self._in_words(error)}"
        kind: type[FanoutError] = DependencyUnavailable
        if isinstance(error, NotFound):
            kind, text = DependencyMissing, f"{text}; compare GOOGLE_CLOUD_PROJECT and REGION with where the jobs were applied"
        elif isinstance(error, Forbidden | Unauthorized | GoogleAuthError):
            kind, text = DependencyForbidden, f"{text}; the controller's service account needs roles/run.developer"
        raise kind(text) from error

    def _in_words(self, error: Exception) -> str:
        """The error in one line."""
        from requests.exceptions import ConnectionError as NotConnected
        from requests.exceptions import Timeout

        if isinstance(error, NotConnected | Timeout):
            return no_answer(self._url, error, emulated=self._emulated)
        if isinstance(error, _unreadable()):
            return f"the answer of {self._url} cannot be read, is that Cloud Run? ({_short(error)})"
        return _short(error)


def rest_options(emulator_url: str) -> dict[str, Any]:
    """For one of Cloud Run's clients; an emulator is called without credentials."""
    if not emulator_url:
        return {"transport": "rest"}
    from google.auth.credentials import AnonymousCredentials

    return {"transport": "rest", "credentials": AnonymousCredentials(), "client_options": {"api_endpoint": emulator_url.rstrip("/")}}


def job_info(job: Any) -> JobInfo:
    """From a v2 Job."""
    template = job.template.template
    container = template.containers[0] if template.containers else None
    limits = dict(container.resources.limits) if container is not None else {}
    return JobInfo(
        full_name=str(job.name),
        uid=str(job.uid),
        labels={str(key): str(value) for key, value in job.labels.items()},
        annotations={str(key): str(value) for key, value in job.annotations.items()},
        env=_env(container),
        task_timeout_s=float(template.timeout.total_seconds()) if template.timeout else 600.0,
        parallelism=int(job.template.parallelism),
        max_retries=int(template.max_retries),
        vcpu=cpus(str(limits.get("cpu", "1"))),
        memory_gib=gibibytes(str(limits.get("memory", "512Mi"))),
        execution_count=int(job.execution_count),
        latest_execution=str(job.latest_created_execution.name).rsplit("/", 1)[-1],
    )


def execution_info(execution: Any) -> ExecutionInfo:
    """From a v2 Execution."""
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
        env=_env(execution.template.containers[0] if execution.template.containers else None),
    )


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


def cpus(text: str) -> float:
    """`2`, `0.5` or `1000m`. Raises ValueError."""
    return float(text[:-1]) / 1000 if text.endswith("m") else float(text)


def gibibytes(text: str) -> float:
    """`512Mi`, `2Gi`, `1G` or bytes. Raises ValueError."""
    number = text.rstrip("KMGTki")
    unit = text[len(number) :]
    if unit not in _BYTES:
        raise ValueError(f"memory {text!r}: a number with Ki, Mi, Gi, k, M or G")
    return float(number) * _BYTES[unit] / 2**30


def _env(container: Any) -> Mapping[str, str]:
    """Plain values only: secrets are not read."""
    return {str(one.name): str(one.value) for one in container.env if "value_source" not in one} if container is not None else {}


def _unix(moment: Any) -> float | None:
    return float(moment.timestamp()) if moment else None


@cache
def _failures() -> tuple[type[Exception], ...]:
    """Everything that a call may raise, also if the answer is not Cloud Run's."""
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError
    from requests.exceptions import RequestException

    return (GoogleAPIError, GoogleAuthError, RequestException, *_unreadable())


@cache
def _unreadable() -> tuple[type[Exception], ...]:
    """What the client and the code here raise on bodies that are not JSON, or lack what Cloud Run always sends."""
    from google.protobuf.json_format import Error

    return (Error, AttributeError, KeyError, TypeError, ValueError)


def launch_error(error: Exception, job: str, words: str) -> LaunchRefused | LaunchUnclear:
    """The error of a failed launch: `LaunchRefused` only if it certainly did nothing, which a lost answer, a timeout or a 5xx does not say.
    `words` is the error in one line."""
    from google.api_core.exceptions import ClientError, Forbidden, GoogleAPICallError, TooManyRequests
    from google.auth.exceptions import GoogleAuthError

    code = error.code if isinstance(error, GoogleAPICallError) else None
    text = f"Cloud Run refused to run {job}: {words}"
    if isinstance(error, Forbidden):
        return LaunchRefused(
            f"{text}; grant the controller's service account roles/run.jobsExecutorWithOverrides on the job, roles/run.invoker lacks "
            f"run.jobs.runWithOverrides"
        )
    if isinstance(error, TooManyRequests):
        return LaunchThrottled(f"{text}; see the quota of job run requests per minute in this region, and RUN_CALLS_PER_MINUTE")
    if isinstance(error, GoogleAuthError) or (isinstance(error, ClientError) and code not in _UNCLEAR_STATUS):
        return LaunchRefused(text)
    return LaunchUnclear(f"no usable answer to the launch of {job}: {words}")


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"


def no_answer(url: str, error: Exception, *, emulated: bool) -> str:
    """One line for a person: Cloud Run at `url` did not answer a request that failed with `error` (of `requests`), and what to do."""
    local, real = "is the local cloud up, and CLOUD_RUN_EMULATOR_HOST its address?", "look at the network and at REGION, try again"
    return f"Cloud Run at {url} does not answer ({_why(error)}): {local if emulated else real}"


def _why(error: Exception) -> str:
    """The operating system's own text, which the clients wrap several times; else the kind of the error."""
    found = type(error).__name__
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            found = cause.strerror
        cause = cause.__cause__ or cause.__context__
    return found
