"""The jobs and executions of the local cloud, and what a client may do with them, whichever version of the API it speaks.

All state is read and changed with `condition` held, and every change is in the store before a client sees it.
"""

from __future__ import annotations

import random
import string
import threading
import uuid
from dataclasses import replace

from local_cloud.clock import Clock
from local_cloud.run.model.execution import Execution
from local_cloud.run.model.job import Job, JobKey
from local_cloud.run.model.store import Store
from local_cloud.run.model.task import Event, Kind
from local_cloud.run.spec.errors import ApiError, check_etag, not_found
from local_cloud.run.spec.fields import Problems
from local_cloud.run.spec.template import JobSpec, Overrides, Template, main_of, override
from local_cloud.run.spec.validation import Paths, check_delayed_timeout, check_overrides, check_place, check_template

RETAINED_COUNT = 1000  # finished executions per job, as the quotas page says
DELAYED_START_S = 3600.0
_LETTERS = string.ascii_lowercase + string.digits


class Cloud:
    """Loads what the store holds. The runner applies what happens to workers through `record`. `address`: the URL of this server, where
    logs are read; set once it is known. `delayed_start_s`: how late executions of delayed jobs start."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        rng: random.Random,
        retained_count: int = RETAINED_COUNT,
        delayed_start_s: float = DELAYED_START_S,
    ) -> None:
        self.condition = threading.Condition()
        self.clock = clock
        self.store = store
        self._rng = rng
        self._retained_count = retained_count
        self._delayed_start_s = delayed_start_s
        self.address = ""
        self._jobs: dict[JobKey, Job] = {job.key: job for job in store.load_jobs()}
        self._executions: dict[str, Execution] = {}
        self._by_job: dict[JobKey, list[Execution]] = {}
        self._unfinished: dict[str, Execution] = {}
        for execution in sorted(store.load_executions(), key=lambda execution: execution.sequence):
            self._add(execution)
        self._sequence = max((execution.sequence for execution in self._executions.values()), default=0)
        self._finish_interrupted_deletes()
        clock.watch(self.condition)

    def job(self, key: JobKey) -> Job:
        """The job with this key. Raises ApiError NOT_FOUND."""
        job = self._jobs.get(key)
        if job is None:
            raise not_found("JOB", key.name)
        return job

    def has_key(self, key: JobKey) -> bool:
        return key in self._jobs

    def has_job(self, job: Job) -> bool:
        """Whether this very job still exists, and not a later one of the same name."""
        return job.key in self._jobs and self._jobs[job.key].uid == job.uid

    def jobs(self, project: str, region: str | None = None) -> list[Job]:
        """The jobs of one region or of all, in the order of their names."""
        found = [job for key, job in self._jobs.items() if key.project == project and region in (None, key.region)]
        return sorted(found, key=lambda job: job.key)

    def create_job(self, key: JobKey, spec: JobSpec, *, validate_only: bool = False) -> Job:
        """`spec` has been checked. Raises ApiError ALREADY_EXISTS, INVALID_ARGUMENT for a project or region that cannot exist."""
        problems = Problems()
        check_place(key.project, key.region, problems)
        self._check_secrets(spec.template, key, problems)
        problems.raise_if_any()
        with self.condition:
            if key in self._jobs:
                raise ApiError("ALREADY_EXISTS", f"Resource '{key.name}' already exists")
            now_s = self.clock.now()
            return self._put(Job(key, self.new_uid(), spec, 1, now_s, now_s), validate_only)

    def replace_job(self, key: JobKey, spec: JobSpec, *, etag: str = "", allow_missing: bool = False, validate_only: bool = False) -> Job:
        """Raises ApiError NOT_FOUND, ABORTED (etag), INVALID_ARGUMENT (a missing secret) or FAILED_PRECONDITION (being deleted)."""
        with self.condition:
            problems = Problems()
            self._check_secrets(spec.template, key, problems)
            problems.raise_if_any()
            if allow_missing and key not in self._jobs:
                return self.create_job(key, spec, validate_only=validate_only)
            job = self._live_job(key, etag)
            return self._put(replace(job, spec=spec, generation=job.generation + 1, update_s=self.clock.now()), validate_only)

    def delete_job(self, key: JobKey, *, etag: str = "", validate_only: bool = False) -> Job:
        """The job is gone once its executions are; running ones are cancelled. Raises ApiError NOT_FOUND or ABORTED."""
        with self.condition:
            job = self.job(key)
            check_etag(etag, job.etag, key.name)
            deleted = replace(job, delete_s=self.clock.now())
            if not validate_only:
                self._put(deleted, validate_only=False)
                self._delete_executions(key)
            return deleted

    def _delete_executions(self, key: JobKey) -> None:
        for execution in self.executions(key):
            self._delete(execution)
        self._drop_job_if_done(key)

    def _live_job(self, key: JobKey, etag: str) -> Job:
        job = self.job(key)
        check_etag(etag, job.etag, key.name)
        if job.delete_s is not None:
            raise ApiError("FAILED_PRECONDITION", f"Resource '{key.name}' is being deleted; wait until it is gone")
        return job

    def _put(self, job: Job, validate_only: bool) -> Job:
        if not validate_only:
            self.store.save_job(job)
            self._jobs[job.key] = job
        return job

    def _check_secrets(self, template: Template, key: JobKey, problems: Problems) -> None:
        """As the real service does when a job is deployed or run."""
        for index, container in enumerate(template.containers):
            for name, ref in self.store.secrets.missing(container.env):
                problems.add(f"containers[{index}].env {name}", ref.name, self.store.secrets.why(ref, key.project))

    def run_job(
        self, key: JobKey, overrides: Overrides, paths: Paths, *, etag: str = "", validate_only: bool = False, cannot_start: str = ""
    ) -> Execution:
        """A new execution; one that `cannot_start` waits until it is cancelled. Raises ApiError NOT_FOUND, ABORTED (etag),
        INVALID_ARGUMENT, FAILED_PRECONDITION (being deleted)."""
        with self.condition:
            job = self._live_job(key, etag)
            problems = Problems()
            check_overrides(job.spec.template, overrides, paths, problems)
            problems.raise_if_any()
            template, main = override(job.spec.template, overrides), main_of(job.spec.template, overrides)
            check_template(template, paths, problems, main)
            if job.spec.is_delayed:
                check_delayed_timeout(template, paths, problems)
            self._check_secrets(template, key, problems)
            problems.raise_if_any()
            execution = self._new_execution(job, template, main, cannot_start)
            if not validate_only:
                job = replace(job, execution_count=job.execution_count + 1)
                self.store.save_run(execution, job)
                self._sequence = execution.sequence
                self._add(execution)
                self._jobs[key] = job
                self.condition.notify_all()
            return execution

    def execution(self, key: JobKey, name: str) -> Execution:
        """An execution of this job. Raises ApiError NOT_FOUND."""
        execution = self._executions.get(name)
        if execution is None or execution.key != key:
            raise not_found("EXECUTION", f"{key.name}/executions/{name}")
        return execution

    def execution_named(self, name: str, project: str = "") -> Execution:
        """An execution by its name alone, which is unique in the server, or by project and name, as v1 does. Raises ApiError NOT_FOUND."""
        execution = self._executions.get(name)
        if execution is None or project not in ("", execution.key.project):
            raise not_found("EXECUTION", f"namespaces/{project}/executions/{name}" if project else f"executions/{name}")
        return execution

    def execution_of_uid(self, uid: str) -> Execution | None:
        return next((execution for execution in self._executions.values() if execution.uid == uid), None)

    def log_uri(self, execution: Execution) -> str:
        """The address that lists the logs of an execution's workers; with `/<index>` behind it, that of one worker's log."""
        return f"{self.address}/executions/{execution.name}/logs"

    def executions(self, key: JobKey) -> list[Execution]:
        """The executions of one job, newest first."""
        return self._by_job.get(key, [])[::-1]

    def executions_in(self, project: str) -> list[Execution]:
        """The executions of all jobs of a project, newest first."""
        found = [execution for execution in self._executions.values() if execution.key.project == project]
        return sorted(found, key=lambda execution: -execution.sequence)

    def latest_execution(self, key: JobKey) -> Execution | None:
        executions = self._by_job.get(key)
        return executions[-1] if executions else None

    def unfinished(self) -> list[Execution]:
        """The unfinished executions, in the order of their creation."""
        return list(self._unfinished.values())

    def cancel(self, execution: Execution, *, etag: str = "", validate_only: bool = False) -> Execution:
        """Raises ApiError ABORTED (etag) or FAILED_PRECONDITION when it is over. Cancelling again changes nothing."""
        with self.condition:
            check_etag(etag, execution.etag, execution.full_name)
            if execution.is_over:
                raise ApiError("FAILED_PRECONDITION", f"Execution '{execution.full_name}' is complete and cannot be cancelled")
            if execution.cancel_s is None and not validate_only:
                self.record(execution, Event(Kind.CANCEL, self.clock.now()))
            return execution

    def delete(self, execution: Execution, *, etag: str = "", validate_only: bool = False) -> Execution:
        """A running execution is cancelled, and gone once its workers are. Raises ApiError ABORTED (etag)."""
        with self.condition:
            check_etag(etag, execution.etag, execution.full_name)
            if not validate_only:
                self._delete(execution)
            return execution

    def exists(self, execution: Execution) -> bool:
        return self._executions.get(execution.name) is execution

    def record(self, execution: Execution, event: Event) -> None:
        """Apply an event and store it; its consequences (retention, deletes) take place before a client sees it."""
        with self.condition:
            execution.apply(event)
            self.store.append(execution, event)
            if execution.is_over and execution.name in self._unfinished:
                del self._unfinished[execution.name]
                self._tidy(execution)
            self.condition.notify_all()

    def new_uid(self) -> str:
        """An identity as the API gives them out, drawn by the cloud's own rng."""
        return str(uuid.UUID(int=self._rng.getrandbits(128), version=4))

    def _delete(self, execution: Execution) -> None:
        if execution.delete_s is None:
            self.record(execution, Event(Kind.DELETE, self.clock.now()))
        if not execution.is_over and execution.cancel_s is None:
            self.record(execution, Event(Kind.CANCEL, self.clock.now()))
        if execution.is_over and self.exists(execution):
            self._remove(execution)

    def _tidy(self, finished: Execution) -> None:
        if finished.delete_s is not None:
            self._remove(finished)
            self._drop_job_if_done(finished.key)
            return
        over = [execution for execution in self._by_job[finished.key] if execution.is_over]
        for execution in over[: max(0, len(over) - self._retained_count)]:
            self._remove(execution)

    def _remove(self, execution: Execution) -> None:
        self.store.delete_execution(execution.name)
        del self._executions[execution.name]
        self._by_job[execution.key].remove(execution)
        self.condition.notify_all()

    def _drop_job_if_done(self, key: JobKey) -> None:
        job = self._jobs.get(key)
        if job is not None and job.delete_s is not None and not self._by_job.get(key):
            self.store.delete_job(key)
            del self._jobs[key]
            self._by_job.pop(key, None)
            self.condition.notify_all()

    def _finish_interrupted_deletes(self) -> None:
        with self.condition:
            for execution in list(self._executions.values()):
                if execution.delete_s is not None or execution.key not in self._jobs:
                    self._delete(execution)
            for key, job in list(self._jobs.items()):
                if job.delete_s is not None:
                    self._delete_executions(key)

    def _add(self, execution: Execution) -> None:
        self._executions[execution.name] = execution
        self._by_job.setdefault(execution.key, []).append(execution)
        if not execution.is_over:
            self._unfinished[execution.name] = execution

    def _new_execution(self, job: Job, template: Template, main: int, cannot_start: str) -> Execution:
        now_s = self.clock.now()
        return Execution(
            key=job.key,
            name=self._execution_name(job.key.job),
            uid=self.new_uid(),
            job_uid=job.uid,
            job_generation=job.generation,
            sequence=self._sequence + 1,
            create_s=now_s,
            template=template,
            main=main,
            not_before_s=now_s + self._delayed_start_s if job.spec.is_delayed else None,
            cannot_start=cannot_start,
        )

    def _execution_name(self, job: str) -> str:
        while True:
            name = f"{job}-{''.join(self._rng.choices(_LETTERS, k=5))}"
            if name not in self._executions:
                return name
