"""A job as the platform keeps it: its identity, what the client wrote, and how often it ran.

A value: every change makes a new one, so that a reader never sees half of a change. The etag changes with every write of a client, not with
the runs.
"""

from __future__ import annotations

from dataclasses import dataclass

from local_cloud.run.spec.template import JobSpec


@dataclass(frozen=True, order=True)
class JobKey:
    """Where a job lives; jobs of two projects or regions may share a name."""

    project: str
    region: str
    job: str

    @property
    def parent(self) -> str:
        return f"projects/{self.project}/locations/{self.region}"

    @property
    def name(self) -> str:
        return f"{self.parent}/jobs/{self.job}"


@dataclass(frozen=True)
class Job:
    """`execution_count` counts all runs ever; `delete_s` is set while a deleted job waits for its executions to end."""

    key: JobKey
    uid: str
    spec: JobSpec
    generation: int
    create_s: float
    update_s: float
    execution_count: int = 0
    delete_s: float | None = None

    @property
    def etag(self) -> str:
        return f'"{self.uid[:8]}-{self.generation}"'
