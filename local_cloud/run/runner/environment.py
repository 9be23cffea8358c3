"""What a worker is started with: its command line and its environment.

A worker sees nothing of the server's environment but the names listed here and those passed on request, so that a setting
which works locally only because a shell happened to have it does not go unnoticed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping

from local_cloud.run.model.execution import Execution, Task
from local_cloud.run.spec.template import Container

INHERITED = ("PATH", "HOME", "LANG", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV")


def base_environment(server: Mapping[str, str], passed: Iterable[str]) -> dict[str, str]:
    """What every worker gets; `passed` are more names to take from `server`, which may be unset there."""
    base = {name: server[name] for name in (*INHERITED, *passed) if name in server}
    base["PYTHONUNBUFFERED"] = "1"  # a killed worker's last lines are in its log
    return base


def worker_environment(base: Mapping[str, str], execution: Execution, task: Task) -> dict[str, str]:
    """`base`, then the container's own, then what Cloud Run says about the try, which always wins."""
    container = execution.template.containers[0]
    return {
        **base,
        **dict(container.env),
        "CLOUD_RUN_JOB": execution.key.job,
        "CLOUD_RUN_EXECUTION": execution.name,
        "CLOUD_RUN_TASK_INDEX": str(task.index),
        "CLOUD_RUN_TASK_COUNT": str(execution.template.task_count),
        "CLOUD_RUN_TASK_ATTEMPT": str(task.attempt),
    }


def command_line(container: Container) -> list[str]:
    """The container's command and arguments; `python` means the interpreter that the server runs on, with its packages."""
    words = [*container.command, *container.args]
    if words[0] in ("python", "python3"):
        words[0] = sys.executable
    return words
