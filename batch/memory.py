"""Memory of a worker process: what goes back to the system, and when Python looks for cycles.

Collecting seldom is for our own messages, which make no cycles; what handlers make is bounded by how much the process has grown.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import threading

from batch.model.clock import Clock, SystemClock

LARGE_BYTES = 1024 * 1024
COLLECT_AFTER = (10_000, 3, 3)
"""New objects before a look at the youngest of them, and such looks before one at the older ones."""
PYTHONS_OWN = gc.get_threshold()
"""A module of handlers that has set something else, when it was imported, keeps it."""
GROWTH_BYTES = 64 * 1024 * 1024
GROWTH_PART = 4
"""All objects are looked at when the process has grown by so many bytes, and by this part of what it was after the last such look: one
that is large by right must not be looked at all the time."""
FREEING_S = 0.4e-9
"""What freeing a byte takes at most: it would be freed in any case, and is not counted as the time of a look."""
REST = 25
"""After a look at all objects none for as many times as it took, whatever it found: a few per cent of the time at most. Only a process
that has doubled does not wait so long, for it may be about to be ended for its memory."""
DOUBLED_BYTES = 256 * 1024 * 1024
LOOK_EVERY_S = 0.005
"""At the ends of lists of messages. Reading how large the process is takes 5 µs."""
TICK_S = 0.1
"""While handlers run that take longer than this."""
_M_MMAP_THRESHOLD = -3
"""Of malloc.h: blocks of at least so many bytes are the system's own, and go back when they are freed."""


def give_large_blocks_back() -> None:
    """For this process. By default the C library keeps what threads have freed, also blocks as large as a whole message. Forty messages
    of 9 MB, one or three outstanding at a time, then take 130 or 180 MB at most instead of 240 or 270. Without effect where the C library
    has no such option."""
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)


def collect_seldom() -> None:
    """To be called once everything is imported: modules are not looked at again, and messages, which make no cycles, are looked at
    less often. It saves up to a sixth of what a message costs. From now on `growth.look` looks at all objects when that is due."""
    gc.collect()
    gc.freeze()
    if gc.get_threshold() == PYTHONS_OWN:
        gc.set_threshold(*COLLECT_AFTER)
    growth.watch()


class Growth:
    """How much this process has grown since all its objects were last looked at."""

    def __init__(self) -> None:
        self._file = -1
        self._page_bytes = self._size = 0
        self._next_s = self._rest_until_s = 0.0
        self._looking = threading.Lock()

    def watch(self) -> None:
        """From now on; not where the system does not tell."""
        if sys.platform == "linux" and self._file < 0:
            self._page_bytes = os.sysconf("SC_PAGE_SIZE")
            self._file = os.open("/proc/self/statm", os.O_RDONLY)
            self._size = self._resident()
            threading.Thread(target=self._run, name="memory", daemon=True).start()

    def look(self, clock: Clock) -> None:
        """Called by threads that have run handlers, at the end of each list of messages: what a finalizer does, or waits for, then
        concerns no thread of the worker's own."""
        if self._file < 0 or (now_s := clock.monotonic()) < self._next_s or not self._looking.acquire(blocking=False):
            return
        try:
            size = self._resident()
            self._next_s = now_s + LOOK_EVERY_S
            self._size = min(self._size, size)
            if is_due(self._size, size, resting=now_s < self._rest_until_s) and gc.isenabled():
                gc.collect()
                self._size = self._resident()
                self._rest_until_s = rest_until_s(now_s, clock.monotonic(), max(0, size - self._size))
        finally:
            self._looking.release()

    def _resident(self) -> int:
        return int(os.pread(self._file, 100, 0).split()[1]) * self._page_bytes

    def _run(self) -> None:
        clock, never = SystemClock(), threading.Event()
        while not clock.wait(never, TICK_S):
            self.look(clock)


def is_due(before: int, now: int, *, resting: bool) -> bool:
    """Whether a process that had `before` bytes has grown so much that all its objects are looked at."""
    grown = now - before
    return grown >= max(GROWTH_BYTES, before // GROWTH_PART) and (not resting or grown >= before + DOUBLED_BYTES)


def rest_until_s(began_s: float, ended_s: float, freed_bytes: int) -> float:
    """Until when there is no further look after one that has freed so many bytes."""
    return ended_s + REST * max(0.0, ended_s - began_s - freed_bytes * FREEING_S)


growth = Growth()
