"""Standard output and error of a worker, as handlers see them: each line that is printed becomes a log line of its task.

Bytes that go past Python (`sys.stdout.buffer`, a C library, a process that a handler has started) reach the real stream unchanged.
"""

from __future__ import annotations

import io
import sys
import threading
from typing import Any, TextIO

from batch.copies import copies
from batch.events import MAX_PRINTED_CHARS, log_printed
from batch.logs import running


class Printed(io.TextIOBase):
    """In place of `real`. What has no line end yet is kept by thread: until its end comes, or another task prints there."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, real: TextIO, severity: str) -> None:
        self.real = real
        self._severity = severity
        self._lines: dict[int, tuple[object, str]] = {}
        self._copy_count = copies.count
        copies.at_birth(self._leave_to_parent)

    def write(self, text: str) -> int:
        """Raises TypeError for what is no text, as every stream does."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        thread, whose = threading.get_ident(), running.get()
        before, line = self._lines.pop(thread, (None, ""))
        if line and before is not whose:
            self._say(line, before)
            line = ""
        *lines, rest = (line + text).split("\n")
        for one in lines:
            self._say(one, whose)
        rest = rest[rest.rstrip("\r").rfind("\r") + 1 :]  # a progress bar: what it writes over is not a line
        while len(rest) > MAX_PRINTED_CHARS:
            self._say(rest[:MAX_PRINTED_CHARS], whose)
            rest = rest[MAX_PRINTED_CHARS:]
        if rest:
            self._lines[thread] = (whose, rest)
        return len(text)

    def end_lines(self) -> None:
        """Nothing more runs: what has no line end is a line as well."""
        while self._lines:
            _, (whose, line) = self._lines.popitem()
            self._say(line, whose)

    def _say(self, line: str, whose: Any) -> None:
        line = line.rstrip()
        if line:
            log_printed(line, self._severity, **(whose.facts() if whose is not None else {}))

    def flush(self) -> None:
        """Nothing waits here but a line without its end. In a copy of this process that is said: nobody else would when it ends."""
        if copies.count != self._copy_count:
            self.end_lines()

    def _leave_to_parent(self) -> None:
        """In a copy: what this process has begun is for it to end."""
        self._lines = {}

    def close(self) -> None:
        """Others still print here."""

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return False

    def fileno(self) -> int:
        """Of the real stream."""
        return self.real.fileno()

    def detach(self) -> Any:
        """For a wrapper of a module's own; what goes through it is no line of a task."""
        return self.real.buffer

    def __getattr__(self, name: str) -> Any:
        """All else that a stream can: `buffer`, `reconfigure`, `name`."""
        return getattr(self.real, name)


def take_what_is_printed() -> None:
    """From now on, for this process: INFO for standard output, WARNING for standard error."""
    sys.stdout, sys.stderr = Printed(sys.stdout, "INFO"), Printed(sys.stderr, "WARNING")


def end_printed_lines() -> None:
    """Once nothing more runs."""
    for stream in (getattr(sys, "stdout", None), getattr(sys, "stderr", None)):
        if isinstance(stream, Printed):
            stream.end_lines()
