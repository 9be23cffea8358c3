"""A small process that outlives a killed supervisor for a moment and ends the processes that it left.

Services exit by themselves when the supervisor is gone; a frozen one cannot, and a killed Run leaves its workers. A process is signalled
only when it has the start time that was noted, as its id may belong to another process by now.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from local_cloud.processes import runs, start_mark
from local_cloud.run.runner.leftovers import recorded_workers

GRACE_S = 10.0
"""How long the services may take to exit."""
_STEP_S = 0.02

Marks = dict[int, str]
"""Process ids, each with its `start_mark`."""


class Watchman:
    """The supervisor's side. The process exits after `stop`, or when this process is gone."""

    def __init__(self, state_dir: Path, environment: Mapping[str, str], log: Path, held: Sequence[int] = ()) -> None:
        """`held`: open files that the process keeps open as long as it runs."""
        command = [sys.executable, "-m", "local_cloud.supervisor.watchman", str(state_dir)]
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env=dict(environment),
                pass_fds=tuple(held),
                start_new_session=True,
            )
        self.pid = self._process.pid

    def note(self, pid: int) -> None:
        """Have this process ended too if it outlives the supervisor."""
        stdin = self._process.stdin
        assert stdin is not None, "the process is started with a pipe"
        # Without a watchman nothing cleans up after a kill of the supervisor, which is no reason to stop the services.
        with contextlib.suppress(BrokenPipeError):
            os.write(stdin.fileno(), f"{pid} {start_mark(pid)}\n".encode())

    def stop(self) -> None:
        """Called when all services have exited: the watchman finds nothing to do."""
        stdin = self._process.stdin
        assert stdin is not None, "the process is started with a pipe"
        stdin.close()
        self._process.wait()


def watch(state_dir: Path, lines: Callable[[], str]) -> None:
    """Note the processes of `lines` ("<pid> <start mark>") until an empty line, which means that the supervisor is gone; then end them, and
    the workers on record of the local Cloud Run."""
    services: Marks = {}
    while line := lines():
        noted, _, mark = line.strip().partition(" ")
        services[int(noted)] = mark
    services = still_there(services)
    records = state_dir / "run" / "processes"
    workers = recorded_workers(records)
    for pid in services:
        # A frozen service continues here, sees that its supervisor is gone, and exits.
        _signal(os.kill, pid, signal.SIGCONT)
    tick = threading.Event()
    for _ in range(int(GRACE_S / _STEP_S)):
        services = still_there(services)
        if not services:
            break
        tick.wait(_STEP_S)
    for pid in services:
        _signal(os.kill, pid, signal.SIGKILL)
    if services:
        workers |= recorded_workers(records)
    for pid in still_there(workers):
        _signal(os.killpg, pid, signal.SIGKILL)


def still_there(marks: Marks) -> Marks:
    return {pid: mark for pid, mark in marks.items() if runs(pid, mark)}


def _signal(send: Callable[[int, int], None], pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        send(pid, number)


if __name__ == "__main__":
    watch(Path(sys.argv[1]), sys.stdin.readline)
