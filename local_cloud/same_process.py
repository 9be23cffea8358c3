"""Whether a process that was noted by id and time of start still runs.

The rule: an id alone says nothing, as it may belong to a stranger by now; and a zombie, which only waits for somebody to
reap it, does not run.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from local_cloud.processes import start_mark


def runs(pid: int, mark: str | None) -> bool:
    """`mark`: what `start_mark` said when the process was noted."""
    return mark is not None and start_mark(pid) == mark and not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """True as well when it has gone meanwhile."""
    if Path("/proc/self/stat").exists():
        try:
            return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except (FileNotFoundError, ProcessLookupError):
            return True
    listed = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return listed.stdout.strip()[:1] in ("", "Z")
