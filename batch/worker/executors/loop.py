"""The event loop of a worker: one, in a thread of its own, for everything that is async. It outlives whatever runs on it.

Its one rule: nothing of ours that may wait runs on it; such steps go to the threads of `aside`.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from batch.copies import copies
from batch.events import log
from batch.handling.answer import clean_context
from batch.model.clock import Clock
from batch.model.errors import text_of
from batch.worker.executors.running import stack_of_task
from batch.worker.watchdog import stack_of

MAX_CONTEXT_THREADS = 64
ASIDE_THREADS = 8
ASK_EVERY_S = 0.25
BLOCKED_S = 1.0
"""A loop that has not come round for this long is blocked: everything that is async waits."""
TELL_EVERY_S = 10.0
MAX_STACK_CHARS = 3000
STOP_LIMIT_S = 1.0


class Loop:
    """`users` executors share it; it ends when all have left. `failed` is told when the thread itself breaks."""

    def __init__(self, users: int, concurrency: int, clock: Clock, failed: Callable[[BaseException], None]) -> None:
        self.io = ThreadPoolExecutor(min(concurrency, MAX_CONTEXT_THREADS), "async-io")
        """Where the requests of async contexts run."""
        self.task_types: dict[asyncio.Task[Any], str] = {}
        """Whose handler a task of the loop runs."""
        self._aside = ThreadPoolExecutor(min(concurrency, ASIDE_THREADS), "async-aside")
        self._loop: asyncio.AbstractEventLoop
        self._users = users
        self._clock = clock
        self._failed = failed
        self._lock = threading.Lock()
        self._started = self._ended = False
        self._asked_s: float | None = None
        self._next_ask_s = self._next_tell_s = 0.0
        self._thread = threading.Thread(target=self._run, name="loop", daemon=True)
        copies.at_birth(self._leave_to_parent)

    def start(self) -> None:
        """May be called by each user."""
        with self._lock:
            if not self._started:
                self._started = True
                self._loop = asyncio.new_event_loop()
                self._thread.start()

    def leave(self) -> None:
        """One user less; the last one ends the loop."""
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._ended = True
                self._loop.call_soon_threadsafe(self._loop.stop)

    def call(self, step: Callable[..., object], *arguments: Any) -> None:
        """Run a step of ours on the loop, from any thread. Once the loop has ended it is dropped."""
        try:
            self._loop.call_soon_threadsafe(self._step, step, *arguments)
        except RuntimeError:
            if not self._ended:
                raise

    def soon(self, step: Callable[..., None], *arguments: Any, after_s: float = 0.0) -> asyncio.Handle:
        """Run a step of ours later; only on the loop."""
        if after_s > 0:
            return self._loop.call_later(after_s, self._step, step, *arguments)
        return self._loop.call_soon(self._step, step, *arguments)

    def aside(self, work: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Do what may wait in a thread, then `then(<its result>)` on the loop."""

        def whole() -> None:
            try:
                result = work()
            except BaseException as error:  # noqa: BLE001 - carried to the worker, which ends
                self._failed(error)
            else:
                self.call(then, result)

        self._aside.submit(whole)

    def run(self, coroutine: Any, task_type: str, then: Callable[[asyncio.Task[Any]], None]) -> asyncio.Task[Any]:
        """Start user code on the loop, from the loop; `then` is one of our steps."""
        task = self._loop.create_task(coroutine, context=clean_context())
        self.task_types[task] = task_type

        def done(ended: asyncio.Task[Any]) -> None:
            self.task_types.pop(ended, None)
            self._step(then, ended)

        task.add_done_callback(done)
        return task

    @property
    def silent_s(self) -> float:
        """How long the loop has not answered `watch`."""
        asked_s = self._asked_s
        return 0.0 if asked_s is None else self._clock.monotonic() - asked_s

    def watch(self) -> None:
        """Called now and then from another thread: log it when a handler blocks the loop."""
        now_s = self._clock.monotonic()
        if self._asked_s is None:
            if now_s >= self._next_ask_s:
                self._asked_s, self._next_ask_s = now_s, now_s + ASK_EVERY_S
                self.call(self._answer)
        elif self.silent_s >= BLOCKED_S and now_s >= self._next_tell_s:
            self._next_tell_s = now_s + TELL_EVERY_S
            stack = stack_of(self._thread.ident, MAX_STACK_CHARS)
            task = asyncio.current_task(self._loop)
            task_type = self.task_types.get(task, "a task that a handler started") if task else ""
            log("loop_blocked", task_type=task_type, blocked_s=round(self.silent_s, 1), stack=stack)

    def stack_of(self, task: asyncio.Task[Any] | None) -> str:
        """Where a task of the loop is: in its thread at this moment, or in what it awaits. None: it has yet to begin."""
        if task is None or getattr(task.get_coro(), "cr_running", False):
            return stack_of(self._thread.ident)
        return stack_of_task(task)

    def _answer(self) -> None:
        self._asked_s = None

    def _step(self, step: Callable[..., object], *arguments: Any) -> None:
        try:
            step(*arguments)
        except BaseException as error:  # noqa: BLE001 - the loop would only log it; the worker must end
            self._failed(error)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            while not self._ended:
                self._undisturbed(self._loop.run_forever)
            self._undisturbed(lambda: self._loop.run_until_complete(self._leave_nothing()))
            self._loop.close()
        except BaseException as error:  # noqa: BLE001 - carried to the worker, which ends
            self._failed(error)
        finally:
            self.io.shutdown(wait=False)
            self._aside.shutdown(wait=False)

    def _undisturbed(self, run: Callable[[], None]) -> None:
        """A handler may stop the loop, and a task that it started may raise SystemExit: the others go on."""
        try:
            run()
        except BaseException as error:  # noqa: BLE001 - what user code raises is never the loop's end
            log("loop_disturbed", error=f"{type(error).__name__}: {text_of(error)}")

    def _leave_to_parent(self) -> None:
        """In a copy that an async handler has forked: it ends when that handler awaits, for what runs beside it is not the copy's."""
        if threading.get_ident() == self._thread.ident:
            getattr(self._loop, "_ready", deque[object]()).clear()  # it has no other name; where there is none, they go on for one round
            self._loop.call_soon(os._exit, 1)

    async def _leave_nothing(self) -> None:
        """Cancel what handlers have left running, and give it a moment."""
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=STOP_LIMIT_S)
        await self._loop.shutdown_asyncgens()
