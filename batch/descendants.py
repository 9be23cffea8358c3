"""The processes below this one: what handlers, and what they started, have started. With the worker they end.

Only descendants are touched, never a process beside this one. It is Linux that tells them; elsewhere nothing is found.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress

PR_SET_CHILD_SUBREAPER = 36
ROUNDS = 50
STEP_S = 0.01
"""How long killed processes are given to be gone, and those that they were just starting to be found."""


def adopt() -> None:
    """From now on what the processes below this one leave behind becomes this one's child: a daemon, too, that has forked twice."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_all() -> None:
    """Kill every process below this one. Takes no longer than ROUNDS steps, and next to nothing where there is none."""
    with suppress(ChildProcessError):
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        end_below(os.getpid())


def end_below(root: int) -> None:
    """Kill every process below that one, which goes on."""
    for _ in range(ROUNDS):
        found = below(root)
        if not found:
            return
        for pid in found:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        threading.Event().wait(STEP_S)


def below(root: int) -> list[int]:
    """The processes below that one which still run, each after its parent."""
    children: dict[int, list[int]] = {}
    for pid, parent in _running():
        children.setdefault(parent, []).append(pid)
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found[1:]


def _running() -> Iterator[tuple[int, int]]:
    """Each process that has not ended, and its parent."""
    with suppress(OSError):
        for name in os.listdir("/proc"):
            if name.isdecimal():
                with suppress(OSError, ValueError, IndexError), open(f"/proc/{name}/stat", "rb") as file:
                    state, parent = file.read().rpartition(b")")[2].split(maxsplit=2)[:2]  # a program's name may hold anything
                    if state not in b"ZX":
                        yield int(name), int(parent)
