"""The lock on a state folder: one local cloud at a time, also while one starts or what a killed one left is being cleaned up.

The lock is the system's (`flock`). The supervisor and its watchman hold it, so that it outlives a killed supervisor until its services and
workers are gone.
"""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

from local_cloud.processes import runs, start_mark

FILE = "lock"
WAIT_S = 15.0
"""How long to wait for the processes of a killed local cloud: a little longer than its watchman takes."""
_STEP_S = 0.05


class InUse(Exception):
    """Another local cloud uses the folder; the message says which, and what to do."""


class FolderLock:
    """Not held before `take`; used from one thread."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self.file: int | None = None
        """The open file; a process that inherits it holds the lock too."""

    def take(self) -> None:
        """Raises InUse: at once when another supervisor runs, otherwise when the processes of a killed one are not gone within WAIT_S."""
        file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            self._wait_for(file)
        except BaseException:
            os.close(file)
            raise
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()} {start_mark(os.getpid())}".encode(), 0)
        self.file = file

    def _wait_for(self, file: int) -> None:
        tick = threading.Event()
        for _ in range(int(WAIT_S / _STEP_S)):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                pid, _, mark = os.pread(file, 200, 0).decode().partition(" ")
            if pid and runs(int(pid), mark):
                raise InUse(f"another local cloud uses {self._path.parent} (process {pid}): end that one, or name another folder")
            tick.wait(_STEP_S)
        raise InUse(f"what a killed local cloud left in {self._path.parent} has not ended within {WAIT_S:g} s: see watchman.log there")

    def release(self) -> None:
        """Does nothing when the lock is not held."""
        if self.file is not None:
            os.close(self.file)
            self.file = None
