"""Actions at a later moment of the clock: effects of calls that were already answered, and the ends of pauses.

`stop` ends all pauses at once and drops the effects, as the exit of a process does.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import threading
from collections.abc import Callable

from local_cloud.clock import Clock

Action = Callable[[], None]


class Later:
    """Safe to use from any thread, also before `start`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._condition = threading.Condition()
        # Moment, number (so that actions are never compared), action, whether it belongs to a pause.
        self._due: list[tuple[float, int, Action, bool]] = []
        self._numbers = itertools.count()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="later", daemon=True)
        clock.watch(self._condition)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        with self._condition:
            self._stopped = True
            pauses = [action for _, _, action, is_pause in self._due if is_pause]
            self._due.clear()
            self._condition.notify_all()
        for end in pauses:
            end()
        if self._thread.is_alive():
            self._thread.join()

    def do(self, seconds: float, effect: Action) -> None:
        """Call `effect` in a thread of its own, `seconds` from now."""
        self._add(seconds, lambda: threading.Thread(target=effect, name="effect", daemon=True).start(), is_pause=False)

    def pause(self, seconds: float) -> None:
        """Block the calling thread for `seconds`."""
        over = threading.Event()
        self._add(seconds, over.set, is_pause=True)
        over.wait()

    async def pause_task(self, seconds: float) -> None:
        """Block the calling task for `seconds`."""
        over, loop = asyncio.Event(), asyncio.get_running_loop()
        self._add(seconds, lambda: _wake(loop, over), is_pause=True)
        await over.wait()

    def _add(self, seconds: float, action: Action, *, is_pause: bool) -> None:
        with self._condition:
            if not self._stopped:
                heapq.heappush(self._due, (self._clock.now() + seconds, next(self._numbers), action, is_pause))
                self._condition.notify_all()
                return
        if is_pause:
            action()

    def _run(self) -> None:
        while (action := self._next()) is not None:
            action()

    def _next(self) -> Action | None:
        """Wait for the next action that is due; None after `stop`."""
        with self._condition:
            while not self._stopped:
                if self._due and self._due[0][0] <= self._clock.now():
                    return heapq.heappop(self._due)[2]
                self._clock.wait_until(self._condition, self._due[0][0] if self._due else None)
        return None


def _wake(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    # A closed loop has no task that waits.
    if not loop.is_closed():
        loop.call_soon_threadsafe(event.set)
