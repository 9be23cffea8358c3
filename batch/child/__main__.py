"""`python -m batch.child <wire> <parent>`: started by a worker, never by a person."""

from __future__ import annotations

import io
import os
import socket
import sys

from batch.child.bonds import tie_to
from batch.child.inside import Inside
from batch.child.wire import Link
from batch.copies import copies
from batch.descendants import adopt
from batch.process_state import show_stacks


def main(wire: int, parent_pid: int) -> int:
    """Live as this worker's child. Returns 0 when it is not needed any more, 1 when the worker is gone."""
    if not tie_to(parent_pid):
        return 1
    adopt()
    copies.tie()
    os.set_inheritable(wire, False)
    show_stacks()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")
    Inside(Link(socket.socket(fileno=wire))).live()
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
