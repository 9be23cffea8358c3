"""Jobs and executions on disk: their records and events in the service's database, the logs of their workers as files beside it.

What a client was told is on disk before.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import astuple, fields
from enum import Enum
from pathlib import Path
from typing import Any

from local_cloud.database import Database
from local_cloud.run.model.execution import Execution
from local_cloud.run.model.job import Job, JobKey
from local_cloud.run.model.secret_files import Secrets
from local_cloud.run.model.task import Event, Kind, Reason
from local_cloud.run.spec.fields import Fields, Problems
from local_cloud.run.spec.manifest import read_spec, write_manifest
from local_cloud.run.spec.template import JobSpec

_VERSION = 1
# An execution is written once, when it is created; what happens to it later are its events, in their order.
_SCHEMA = """
    CREATE TABLE job (key TEXT PRIMARY KEY, record TEXT NOT NULL);
    CREATE TABLE execution (name TEXT PRIMARY KEY, record TEXT NOT NULL);
    CREATE TABLE event (execution TEXT, number INTEGER, record TEXT NOT NULL, PRIMARY KEY (execution, number)) WITHOUT ROWID
"""
_SAVE_JOB = "INSERT OR REPLACE INTO job VALUES (?, ?)"


class Store:
    """The state folder, of one server at a time. Callers hold the cloud's lock."""

    def __init__(self, folder: Path, secrets: Path | None = None) -> None:
        """`secrets`: the folder of the secrets' files, by default one in `folder`. Raises like `Database`."""
        self.secrets = Secrets(secrets or folder / "secrets")
        self.processes = folder / "processes"
        self._logs = folder / "executions"
        self._logs.mkdir(parents=True, exist_ok=True)
        self._database = Database(folder / "state.db", _SCHEMA, _VERSION)

    def save_job(self, job: Job) -> None:
        self._database.execute(_SAVE_JOB, (job.key.name, _record(job, job.spec)))

    def delete_job(self, key: JobKey) -> None:
        self._database.execute("DELETE FROM job WHERE key = ?", (key.name,))

    def load_jobs(self) -> Iterator[Job]:
        for record in self._records("SELECT record FROM job ORDER BY key"):
            yield Job(key=JobKey(*record.pop("key")), spec=_spec(record.pop("manifest")), **record)

    def save_run(self, execution: Execution, job: Job) -> None:
        """Save a new execution, and its job, whose count it has raised."""
        (self._logs / execution.name).mkdir()
        with self._database.transaction() as connection:
            record = _record(execution, JobSpec(execution.template))
            connection.execute("INSERT INTO execution VALUES (?, ?)", (execution.name, record))
            connection.execute(_SAVE_JOB, (job.key.name, _record(job, job.spec)))

    def append(self, execution: Execution, event: Event) -> None:
        """Save an event that has just been applied to an execution."""
        record = {field.name: value for field in fields(event) if (value := getattr(event, field.name)) != field.default}
        row = (execution.name, execution.version, json.dumps(record, default=_value))
        self._database.execute("INSERT INTO event VALUES (?, ?, ?)", row)

    def delete_execution(self, execution: str) -> None:
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM execution WHERE name = ?", (execution,))
            connection.execute("DELETE FROM event WHERE execution = ?", (execution,))
        shutil.rmtree(self._logs / execution)

    def load_executions(self) -> Iterator[Execution]:
        logs = {path.name for path in self._logs.iterdir()}
        for record in self._records("SELECT record FROM execution"):
            key = JobKey(*record.pop("key"))
            execution = Execution(key=key, template=_spec(record.pop("manifest")).template, **record)
            for event in self._records("SELECT record FROM event WHERE execution = ? ORDER BY number", execution.name):
                reason = event.pop("reason", None)
                execution.apply(Event(kind=Kind(event.pop("kind")), reason=Reason(reason) if reason else None, **event))
            logs.discard(execution.name)
            yield execution
        for name in logs:  # a kill came between the folder and its record, at the creation or at the deletion
            shutil.rmtree(self._logs / name)

    def log_path(self, execution: str, index: int, attempt: int) -> Path:
        return self._logs / execution / f"{index}-{attempt}.log"

    def close(self) -> None:
        self._database.close()

    def _records(self, query: str, *parameters: str) -> list[dict[str, Any]]:
        with self._database.transaction() as connection:
            return [json.loads(record) for (record,) in connection.execute(query, parameters)]


def _record(value: Job | Execution, spec: JobSpec) -> str:
    """The values that it was made with, its spec as a manifest."""
    others = ("key", "spec", "template")
    record = {field.name: getattr(value, field.name) for field in fields(value) if field.init and field.name not in others}
    return json.dumps({**record, "key": astuple(value.key), "manifest": write_manifest(value.key.job, spec)})


def _value(member: Enum) -> object:
    return member.value


def _spec(manifest: object) -> JobSpec:
    problems = Problems()
    spec = read_spec(Fields(manifest, "", problems))
    problems.raise_if_any()
    return spec
