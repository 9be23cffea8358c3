"""What a child prints: logged line by line within bounds, and its end kept as evidence. A flood costs its reader next to nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from batch.events import log, log_printed

MAX_LINES = 200
"""Lines that one attempt may have in the log; the rest is counted."""
MAX_LINE_BYTES = 2000
TAIL_BYTES = 4000


@dataclass(slots=True)
class Output:
    """Of one child. `begin` names the task that prints from now on."""

    _facts: dict[str, Any] = field(default_factory=dict)
    _line: bytearray = field(default_factory=bytearray)
    _tail: bytearray = field(default_factory=bytearray)
    _line_count: int = 0
    _left_out_bytes: int = 0

    def begin(self, **facts: Any) -> None:
        self.end()
        self._facts = facts
        self._tail.clear()
        self._line_count = 0

    def feed(self, data: bytes) -> None:
        """Bytes as they come: they may be no text, and end anywhere."""
        self._tail += data[-TAIL_BYTES:]
        del self._tail[:-TAIL_BYTES]
        if self._line_count >= MAX_LINES:
            self._left_out_bytes += len(data)
            return
        self._line += data
        *lines, rest = self._line.split(b"\n")
        while len(rest) >= MAX_LINE_BYTES:
            lines.append(rest[:MAX_LINE_BYTES])
            rest = rest[MAX_LINE_BYTES:]
        self._line = bytearray(rest)
        for number, line in enumerate(lines):
            if self._line_count >= MAX_LINES:
                self._left_out_bytes += sum(map(len, lines[number:])) + len(self._line)
                self._line.clear()
                return
            self._log(line)

    def end(self) -> None:
        """The attempt has ended: what it printed last may have no line end."""
        if self._line and self._line_count < MAX_LINES:
            self._log(self._line)
        self._line.clear()
        if self._left_out_bytes:
            log("handler_output", **self._facts, reason=f"{self._left_out_bytes} more bytes were printed and left out")
        self._left_out_bytes = 0

    @property
    def tail(self) -> str:
        """The last of what was printed since `begin`, as text."""
        return self._tail.decode(errors="replace").strip()

    def _log(self, line: bytes | bytearray) -> None:
        text = line[:MAX_LINE_BYTES].decode(errors="replace").rstrip()
        if text:
            self._line_count += 1
            log_printed(text, **self._facts)
