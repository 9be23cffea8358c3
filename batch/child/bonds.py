"""What binds a child: to its worker, without which it must not live, and to the memory that its handler may use."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

PR_SET_PDEATHSIG = 1
OOM_SCORE = 300
"""Makes the kernel take a child of some size before its worker, and not a small child for a large worker."""


def tie_to(parent_pid: int) -> bool:
    """End with the worker, also while a handler holds the interpreter; False when the worker is gone already. Where the system has no
    such bond, the end of the wire must do."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        prefer_when_memory_ends()
    return os.getppid() == parent_pid


def prefer_when_memory_ends() -> None:
    """When the container runs out of memory, one task is a smaller loss than the worker."""
    with suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write(str(OOM_SCORE))


def end_group() -> None:
    """End this process and all it has started: the worker that wanted the result is gone."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


MB = 1024 * 1024
LEAST_ROOM_MB = 8


def memory_use() -> tuple[int, int] | None:
    """Of this process, in bytes: what is used, and what was asked for, used or not; None where the system does not tell."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            told = dict(line.split(":", 1) for line in file if ":" in line)
        return int(told["VmRSS"].split()[0]) * 1024, int(told["VmData"].split()[0]) * 1024
    except (OSError, KeyError, ValueError, IndexError):
        return None


def worn(memory_mb: int | None) -> bool:
    """Whether what earlier handlers have left here takes too much of what the next one may use."""
    use = memory_use() if memory_mb is not None else None
    return use is not None and memory_mb is not None and use[0] > memory_mb * MB / 2


@contextmanager
def memory_limit(memory_mb: int | None) -> Iterator[None]:
    """Beyond it, allocations raise MemoryError. Enforced on Linux.

    The limit is one of growth (RLIMIT_DATA): from what is resident now up to `memory_mb`. Address space would be the wrong measure:
    a child with a dozen threads and a numerical library has reserved close to 1 GB before it has used 50 MB.
    """
    use = memory_use() if memory_mb is not None else None
    if use is None or memory_mb is None:
        yield
        return
    resident, data = use
    before, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = data + max(memory_mb * MB - resident, LEAST_ROOM_MB * MB)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (before, hard))
