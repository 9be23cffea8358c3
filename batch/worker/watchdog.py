"""The watchdog: when one of the worker's own threads stands still, it says where each of them is and lets the worker end.

Every remote call has a deadline, so a part without a heartbeat for a few minutes stands still for good. Handlers are not watched: they have
time limits of their own.
"""

from __future__ import annotations

import gc
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType

from batch.model.clock import Clock

MAX_STACK_CHARS = 2_000
MAX_STACKS_CHARS = 24_000
"""Of all stacks together: a log line has its limits. The worker's own threads come first."""
OWN_THREADS = ("pull", "committer", "leases", "progress", "worker", "Main")
LOOK_EVERY_S = 1.0
MAX_LOOK_S = 5.0
"""Between two looks. After a longer time the whole process stood still, not one part of it: the machine was paused, or a handler held
the interpreter. All parts get that time again."""
_collector = threading.Lock()
"""Held by who turns the garbage collector off and on again."""


class Watchdog:
    """Tells `stuck` once which parts have not come round within `limit_s`. It knows them by name, and when each must have come round at
    the latest (monotonic). Safe from any thread: each name has one writer."""

    def __init__(self, limit_s: float, clock: Clock, stuck: Callable[[Sequence[str]], None]) -> None:
        self._limit_s, self._clock, self._stuck = limit_s, clock, stuck
        self._due_s: dict[str, float] = {}
        self._looked_s: float | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def heartbeat(self, part: str, again_within_s: float = 0.0) -> None:
        """`part` has come round, and means to do so again within `again_within_s`."""
        now_s = self._clock.monotonic()
        if self._looked_s is None:
            self._looked_s = now_s  # or a pause before the first look would not be seen as one
        self._due_s[part] = now_s + again_within_s + self._limit_s

    def leave(self, part: str) -> None:
        """`part` has ended: no heartbeat of it is due."""
        self._due_s.pop(part, None)

    def stalled(self) -> Sequence[str]:
        """The parts that are overdue; to be asked every LOOK_EVERY_S."""
        now_s = self._clock.monotonic()
        asleep_s = 0.0 if self._looked_s is None else now_s - self._looked_s
        self._looked_s = now_s
        if asleep_s > MAX_LOOK_S:
            for part, due_s in list(self._due_s.items()):
                if part in self._due_s:
                    self._due_s[part] = max(due_s, self._due_s[part]) + asleep_s
            return []
        return sorted(part for part, due_s in list(self._due_s.items()) if now_s > due_s)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()

    def _run(self) -> None:
        while not self._clock.wait(self._ended, LOOK_EVERY_S):
            parts = self.stalled()
            if parts and not self._ended.is_set():
                self._stuck(parts)
                return


def within(seconds: float, action: Callable[[], None]) -> None:
    """Do it in a thread of its own, and wait no longer than that: what it needs may stand still as well, even the log."""
    thread = threading.Thread(target=action, name="last words", daemon=True)
    thread.start()
    thread.join(seconds)


@contextmanager
def frames() -> Iterator[Mapping[int, FrameType]]:
    """Where every thread is now, by its id; to be read within the block only.

    The garbage collector is off meanwhile: when it runs while the frames are taken or followed and another thread ends, Python 3.11
    up to 3.11.8 locks up for good, or crashes (python/cpython#106883).
    """
    with _collector:
        was_on = gc.isenabled()
        gc.disable()
        try:
            yield sys._current_frames()
        finally:
            if was_on:
                gc.enable()


def stack_of(thread_id: int | None, max_chars: int = MAX_STACK_CHARS) -> str:
    """Where a thread is now: the end of its stack; empty when it has ended."""
    with frames() as now:
        return _text(now.get(thread_id or -1), max_chars)


def _text(frame: FrameType | None, max_chars: int) -> str:
    return "" if frame is None else "".join(traceback.format_stack(frame))[-max_chars:]


def stacks() -> str:
    """Where all threads are, the worker's own first."""
    threads = sorted(threading.enumerate(), key=lambda one: (not one.name.startswith(OWN_THREADS), one.name))
    others = [one for one in threads if one is not threading.current_thread()]
    with frames() as now:
        parts = [f"--- {one.name}\n{_text(now.get(one.ident or -1), MAX_STACK_CHARS)}" for one in others]
    return "\n".join(parts)[:MAX_STACKS_CHARS]
