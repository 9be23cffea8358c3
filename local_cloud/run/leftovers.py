"""Finding the workers that a killed server left behind, so that the next one can end them: by records on disk, and by their output.

A process is killed only when its start time is the recorded one, as its id may belong to a stranger by now, or when it writes
to a log of our own state folder: that also finds one that was never recorded, and one that left its worker's group.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from pathlib import Path

from local_cloud.run.files import write_atomically

_START_TIME_FIELD = 19  # of /proc/<pid>/stat, counted from the state, which follows the command in parentheses


class Records:
    """One small file per running worker in `folder`, beside which lie the `executions` with their logs. Safe from several threads, as
    each pid has its own file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._logs = folder.parent / "executions"
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, pid: int) -> None:
        write_atomically(self._path(pid), json.dumps({"pid": pid, "started": start_mark(pid)}))

    def remove(self, pid: int) -> None:
        self._path(pid).unlink(missing_ok=True)

    def kill_leftovers(self) -> list[int]:
        """SIGKILL to the groups of the workers of an earlier server, and to what writes to its logs; returns their ids. Leaves the
        folder empty."""
        killed = []
        for path in sorted(self._folder.iterdir()):
            if path.suffix == ".json":
                record = json.loads(path.read_text())
                pid = int(record["pid"])
                if record["started"] is not None and record["started"] == start_mark(pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(pid, signal.SIGKILL)
                        killed.append(pid)
            path.unlink()
        return killed + self.kill_writers()

    def kill_writers(self) -> list[int]:
        """SIGKILL to every process whose output goes to a log of ours, where the system shows that (Linux); returns their ids."""
        killed = []
        while found := [pid for pid in _writers(f"{self._logs.resolve()}/") if pid not in killed]:
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            killed += found
        return killed

    def _path(self, pid: int) -> Path:
        return self._folder / f"{pid}.json"


def _writers(folder: str) -> list[int]:
    """The processes whose standard output or error is a file below `folder`. The server itself never has one there."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        for stream in ("1", "2"):
            with contextlib.suppress(OSError):  # it has ended, or is somebody else's
                if os.readlink(process / "fd" / stream).startswith(folder):
                    found.append(int(process.name))
                    break
    return found


def start_mark(pid: int) -> str | None:
    """When the process began, as a text that is equal for the same process only; None if there is no such process."""
    proc = Path("/proc")
    if (proc / "self" / "stat").exists():
        try:
            fields = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
            boot = (proc / "sys/kernel/random/boot_id").read_text().strip()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return f"{boot}/{fields[_START_TIME_FIELD]}"
    listed = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return listed.stdout.strip() or None
