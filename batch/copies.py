"""Copies of this process: what handlers make by `fork`, with everything in it that was this process's own.

A copy belongs to the handler that made it and is never a second worker: it uses no connection of this process, what it is sent as a signal
does not reach this process, and it ends with it. Programs that are started (`subprocess`, `spawn`) have nothing of this.
"""

from __future__ import annotations

import os
import signal
import weakref
from collections.abc import Callable
from contextlib import suppress

from batch.model.errors import CopyRefused


class Copies:
    """What this process knows of being a copy. One for each process, made when it starts."""

    def __init__(self) -> None:
        self.count = 0
        """How many forks lie between this process and the program that was started: asked for each task, so not by a call to the system."""
        self._actions: list[weakref.WeakMethod[Callable[[], None]]] = []
        self._bond: tuple[int, int] | None = None

    def at_birth(self, action: Callable[[], None]) -> None:
        """Call a method in each copy before anything else runs there. Its object may go all the same. It must not wait, nor take a lock:
        the thread that holds it has not been copied."""
        self._actions = [one for one in self._actions if one() is not None]
        self._actions.append(weakref.WeakMethod(action))

    def tie(self) -> None:
        """From now on copies end with this process, however it ends (on Linux; elsewhere they live on).

        They hold the reading end of a pipe that nobody writes to, and the kernel kills them when its writing end is gone. Its other bond,
        PR_SET_PDEATHSIG, is to the thread that forked: a pool of copies would end with the thread of the task that made it.
        """
        with suppress(ImportError):
            from fcntl import F_SETSIG as _  # noqa: F401 - only Linux lets a process choose the signal

            self._bond = os.pipe()

    def refuse(self, made: int, what: str) -> None:
        """Raises CopyRefused in a copy of the process where `count` was `made`."""
        if self.count != made:
            raise CopyRefused(f"this process is a copy, made by fork, of the one that {what}")

    def _born(self) -> None:
        self.count += 1
        if self._bond is not None:
            self._bond = _bound(*self._bond)
        for one in self._actions:
            action = one()
            if action is not None:
                action()


def _bound(read_end: int, write_end: int) -> tuple[int, int]:
    """In a copy: let the kernel end it when the process that holds the writing end is gone. The ends for the copies of this copy."""
    import fcntl

    try:
        if write_end >= 0:
            os.close(write_end)
        own = os.open(f"/proc/self/fd/{read_end}", os.O_RDONLY | os.O_NONBLOCK)  # or its signals would go to another process
        fcntl.fcntl(own, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(own, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(own, fcntl.F_SETFL, fcntl.fcntl(own, fcntl.F_GETFL) | os.O_ASYNC)
        with suppress(BlockingIOError):
            os.read(own, 1)
            os._exit(1)  # it was gone before
    except OSError:
        return read_end, -1  # no /proc, or a handler has closed what it did not open
    return read_end, -1


copies = Copies()
os.register_at_fork(after_in_child=copies._born)
