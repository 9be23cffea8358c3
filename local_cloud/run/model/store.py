"""Jobs and executions on disk: `jobs/*.json` as manifests, `executions/<name>/` with its template, its events and its logs.

What was reported to a client is on disk before: a job is written in one step, an event as one line at the end of a file.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from local_cloud.files import write_atomically
from local_cloud.run.model.execution import Event, Execution, InvalidEvent, Kind, Reason
from local_cloud.run.model.job import Job, JobKey
from local_cloud.run.spec.errors import ApiError
from local_cloud.run.spec.fields import Fields, Problems
from local_cloud.run.spec.manifest import read_spec, write_manifest
from local_cloud.run.spec.template import JobSpec
from local_cloud.web.refused_start import Damaged


class Store:
    """The state folder. One server at a time; its callers hold the cloud's lock."""

    def __init__(self, folder: Path) -> None:
        self._jobs = folder / "jobs"
        self._executions = folder / "executions"
        self.processes = folder / "processes"
        for part in (self._jobs, self._executions):
            part.mkdir(parents=True, exist_ok=True)

    def save_job(self, job: Job) -> None:
        state = {
            "key": [job.key.project, job.key.region, job.key.job],
            "uid": job.uid,
            "generation": job.generation,
            "create_s": job.create_s,
            "update_s": job.update_s,
            "execution_count": job.execution_count,
            "delete_s": job.delete_s,
            "manifest": write_manifest(job.key.job, job.spec),
        }
        write_atomically(self._job_path(job.key), json.dumps(state, indent=2))

    def delete_job(self, key: JobKey) -> None:
        self._job_path(key).unlink(missing_ok=True)

    def load_jobs(self) -> Iterator[Job]:
        for path in sorted(self._jobs.glob("*.json")):
            with _whole(path):
                state = json.loads(path.read_text())
                job = Job(key=JobKey(*state.pop("key")), spec=_spec(state.pop("manifest")), **state)
            yield job

    def is_free(self, execution: str) -> bool:
        return not (self._executions / execution).exists()

    def save_execution(self, execution: Execution) -> None:
        """Once, when it is created; what happens to it later goes through `append`."""
        folder = self._executions / execution.name
        folder.mkdir()
        state = {
            "key": [execution.key.project, execution.key.region, execution.key.job],
            "name": execution.name,
            "uid": execution.uid,
            "job_uid": execution.job_uid,
            "job_generation": execution.job_generation,
            "sequence": execution.sequence,
            "create_s": execution.create_s,
            "manifest": write_manifest(execution.key.job, JobSpec(execution.template)),
        }
        write_atomically(folder / "execution.json", json.dumps(state, indent=2))

    def append(self, execution: str, event: Event) -> None:
        fields = {"kind": event.kind.value, "at_s": event.at_s, "index": event.index}
        optional = {"exit_code": event.exit_code, "term_signal": event.term_signal, "message": event.message or None}
        optional["reason"] = event.reason.value if event.reason else None
        optional |= {name: getattr(event, name) for name in ("delay_s", "pause_s", "cpu_s", "peak_memory_bytes")}
        fields.update({key: value for key, value in optional.items() if value is not None})
        with self._events_path(execution).open("a") as events:
            events.write(json.dumps(fields) + "\n")

    def delete_execution(self, execution: str) -> None:
        shutil.rmtree(self._executions / execution)

    def load_executions(self) -> Iterator[Execution]:
        for folder in sorted(self._executions.iterdir()):
            described = folder / "execution.json"
            if not described.exists():  # killed between the folder and its file: no client has heard of it
                shutil.rmtree(folder)
                continue
            with _whole(folder):
                state = json.loads(described.read_text())
                key = JobKey(*state.pop("key"))
                execution = Execution(key=key, template=_spec(state.pop("manifest")).template, **state)
                for event in self._events(execution.name):
                    execution.apply(event)
            yield execution

    def log_path(self, execution: str, index: int, attempt: int) -> Path:
        return self._executions / execution / f"{index}-{attempt}.log"

    def _events(self, execution: str) -> Iterator[Event]:
        path = self._events_path(execution)
        if not path.exists():
            return
        text = path.read_text()
        whole = text[: text.rfind("\n") + 1]
        if whole != text:  # a kill cut the last line: nobody was told of that event
            write_atomically(path, whole)
        for line in whole.splitlines():
            fields = json.loads(line)
            kind = Kind(fields.pop("kind"))
            reason = fields.pop("reason", None)
            yield Event(kind=kind, reason=Reason(reason) if reason else None, **fields)

    def _job_path(self, key: JobKey) -> Path:
        return self._jobs / f"{key.project}~{key.region}~{key.job}.json"

    def _events_path(self, execution: str) -> Path:
        return self._executions / execution / "events.jsonl"


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """What cannot be read in it is damage. Raises Damaged."""
    try:
        yield
    except (ApiError, InvalidEvent, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"{path} is damaged ({error}): repair it, or move it away to start without it") from error


def _spec(manifest: object) -> JobSpec:
    problems = Problems()
    spec = read_spec(Fields(manifest, "", problems))
    problems.raise_if_any()
    return spec
