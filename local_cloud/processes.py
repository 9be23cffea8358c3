"""Whether a process that was noted earlier still runs: an id alone says nothing, as it may belong to a stranger by now."""

from __future__ import annotations

import subprocess
from pathlib import Path

_PROC = Path("/proc")
_STATE_FIELD, _START_TIME_FIELD = 0, 19
"""Of /proc/<pid>/stat, counted behind the command, which stands in parentheses."""


def start_mark(pid: int) -> str | None:
    """When the process began, as a text that is equal for the same process only; None if there is no such process."""
    if not _has_proc():
        return _ps(pid, "lstart=") or None
    fields = _stat(pid)
    if fields is None:
        return None
    boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{fields[_START_TIME_FIELD]}"


def runs(pid: int, mark: str | None) -> bool:
    """Whether the process that had this id and this `start_mark` still runs. A zombie, which only waits to be reaped, does not."""
    return mark is not None and start_mark(pid) == mark and not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """Also true of a process that is gone."""
    if not _has_proc():
        return _ps(pid, "stat=")[:1] in ("", "Z")
    fields = _stat(pid)
    return fields is None or fields[_STATE_FIELD] == "Z"


def _has_proc() -> bool:
    return (_PROC / "self" / "stat").exists()


def _stat(pid: int) -> list[str] | None:
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def _ps(pid: int, column: str) -> str:
    listed = subprocess.run(["ps", "-o", column, "-p", str(pid)], capture_output=True, text=True, check=False)
    return listed.stdout.strip()
