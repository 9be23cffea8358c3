"""The executor of async handlers: task slots on the worker's event loop. Messages come in lists and go on in lists.

A feeder thread hands lists to the loop; what may have to wait, the record of a failure, is done aside, in threads. A healthy task never
leaves the loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import Any

from batch.events import log
from batch.handling.answer import CANCEL_LIMIT_S, Answer, Said, awaited, overdue
from batch.handling.context import AsyncContext
from batch.handling.registry import Kind
from batch.worker.attempt import Attempt, Finished, Work
from batch.worker.executors.loop import Loop
from batch.worker.executors.runner import Parts, with_output
from batch.worker.executors.running import Running, Where
from batch.worker.executors.threads import HAND_OVER_S
from batch.worker.ready_queue import ReadyQueue, next_of, taken_from

AHEAD_S = 0.05
"""The loop has messages for about this long beyond those that run, so that a task slot never waits for the feeder."""
MAX_AHEAD = 1000
GATHER_S = 0.01
"""What is finished waits this long for company on its way to the committer."""
PORTION = 10
"""How many tasks end and begin in one round of the loop. Tasks that sleep equally long and all begin at once would all end at once,
and each would wait for all the others: in portions they drift apart."""
_QUIET = frozenset({Said.RETURNED, Said.SUPERSEDED})
"""Answers whose verdict needs no request, unless a result is refused."""


@dataclass(eq=False, slots=True)
class _TaskSlot:
    """One message on its way through the loop. `late`: its time was over; `given_up`: its message has its verdict already."""

    work: Work
    began_s: float
    attempt: Attempt | None = None
    ctx: AsyncContext | None = None
    task: asyncio.Task[Any] | None = None
    timer: asyncio.Handle | None = None
    late: bool = False
    given_up: bool = False


class AsyncExecutor:
    """`concurrency` task slots between their queue and the committer's inbox.

    Its state belongs to the loop's thread; others only take from its deques and count.
    """

    def __init__(self, concurrency: int, queue: ReadyQueue, parts: Parts, loop: Loop) -> None:
        self.concurrency = concurrency
        self.queue = queue
        self._runner, self._inbox, self._tally, self._clock = parts.runner, parts.inbox, parts.tally, parts.clock
        self._unstarted = parts.unstarted
        self._loop = loop
        self._waiting: deque[Work] = deque()
        self._finished: deque[Finished] = deque()
        self._running: set[_TaskSlot] = set()
        self._returned: deque[tuple[_TaskSlot, Attempt, Answer]] = deque()
        self._room = threading.Event()
        self._room.set()
        self._fed_count = self._ended_count = self._dropped_count = 0
        self._ran_count, self._ran_s, self._longest_s = 0, 0.0, 0.0
        self._settling = self._gathering = self._closed = self._ending = self._left = False

    def start(self) -> None:
        self._loop.start()
        threading.Thread(target=self._feed, name="feeder", daemon=True).start()

    @property
    def busy_count(self) -> int:
        return len(self._running)

    def running(self) -> list[Running]:
        return [Running([slot.attempt or slot.work], slot.began_s, partial(self._where, slot)) for slot in list(self._running)]

    def _where(self, slot: _TaskSlot) -> Where:
        return Where(self._loop.stack_of(slot.task))

    def flush(self) -> None:
        """Log it when a handler blocks the loop, and hand over what it has finished all the same."""
        self._loop.watch()
        if self._finished and self._loop.silent_s >= HAND_OVER_S:
            self._put_finished()

    def shut_down(self) -> None:
        """The end: what is finished goes to the committer, what has not started goes back, what still runs is cancelled."""
        self._ending = True
        self._put_finished()
        self._unstarted.nack(taken_from(self._waiting))
        self._loop.call(self._cancel_all)

    # --- the feeder's thread

    def _feed(self) -> None:
        while True:
            while not self._room.wait(HAND_OVER_S) and not self.queue.closed:
                pass
            chunk = self.queue.take(lambda _waiting: max(1, self._limit() - self._fed_count + self._ended_count))
            if not chunk:
                self._loop.call(self._close)
                return
            self._fed_count += len(chunk)
            self._room.clear()
            self._loop.call(self._accept, chunk)

    def _limit(self) -> int:
        """How many messages the loop may have: those that run, and a few ahead when handlers are quick."""
        mean_s = self._tally.mean_s
        return self.concurrency + (0 if mean_s is None else min(MAX_AHEAD, int(self.concurrency * AHEAD_S / max(mean_s, 1e-6))))

    # --- the loop's thread

    def _accept(self, chunk: list[Work]) -> None:
        self._waiting.extend(chunk)
        self._settle()

    def _settle_soon(self) -> None:
        """Once for all that ends in one round of the loop."""
        if not self._settling:
            self._settling = True
            self._loop.soon(self._settle)

    def _settle(self) -> None:
        """Judge what has returned, fill free slots, hand over what is finished, ask for more."""
        self._settling = False
        for _ in range(PORTION):
            if self._returned:
                self._judge(*self._returned.popleft())
            elif len(self._running) >= self.concurrency or not self._waiting:
                break
            self._fill()
        else:
            self._settle_soon()
        if self._ending or self._closed:
            self._hand_over()
        elif self._finished and not self._gathering:
            self._gathering = True
            self._loop.soon(self._hand_over, after_s=GATHER_S)
        limit = self._limit()
        if limit - self._fed_count + self._ended_count >= max(1, (limit - self.concurrency) // 2):
            self._room.set()
        if self._closed and not self._left and len(self._running) == self._dropped_count:
            self._left = True
            self._loop.leave()

    def _fill(self) -> None:
        """One slot, if there is one and a message for it."""
        if len(self._running) < self.concurrency and (work := next_of(self._waiting)) is not None:
            if self._runner.stopping.is_set():
                self._nack([work, *taken_from(self._waiting)])
            else:
                self._begin(work)

    def _close(self) -> None:
        """Nothing more comes."""
        self._closed = True
        self._nack(taken_from(self._waiting))
        self._settle()

    def _begin(self, work: Work) -> None:
        slot = _TaskSlot(work, self._clock.monotonic())
        self._running.add(slot)
        begun = self._runner.begun(work)
        if isinstance(begun, Attempt):
            self._run(slot, begun)
        else:
            self._end(slot, begun)

    def _run(self, slot: _TaskSlot, attempt: Attempt) -> None:
        slot.attempt = attempt
        slot.ctx = self._runner.async_context(attempt, self._loop.io)
        handler = attempt.handler
        slot.task = self._loop.run(
            awaited(attempt.function, attempt.task, slot.ctx), handler.task_type, partial(self._ran, slot, attempt, slot.ctx)
        )
        if handler.timeout_s is not None:
            left_s = attempt.deadline_s - self._clock.monotonic()
            slot.timer = self._loop.soon(self._cancel_late, slot, after_s=max(0.0, left_s))

    def _cancel_late(self, slot: _TaskSlot) -> None:
        if slot.task is not None:
            slot.late = True
            slot.task.cancel()
            slot.timer = self._loop.soon(self._give_up, slot, after_s=CANCEL_LIMIT_S)

    def _give_up(self, slot: _TaskSlot) -> None:
        """It was cancelled and goes on: its task has failed all the same, and its slot is free."""
        if slot.attempt is not None and slot.ctx is not None:
            slot.given_up = True
            log("handler_uncancelled", task_id=slot.attempt.task.task_id, task_type=slot.attempt.task.task_type)
            self._judge(slot, slot.attempt, with_output(_late(slot.attempt), slot.ctx.ended()))

    def _ran(self, slot: _TaskSlot, attempt: Attempt, ctx: AsyncContext, task: asyncio.Task[Any]) -> None:
        """The handler has returned, or was cancelled."""
        if slot.timer is not None:
            slot.timer.cancel()
        if slot.given_up:
            return
        # A task that is cancelled before its first step says nothing.
        answer = Answer(Said.FAILED, error_type="CancelledError") if task.cancelled() else task.result()
        if self._ending and answer.error_type == "CancelledError":
            # By us, at the end: the worker nacks it, and no attempt is spent.
            self._dropped_count += 1
            self._settle_soon()
            return
        self._returned.append((slot, attempt, with_output(_late(attempt) if slot.late else answer, ctx.ended())))
        self._settle_soon()

    def _judge(self, slot: _TaskSlot, attempt: Attempt, answer: Answer) -> None:
        finished = self._runner.judged_at_once(attempt, answer) if answer.said in _QUIET and not attempt.marked else None
        if finished is not None:
            self._end(slot, finished)
        else:
            self._loop.aside(partial(self._runner.judged, attempt, answer), partial(self._end, slot))

    def _end(self, slot: _TaskSlot, finished: Finished) -> None:
        taken_s = self._clock.monotonic() - slot.began_s
        self._ran_count += 1
        self._ran_s += taken_s
        self._longest_s = max(self._longest_s, taken_s)
        self._running.discard(slot)
        self._keep(finished)
        self._settle_soon()

    def _keep(self, finished: Finished) -> None:
        self._ended_count += 1
        self._finished.append(finished)

    def _nack(self, works: list[Work]) -> None:
        """They have not started; their room is free for what the feeder still brings."""
        self._ended_count += len(works)
        self._unstarted.nack(works)

    def _hand_over(self) -> None:
        self._gathering = False
        self._tally.ran(self._ran_count, self._ran_s, self._longest_s)
        self._ran_count, self._ran_s, self._longest_s = 0, 0.0, 0.0
        self._put_finished()

    def _put_finished(self) -> None:
        """From any thread: each message is taken once."""
        finished = taken_from(self._finished)
        if finished:
            self._inbox.put(finished)

    def _cancel_all(self) -> None:
        for slot in self._running:
            if slot.task is not None:
                slot.task.cancel()


def _late(attempt: Attempt) -> Answer:
    return overdue(attempt.handler.timeout_s or 0.0, Kind.ASYNC)
