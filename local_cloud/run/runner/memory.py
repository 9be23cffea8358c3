"""The peak memory of running processes, looked up a few times a second where the system shows it (Linux).

Needed beside `wait4`: the kernel counts the server's own pages for a worker until it has executed its program, so `wait4` reports the
server's size for a small worker.
"""

from __future__ import annotations

import resource
import sys
import threading
from pathlib import Path

EVERY_S = 0.25
_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss


class PeakMemory:
    """`begin` and `end` each process once; safe from several threads. `close` stops the thread that looks."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._seen: dict[int, int] = {}
        self._closed = False
        self._thread: threading.Thread | None = None

    def begin(self, pid: int) -> None:
        with self._condition:
            self._seen[pid] = _peak_bytes(pid)
            if self._thread is None:
                self._thread = threading.Thread(target=self._look, name="memory", daemon=True)
                self._thread.start()
            self._condition.notify_all()

    def end(self, pid: int, ended: resource.struct_rusage) -> int | None:
        """Bytes: from `wait4` where they can only be the worker's own, else as last seen; None when never seen."""
        with self._condition:
            seen = self._seen.pop(pid)
        told = ended.ru_maxrss * _UNIT_BYTES
        if told > resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT_BYTES:
            return told
        return seen or None

    def close(self) -> None:
        with self._condition:
            self._closed = True
            self._condition.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _look(self) -> None:
        with self._condition:
            while not self._closed:
                for pid, before in self._seen.items():
                    self._seen[pid] = max(before, _peak_bytes(pid))
                self._condition.wait(EVERY_S if self._seen else None)


def _peak_bytes(pid: int) -> int:
    """0 where it cannot be seen: on another system, or of a process that has ended."""
    try:
        text = (Path("/proc") / str(pid) / "status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    _, found, rest = text.partition("VmHWM:")
    return int(rest.split()[0]) * 1024 if found else 0
