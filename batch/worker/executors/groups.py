"""Groups: one grouped handler's calls. A call takes up to `group` messages of its queue, after waiting at most `group_wait_s` for them.

Each task keeps its own attempt, context, outcome and dead letter; only the call is shared. What cannot be in a group (a payload that
is refused, a message that comes early, a quarantined task) never spoils it for the others.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, overload

from batch.events import log
from batch.handling.answer import CAME_THROUGH, Answer, Said, answers_of, awaited, called, has_returned
from batch.handling.context import Surroundings
from batch.handling.registry import Handler
from batch.worker.attempt import Attempt, Finished, Nack, Work
from batch.worker.executors.loop import Loop
from batch.worker.executors.overdue import most_lost, timed_out, too_many
from batch.worker.executors.runner import Parts, with_output
from batch.worker.executors.running import Running, Where
from batch.worker.ready_queue import ReadyQueue
from batch.worker.watchdog import stack_of

CALLS = 2
"""One call runs while the next group fills, or runs as well."""
ASIDE_THREADS = 8
MAX_IDS = 20
"""Task ids of a group that a log record carries which is not one task's own."""


class _Contexts(Sequence[Surroundings]):
    """One for each attempt, made when the handler asks for it: many grouped handlers want tasks only."""

    def __init__(self, attempts: Sequence[Attempt], make: Callable[[Attempt], Surroundings]) -> None:
        self._attempts = attempts
        self._make = make
        self._made: dict[int, Surroundings] = {}

    def __len__(self) -> int:
        return len(self._attempts)

    @overload
    def __getitem__(self, index: int) -> Surroundings: ...

    @overload
    def __getitem__(self, index: slice) -> list[Surroundings]: ...

    def __getitem__(self, index: int | slice) -> Surroundings | list[Surroundings]:
        """Raises IndexError as a list does."""
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        at = range(len(self))[index]
        known = self._made.get(at)
        # Two threads of a handler may ask at once: both have to get the same.
        return known if known is not None else self._made.setdefault(at, self._make(self._attempts[at]))

    def facts(self) -> dict[str, Any]:
        """What each log record carries that arises while the call runs, and is not one task's own."""
        if len(self) == 1:
            return self[0].facts()
        ids = [attempt.task.task_id for attempt in self._attempts[:MAX_IDS]]
        return {"task_type": self._attempts[0].task.task_type, "task_count": len(self), "task_ids": ids}

    def outputs(self) -> list[str]:
        """The handler has returned: by attempt, the name of what it wrote last, empty without one."""
        made = self._made
        return [made[at].ended() if at in made else "" for at in range(len(self))] if made else [""] * len(self)


@dataclass(eq=False, slots=True)
class _Running:
    """One call. The first to claim it gives its tasks their answers: the thread that made it, or the one that finds it late."""

    attempts: Sequence[Attempt]
    ctxs: _Contexts
    began_s: float
    thread: threading.Thread = field(default_factory=threading.current_thread)
    task: asyncio.Task[Any] | None = None
    _free: threading.Lock = field(default_factory=threading.Lock)

    def claimed(self) -> bool:
        """True for the first who asks."""
        return self._free.acquire(blocking=False)


