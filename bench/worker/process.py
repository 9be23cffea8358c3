"""A program under measurement, seen from outside: its JSON lines with the time each came, its processor time and its peak memory.

Times are monotonic and of the process that measures. Linux only: it reads /proc.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.page import ROOT

SAMPLE_EVERY_S = 0.05
STOP_LIMIT_S = 20.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "VIRTUAL_ENV")


@dataclass(frozen=True, slots=True)
class Line:
    """A line that a program wrote: when it came (monotonic), and what processor time (s) the program had used by then."""

    came_s: float
    cpu_s: float
    body: Mapping[str, Any]

    @property
    def event(self) -> str:
        return str(self.body.get("event", ""))


@dataclass(slots=True)
class Program:
    """A started program. `lines` grow as it writes; what is not JSON is kept in `text`."""

    process: subprocess.Popen[str]
    began_s: float
    ended_s: float = 0.0
    cpu_s: float = 0.0
    peak_mb: float = 0.0
    lines: list[Line] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _threads: list[threading.Thread] = field(default_factory=list)

    def wait_for(self, event: str, limit_s: float) -> Line:
        """The first line of that event. Raises RuntimeError when the program ends, or the time does, without it."""
        until_s = time.monotonic() + limit_s
        with self._changed:
            while True:
                for line in self.lines:
                    if line.event == event:
                        return line
                left_s = until_s - time.monotonic()
                if self.ended_s or left_s <= 0:
                    raise RuntimeError(f"{self._named()} wrote no `{event}` in {limit_s:g} s; the end of what it wrote:\n{self.tail()}")
                self._changed.wait(left_s)

    def wait(self, limit_s: float) -> int:
        """Its exit code. Raises RuntimeError when it does not end."""
        try:
            self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            self.end()
            raise RuntimeError(f"{self._named()} did not end in {limit_s:g} s; the end of what it wrote:\n{self.tail()}") from None
        for thread in self._threads:
            thread.join()
        return self.process.returncode

    def end(self) -> None:
        """End it, if it has not: by request, or by force."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for thread in self._threads:
            thread.join()

    def tail(self) -> str:
        """The end of what it wrote."""
        return "".join([*self.text, *(f"{line.body}\n" for line in self.lines)][-30:])

    def _named(self) -> str:
        arguments = self.process.args
        assert isinstance(arguments, list), "as `started` gives them"
        return f"`python {' '.join(map(str, arguments[1:]))}`"

    def _read(self) -> None:
        assert self.process.stdout is not None
        for text in self.process.stdout:
            came_s, body = time.monotonic(), json_of(text)
            with self._changed:
                if body is None:
                    self.text.append(text)
                else:
                    self._sample()
                    self.lines.append(Line(came_s, self.cpu_s, body))
                self._changed.notify_all()
        self.process.wait()
        with self._changed:
            self.ended_s = time.monotonic()
            self._changed.notify_all()
        self.process.stdout.close()

    def _watch(self) -> None:
        while self.process.poll() is None:
            self._sample()
            time.sleep(SAMPLE_EVERY_S)

    def _sample(self) -> None:
        """What /proc says now; the last values stay when the process is gone."""
        pid = self.process.pid
        try:
            self.cpu_s = max(self.cpu_s, cpu_of(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")) / _TICKS_PER_S)
            self.peak_mb = max(self.peak_mb, peak_of(Path(f"/proc/{pid}/status").read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return


def started(command: Sequence[str], **environment: str) -> Program:
    """Start a program whose environment says nothing of the cloud but what is given."""
    own = {name: value for name, value in os.environ.items() if name in _KEPT}
    process = subprocess.Popen(
        list(command),
        cwd=ROOT,
        env={**own, "PYTHONUNBUFFERED": "1", **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    program = Program(process, time.monotonic())
    for work in (program._read, program._watch):
        program._threads.append(threading.Thread(target=work, daemon=True))
        program._threads[-1].start()
    return program


def json_of(text: str) -> dict[str, Any] | None:
    """The JSON object on a line; None for any other line."""
    if not text.startswith("{"):
        return None
    try:
        body = json.loads(text)
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def cpu_of(stat: str) -> int:
    """Clock ticks in user and system mode, from a process's `stat`, whose second field may hold spaces. Raises ValueError."""
    fields = stat.rpartition(")")[2].split()
    if len(fields) < 13:
        raise ValueError("not the stat of a process")
    return int(fields[11]) + int(fields[12])


def peak_of(status: str) -> float:
    """The highest resident memory so far, in 10**6 bytes, from a process's `status`. Raises ValueError once it has none."""
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise ValueError("the process has ended: it has no memory")
