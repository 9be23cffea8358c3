"""Finds the processes that workers leave behind, by records on disk, by their output, and by a mark in their environment; and ends them.

A process is killed only when its start time is the recorded one, as its id may belong to another process by now, or when it belongs to a
log of this state folder: it writes there, or was started by a worker that does. That also finds one that was never recorded, and one that
left its worker's group.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from local_cloud.files import write_atomically
from local_cloud.processes import start_mark

LOG_MARK = "LOCAL_CLOUD_LOG"
"""A worker's environment names its log here, and what it starts inherits that."""


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
        """SIGKILL to the groups of the workers of an earlier server, and to what writes to its logs; returns their ids. Empties the
        folder."""
        killed = []
        for pid, mark in recorded_workers(self._folder).items():
            if start_mark(pid) == mark:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
                    killed.append(pid)
        for path in self._folder.iterdir():
            path.unlink()
        return killed + self.kill_writers()

    def kill_writers(self) -> list[int]:
        """SIGKILL to every process that belongs to a log of this state folder, where the system shows that (Linux); returns their ids."""
        folder = f"{self._logs.resolve()}/"
        return _kill_all(lambda log: log.startswith(folder))

    def _path(self, pid: int) -> Path:
        return self._folder / f"{pid}.json"


def recorded_workers(folder: Path) -> dict[int, str]:
    """The workers on record, whether they still run or not: the start mark of each process id."""
    found: dict[int, str] = {}
    for path in sorted(folder.glob("*.json")):
        with contextlib.suppress(FileNotFoundError):  # it has just ended
            body = json.loads(path.read_text())
            if body["started"] is not None:
                found[int(body["pid"])] = body["started"]
    return found


def kill_rest(logs: Collection[str]) -> list[int]:
    """SIGKILL to every process that belongs to one of these logs, whose workers have ended; returns their ids. Linux only."""
    return _kill_all(lambda log: log in logs)


def _kill_all(is_theirs: Callable[[str], bool]) -> list[int]:
    """Looks again until there is none: a process that was just starting another is not seen together with it."""
    killed: list[int] = []
    while found := [pid for pid in _processes_of(is_theirs) if pid not in killed]:
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        killed += found
    return killed


def _processes_of(is_theirs: Callable[[str], bool]) -> list[int]:
    """The processes with a log that `is_theirs`. The server itself never has one."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or belongs to another user
            if any(map(is_theirs, _logs_of(process))):
                found.append(int(process.name))
    return found


def _logs_of(process: Path) -> Iterator[str]:
    """The files that a process writes its output to, and the log that its environment names."""
    for stream in ("1", "2"):
        with contextlib.suppress(FileNotFoundError):  # the process has closed it, and still runs
            yield os.readlink(process / "fd" / stream)
    _, found, rest = (b"\0" + (process / "environ").read_bytes()).partition(f"\0{LOG_MARK}=".encode())
    if found:
        yield os.fsdecode(rest.partition(b"\0")[0])
