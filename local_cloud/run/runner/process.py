"""The worker processes: started in groups of their own, signalled as groups, reaped by one waiting thread each.

A signal only goes to a group whose leader has not been reaped: a recycled process id is never hit. What a leader leaves in its group dies
with it, as in a container; what has left the group is ended soon after.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from local_cloud.run.model.task import Measured
from local_cloud.run.runner.leftovers import LOG_MARK, Records, kill_rest
from local_cloud.run.runner.memory import PeakMemory
from local_cloud.run.runner.sweeper import Sweeper


@dataclass(frozen=True)
class TryKey:
    """One try of one task."""

    execution: str
    index: int
    attempt: int


@dataclass(frozen=True)
class Launch:
    """What to start: `argv` with this `env` and the mark of its log, output to the end of `log`."""

    argv: Sequence[str]
    env: Mapping[str, str]
    log: Path
    cwd: Path


class CannotStart(Exception):
    """The command does not exist or cannot be executed; the worker's log has the reason too."""


OnExit = Callable[[TryKey, int, Measured], None]


class Processes:
    """All workers of the server. A waiting thread calls `on_exit(key, code, measured)` once per worker, after its group is gone; `code` is
    the exit code, or minus the signal's number."""

    def __init__(self, records: Records, on_exit: OnExit) -> None:
        self._records = records
        self._on_exit = on_exit
        self._lock = threading.Lock()
        self._running: dict[TryKey, subprocess.Popen[bytes]] = {}
        self._waiters: set[threading.Thread] = set()
        self._memory = PeakMemory()
        self._sweeper = Sweeper(kill_rest)

    def spawn(self, key: TryKey, launch: Launch) -> None:
        """Raises CannotStart."""
        process = _start(launch)
        self._records.add(process.pid)
        self._memory.begin(process.pid)
        waiter = threading.Thread(target=self._wait, args=(key, process, _log_name(launch)), name=f"wait-{process.pid}", daemon=True)
        with self._lock:
            self._running[key] = process
            self._waiters.add(waiter)
        waiter.start()

    def signal(self, key: TryKey, number: signal.Signals) -> None:
        """Send to the worker's whole group; does nothing if the worker has ended."""
        with self._lock:
            process = self._running.get(key)
            if process is not None:
                _signal_group(process.pid, number)

    def pids(self) -> dict[TryKey, int]:
        """The process ids of all workers that run now."""
        with self._lock:
            return {key: process.pid for key, process in self._running.items()}

    def close(self) -> None:
        """SIGKILL to every worker, and wait until all are reaped and reported."""
        with self._lock:
            for process in self._running.values():
                _signal_group(process.pid, signal.SIGKILL)
            waiters = list(self._waiters)
        for waiter in waiters:
            waiter.join()
        self._sweeper.close()
        self._memory.close()

    def _wait(self, key: TryKey, process: subprocess.Popen[bytes], log: str) -> None:
        ended = _wait_without_reaping(process)
        with self._lock:
            # The dead leader still holds the group's id here, so this reaches its own children only.
            _signal_group(process.pid, signal.SIGKILL)
            code, used = ended or _reap(process)
            del self._running[key]
        self._sweeper.sweep(log)
        self._records.remove(process.pid)
        measured = Measured(used.ru_utime + used.ru_stime, self._memory.end(process.pid, used))
        self._on_exit(key, code, measured)
        with self._lock:
            self._waiters.discard(threading.current_thread())


def _start(launch: Launch) -> subprocess.Popen[bytes]:
    """Raises CannotStart for every reason: a full disk, too many open files, an argument that no process can have."""
    try:
        with launch.log.open("ab") as log:
            try:
                return subprocess.Popen(
                    list(launch.argv),
                    env={**launch.env, LOG_MARK: _log_name(launch)},
                    cwd=launch.cwd,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            except (OSError, ValueError) as error:
                log.write(f"{_why_not(launch, error)}\n".encode())
                raise
    except (OSError, ValueError) as error:
        raise CannotStart(_why_not(launch, error)) from error


def _log_name(launch: Launch) -> str:
    return str(launch.log.resolve())


def _why_not(launch: Launch, error: OSError | ValueError) -> str:
    return f"cannot start {launch.argv[0]!r} in {launch.cwd}: {getattr(error, 'strerror', None) or error}"


Ended = tuple[int, resource.struct_rusage]


def _wait_without_reaping(process: subprocess.Popen[bytes]) -> Ended | None:
    if hasattr(os, "waitid"):
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        return None
    return _reap(process)  # macOS before Python 3.13: the id is free for a moment before the group is swept


def _reap(process: subprocess.Popen[bytes]) -> Ended:
    """The exit code, or minus the signal's number, and what the worker used."""
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)  # Popen has not seen this exit and would wait for it
    return process.returncode, used


def _signal_group(pid: int, number: signal.Signals) -> None:
    # macOS answers EPERM for a group of which only a zombie is left.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