class GroupExecutor:
    """The executor of one grouped handler. `loop` runs it when it is async."""

    def __init__(self, handler: Handler, queue: ReadyQueue, parts: Parts, loop: Loop) -> None:
        self.concurrency = concurrency_of(handler)
        self.queue = queue
        self._handler = handler
        self._runner, self._inbox, self._tally, self._clock = parts.runner, parts.inbox, parts.tally, parts.clock
        self._failed, self._unstarted = parts.failed, parts.unstarted
        self._loop = loop
        self._is_async = handler.is_async
        self._aside = ThreadPoolExecutor(ASIDE_THREADS, f"group-{handler.task_type}-aside")
        self._filling = threading.Lock()
        self._running: list[_Running] = []
        self._lost: list[threading.Thread] = []
        self._thread_count = CALLS
        self._ending = False

    def start(self) -> None:
        if self._is_async:
            self._loop.start()
        for number in range(CALLS):
            self._start_thread(number)

    @property
    def busy_count(self) -> int:
        return sum(len(call.attempts) for call in list(self._running))

    def running(self) -> list[Running]:
        return [Running(call.attempts, call.began_s, partial(self._where, call)) for call in list(self._running)]

    def _where(self, call: _Running) -> Where:
        return Where(self._loop.stack_of(call.task) if self._is_async else stack_of(call.thread.ident))

    def flush(self) -> None:
        """End calls whose time is over; log it when an async one blocks the loop."""
        if self._is_async:
            self._loop.watch()
        if self._handler.timeout_s is None:
            return
        for call in list(self._running):
            if self._clock.monotonic() - call.began_s >= self._handler.timeout_s and call.claimed():
                self._give_up(call)

    def shut_down(self) -> None:
        """The end: an async call is cancelled, and what a call may still return comes too late. Nothing else waits here."""
        self._ending = True
        for call in list(self._running):
            if call.task is not None:
                self._loop.call(call.task.cancel)

    # --- threads that fill and call

    def _start_thread(self, number: int, first: Callable[[], None] = lambda: None) -> None:
        threading.Thread(target=self._serve, args=(first,), name=f"group-{self._handler.task_type}-{number}", daemon=True).start()

    def _serve(self, first: Callable[[], None]) -> None:
        """After `first`, groups until the queue is closed, or until this thread's call was given up and another thread replaces it."""
        try:
            first()
            while True:
                with self._filling:
                    works = self.filled()
                if not works:
                    break
                if self._runner.stopping.is_set():
                    self._unstarted.nack(works)
                elif not self.round(works):
                    return
            self._leave()
        except BaseException as error:  # noqa: BLE001 - a thread that dies in silence would leave its messages to expire
            self._failed(error)

    def _leave(self) -> None:
        with self._filling:
            self._thread_count -= 1
            last = self._thread_count == 0
        if last:
            self._aside.shutdown(wait=False)
            if self._is_async:
                self._loop.leave()

    def filled(self) -> list[Work]:
        """Wait for the first message, then at most `group_wait_s` for more; an empty list once the queue is closed."""
        most = self._handler.group
        works = self.queue.take(lambda _waiting: most)
        until_s = self._clock.monotonic() + self._handler.group_wait_s
        while works and len(works) < most and not self.queue.closed:
            self.queue.arrived.clear()
            works += self.queue.take_now(most - len(works))
            left_s = until_s - self._clock.monotonic()
            if left_s <= 0:
                break
            if len(works) < most and not self.queue.closed:
                self.queue.wait(most - len(works), partial(self._clock.wait, self.queue.arrived, left_s))
        return works

    def round(self, works: Sequence[Work]) -> bool:
        """One group through the handler. False when its call was given up: this thread has been replaced."""
        begun = self._runner.all_begun(works)
        attempts = [one for one in begun if isinstance(one, Attempt)]
        if len(attempts) < len(begun):
            self._inbox.put([one for one in begun if not isinstance(one, Attempt)])
        return not attempts or self._called(attempts)

    def _called(self, attempts: Sequence[Attempt]) -> bool:
        call = self._begun(attempts)
        tasks = [attempt.task for attempt in attempts]
        self._running.append(call)
        answer = self._awaited(call, tasks) if self._is_async else called(self._function(call), tasks, call.ctxs)
        if not call.claimed():
            return False
        if not (self._ending and answer.error_type == "CancelledError"):
            self._answer(call, answer)
        return True

    def _begun(self, attempts: Sequence[Attempt]) -> _Running:
        """The call's time is the time of each of its tasks."""
        began_s = self._clock.monotonic()
        timeout_s = self._handler.timeout_s
        for attempt in attempts:
            attempt.began_s = began_s
            if timeout_s is not None:
                attempt.deadline_s = min(self._runner.admission.end_s, began_s + timeout_s)
        runner, pool = self._runner, self._loop.io
        make = (lambda attempt: runner.async_context(attempt, pool)) if self._is_async else runner.context
        return _Running(attempts, _Contexts(attempts, make), began_s)

    def _awaited(self, call: _Running, tasks: list[Any]) -> Answer:
        """Run an async handler on the loop; this thread waits for it."""
        ended = threading.Event()
        answers: list[Answer] = []

        def end(task: asyncio.Task[Any]) -> None:
            # A task that is cancelled before its first step says nothing.
            answers.append(Answer(Said.FAILED, error_type="CancelledError") if task.cancelled() else task.result())
            ended.set()

        def begin() -> None:
            call.task = self._loop.run(awaited(self._function(call), tasks, call.ctxs), self._handler.task_type, end)

        self._loop.call(begin)
        ended.wait()
        return answers[0]

    def _function(self, call: _Running) -> Callable[..., Any]:
        """The handler, which finds the span of the first task that is sampled; it links the others."""
        watch = self._runner.watch
        sampled = [] if watch is None else [one for one in call.attempts if one.span is not None]
        if watch is None or not sampled:
            return self._handler.function
        watch.link([one.span for one in sampled if one.span is not None])
        return sampled[0].function

    # --- answers

    def _answer(self, call: _Running, answer: Answer) -> None:
        """The verdict on each task; those that write something, several at a time."""
        took_s = self._clock.monotonic() - call.began_s
        outputs = call.ctxs.outputs()
        if has_returned(answer, len(call.attempts)) and all(attempt.marker_generation is None for attempt in call.attempts):
            together = self._runner.together(call.attempts, answer.result, outputs)
            if together is not None:
                self._ended(call, took_s, together)
                return
        answers = answers_of(answer, len(call.attempts))
        whole = answers[0].said is not Said.RETURNED and all(one is answers[0] for one in answers)
        if whole or any(one.said in CAME_THROUGH for one in answers):
            # One call that fails is one failure, however many tasks are in it: it alone shows nothing about a service, or the handler. Nor
            # does what failed beside tasks that came through.
            for attempt in call.attempts:
                attempt.counts_as = call.attempts[0].task.task_id
        finished: list[Finished] = []
        loud: list[tuple[Attempt, Answer]] = []
        for attempt, one, output in zip(call.attempts, answers, outputs, strict=True):
            quiet = one.said is Said.RETURNED and not attempt.marked
            at_once = self._runner.judged_at_once(attempt, with_output(one, output)) if quiet else None
            if at_once is None:
                loud.append((attempt, with_output(one, output)))
            else:
                finished.append(at_once)
        finished += self._aside.map(lambda one: self._runner.judged(*one), loud)
        if whole:
            finished[1:] = [replace(one, dependency="") if isinstance(one, Nack) else one for one in finished[1:]]
        self._ended(call, took_s, finished)

    def _ended(self, call: _Running, took_s: float, finished: list[Finished]) -> None:
        self._running.remove(call)
        self._tally.ran(len(finished), len(finished) * took_s, took_s, handler_s=took_s)
        self._inbox.put(finished)

    def _give_up(self, call: _Running) -> None:
        """Its time is over: its tasks have failed, whatever it may still return, and another thread takes its thread's place."""
        first = call.attempts[0]
        stack = "" if self._is_async else stack_of(call.thread.ident)
        facts = {"task_id": first.task.task_id, "task_type": first.task.task_type, "timeout_s": first.handler.timeout_s}
        log("handler_timed_out", **facts, task_count=len(call.attempts), stack=stack)
        if call.task is not None:
            self._loop.call(call.task.cancel)
        self._lost.append(call.thread)
        hanging_count = sum(thread.is_alive() for thread in self._lost)
        if hanging_count >= most_lost(CALLS):
            self._failed(too_many(hanging_count, first))
        self._start_thread(CALLS + len(self._lost), partial(self._answer, call, timed_out(first, stack)))


def concurrency_of(handler: Handler) -> int:
    """How many messages a grouped handler's calls hold at a time."""
    return CALLS * handler.group
