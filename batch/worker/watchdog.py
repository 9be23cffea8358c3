"""The watchdog: when one of the worker's own threads stands still, it says where each of them is and lets the worker end.

Handlers are not watched: they have time limits of their own.
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable, Sequence

from batch.beats import LOOK_EVERY_S, Beats
from batch.clock import Clock

MAX_STACK_CHARS = 2_000
MAX_STACKS_CHARS = 24_000
"""Of all stacks together: a log line has its limits. The worker's own threads come first."""
OWN_THREADS = ("pull", "committer", "leases", "progress", "worker", "Main")


class Watchdog:
    """Tells `stuck` once which parts have not come round within `limit_s`."""

    def __init__(self, limit_s: float, clock: Clock, stuck: Callable[[Sequence[str]], None]) -> None:
        self._beats = Beats(limit_s)
        self._clock = clock
        self._stuck = stuck
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def beat(self, part: str, again_within_s: float = 0.0) -> None:
        """`part` has come round and will again within that time, or it stands still."""
        self._beats.beat(part, self._clock.monotonic(), again_within_s)

    def leave(self, part: str) -> None:
        """`part` has ended."""
        self._beats.leave(part)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()

    def _run(self) -> None:
        while not self._clock.wait(self._ended, LOOK_EVERY_S):
            parts = self._beats.stalled(self._clock.monotonic())
            if parts and not self._ended.is_set():
                self._stuck(parts)
                return


def within(seconds: float, action: Callable[[], None]) -> None:
    """Do it in a thread of its own, and wait no longer than that: what it needs may stand still as well, even the log."""
    thread = threading.Thread(target=action, name="last words", daemon=True)
    thread.start()
    thread.join(seconds)


def stack_of(thread_id: int | None) -> str:
    """Where a thread is now: the end of its stack; empty when it has ended."""
    frame = sys._current_frames().get(thread_id or -1)
    return "" if frame is None else "".join(traceback.format_stack(frame))[-MAX_STACK_CHARS:]


def stacks() -> str:
    """Where all threads are, the worker's own first."""
    threads = sorted(threading.enumerate(), key=lambda one: (not one.name.startswith(OWN_THREADS), one.name))
    parts = [f"--- {one.name}\n{stack_of(one.ident)}" for one in threads if one is not threading.current_thread()]
    return "\n".join(parts)[:MAX_STACKS_CHARS]
