"""The worker processes that the local Cloud Run has running now: which process is which try of which worker.

Read from the service's records and each process's own environment; a worker that ends meanwhile is left out.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from local_cloud.run.runner.leftovers import recorded_workers

_VARIABLES = ("CLOUD_RUN_JOB", "CLOUD_RUN_EXECUTION", "CLOUD_RUN_TASK_INDEX", "CLOUD_RUN_TASK_ATTEMPT")


@dataclass(frozen=True, slots=True)
class RunningWorker:
    """One try of one worker, with its process id."""

    pid: int
    job: str
    execution: str
    index: int
    retry: int


def running_workers(state_dir: Path) -> list[RunningWorker]:
    """The running workers of the local cloud in `state_dir`, by job, execution and index."""
    found = [_worker(pid) for pid in recorded_workers(state_dir / "run" / "processes")]
    workers = [worker for worker in found if worker is not None]
    return sorted(workers, key=lambda worker: (worker.job, worker.execution, worker.index))


def _worker(pid: int) -> RunningWorker | None:
    environment = _environment(pid)
    if not all(name in environment for name in _VARIABLES):
        return None
    job, execution, index, retry = (environment[name] for name in _VARIABLES)
    return RunningWorker(pid, job, execution, int(index), int(retry))


def _environment(pid: int) -> dict[str, str]:
    """The values of _VARIABLES that the process started with; empty when it is gone."""
    if Path("/proc/self/environ").exists():
        try:
            text = (Path("/proc") / str(pid) / "environ").read_bytes().decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            return {}
        pairs = (entry.partition("=") for entry in text.split("\0"))
        return {name: value for name, _, value in pairs if name in _VARIABLES}
    listed = subprocess.run(["ps", "-Eww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return dict(re.findall(rf"\b({'|'.join(_VARIABLES)})=(\S+)", listed.stdout))
