"""One service of the local cloud as a child process: its start, its ready line, its exit.

The child reads a pipe from this process and exits when the pipe closes, so it cannot outlive this process, however that ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue

TAIL_BYTES = 4000
"""How much of a service's standard error the message about its failure quotes."""


class ServiceFailed(Exception):
    """A service did not start, or exited by itself. The message names it, its exit code, and the end of what it logged."""


class Child:
    """Starts at once. A waiting thread calls `on_death(name)` when the process exits without having been asked to."""

    def __init__(
        self,
        name: str,
        options: Sequence[str],
        *,
        state_dir: Path,
        log: Path,
        environment: Mapping[str, str],
        on_death: Callable[[str], None],
    ) -> None:
        """The service's standard error is appended to `log`."""
        self.name = name
        self.log = log
        self._on_death = on_death
        self._stopping = False
        self.frozen = False
        self._lines: SimpleQueue[str] = SimpleQueue()
        command = [sys.executable, "-m", f"local_cloud.{name}", "--state-dir", str(state_dir), "--exit-with-stdin", *options]
        with log.open("ab") as errors:
            self._log_from = errors.tell()
            # A session of its own: Ctrl-C in the terminal reaches only this process, which decides what stops first.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=dict(environment),
                start_new_session=True,
            )
        self.pid = self._process.pid
        self._reader = threading.Thread(target=self._read, name=f"read-{name}", daemon=True)
        self._waiter = threading.Thread(target=self._wait, name=f"wait-{name}", daemon=True)
        self._reader.start()
        self._waiter.start()

    def ready(self, timeout_s: float) -> dict[str, str]:
        """The addresses of the ready line, once it is printed. Raises ServiceFailed."""
        try:
            line = self._lines.get(timeout=timeout_s)
        except Empty:
            raise ServiceFailed(f"{self.name} was not ready within {timeout_s:g} s; {self.tail()}") from None
        try:
            body = json.loads(line)
            return {str(key): str(value) for key, value in body.items()}
        except (ValueError, AttributeError):
            if line:
                raise ServiceFailed(f"{self.name} printed {line[:200]!r} in place of its addresses; {self.tail()}") from None
            self._waiter.join()
            raise ServiceFailed(self.exit_report()) from None

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def exit_report(self) -> str:
        """How the process ended, with the end of its log, for a message."""
        code = self._process.poll()
        how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
        return f"{self.name} (process {self.pid}) {how}; {self.tail()}"

    def tail(self) -> str:
        """The end of what this process logged."""
        with self.log.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(self._log_from, file.tell() - TAIL_BYTES))
            text = _without_frames(file.read().decode(errors="replace").strip())
        return f"its log {self.log} ends with:\n{text}" if text else f"its log {self.log} says nothing"

    def freeze(self) -> None:
        """Stop the process with SIGSTOP, and wait until it stands: its connections stay open, and it answers nothing."""
        self._process.send_signal(signal.SIGSTOP)
        if hasattr(os, "waitid"):  # macOS before Python 3.13 has none: there a last answer may still come
            with contextlib.suppress(ChildProcessError):  # it has ended, and another thread took its exit code
                os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        self.frozen = True

    def thaw(self) -> None:
        """Continue a frozen process."""
        self._process.send_signal(signal.SIGCONT)
        self.frozen = False

    def kill(self) -> None:
        """End the process with SIGKILL and wait until it is gone. `on_death` is not called."""
        self._stopping = True
        self._process.kill()
        self.stop(0)

    def ask_to_stop(self) -> None:
        """Close its standard input; returns at once."""
        self._stopping = True
        if self.frozen:
            self.thaw()
        if self._process.stdin is not None:
            # Nothing is ever written, so closing flushes nothing that a dead reader could refuse.
            self._process.stdin.close()

    def stop(self, timeout_s: float) -> None:
        """Shut the process down; with SIGKILL when that takes longer than `timeout_s`."""
        self.ask_to_stop()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._waiter.join()
        self._reader.join()

    def _read(self) -> None:
        """Queue the first line; read and drop the rest, so that the pipe never fills."""
        out = self._process.stdout
        assert out is not None, "the process is started with a pipe"
        with out, contextlib.suppress(ValueError):
            self._lines.put(out.readline().decode(errors="replace"))
            while out.read(4096):
                pass

    def _wait(self) -> None:
        self._process.wait()
        if not self._stopping:
            self._on_death(self.name)


def _without_frames(text: str) -> str:
    """Keeps only the exception of each traceback: its frames stand in the log."""
    kept: list[str] = []
    inside = False
    for line in text.splitlines():
        if line.startswith("Traceback (most recent call last):"):
            inside = True
        elif inside and line.startswith(" "):
            continue
        else:
            inside = False
            kept.append(line)
    return "\n".join(kept)
