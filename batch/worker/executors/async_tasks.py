"""Async slots: places on the worker's event loop for async handlers. Messages come in lists and go on in lists.

A feeder thread hands lists to the loop; whatever may wait (the record of a message that was delivered before, the record of a
failure) is done aside, in threads. A healthy task never leaves the loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any

from batch.events import log
from batch.handling.answer import Answer, Said, awaited, overdue
from batch.handling.context import AsyncContext
from batch.model.clock import Clock
from batch.model.delivery import Delivery
from batch.worker.attempt import Attempt
from batch.worker.executors.loop import Loop
from batch.worker.executors.threads import HAND_OVER_S
from batch.worker.finished import Finished, Nack
from batch.worker.ready_queue import Ready, next_of, taken_from
from batch.worker.runner import Runner, with_output
from batch.worker.tally import Tally

AHEAD_S = 0.05
"""The loop has messages in hand for about this long beyond those that run, so that a place never waits for the feeder."""
MAX_AHEAD = 1000
GATHER_S = 0.01
"""What is finished waits this long for company on its way to the committer."""
PORTION = 10
"""How many tasks end and begin in one round of the loop. Tasks that sleep equally long and all begin at once would all end at once,
and each would wait for all the others: in portions they drift apart."""
CANCEL_LIMIT_S = 5.0
"""A handler that was cancelled for its time has this long to clean up."""
_QUIET = frozenset({Said.RETURNED, Said.SUPERSEDED})
"""Answers whose verdict needs no request."""


@dataclass(eq=False, slots=True)
class _Place:
    """One message on its way through the loop. `late`: its time was over; `given_up`: its message has its verdict already."""

    delivery: Delivery
    began_s: float
    attempt: Attempt | None = None
    ctx: AsyncContext | None = None
    task: asyncio.Task[Any] | None = None
    timer: asyncio.Handle | None = None
    late: bool = False
    given_up: bool = False


class AsyncSlots:
    """`count` places between the ready line and the committer's inbox.

    Its state belongs to the loop's thread; others only take from its deques and count.
    """

    def __init__(
        self,
        count: int,
        ready: Ready,
        inbox: SimpleQueue[list[Finished] | None],
        runner: Runner,
        tally: Tally,
        clock: Clock,
        loop: Loop,
    ) -> None:
        self.place_count = count
        self.ready = ready
        self._inbox = inbox
        self._runner = runner
        self._tally = tally
        self._clock = clock
        self._loop = loop
        self._waiting: deque[Delivery] = deque()
        self._finished: deque[Finished] = deque()
        self._running: set[_Place] = set()
        self._returned: deque[tuple[_Place, Attempt, Answer]] = deque()
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

    def running(self) -> list[Delivery]:
        return [place.delivery for place in list(self._running)]

    def relieve(self) -> None:
        """Log it when a handler blocks the loop, and hand over what it has finished all the same."""
        self._loop.watch()
        if self._finished and self._loop.silent_s >= HAND_OVER_S:
            self._put_finished()

    def reclaim(self) -> None:
        """The end: what is finished goes to the committer, what has not started goes back, what still runs is cancelled."""
        self._ending = True
        self._put_finished()
        not_started: list[Finished] = [Nack(delivery.ack_id) for delivery in taken_from(self._waiting)]
        if not_started:
            self._inbox.put(not_started)
        self._loop.call(self._cancel_all)

    # --- the feeder's thread

    def _feed(self) -> None:
        while True:
            while not self._room.wait(HAND_OVER_S) and not self.ready.closed:
                pass
            chunk = self.ready.take(lambda _waiting: max(1, self._limit() - self._fed_count + self._ended_count))
            if not chunk:
                self._loop.call(self._close)
                return
            self._fed_count += len(chunk)
            self._room.clear()
            self._loop.call(self._accept, chunk)

    def _limit(self) -> int:
        """How many messages may be in hand: those that run, and a few ahead when handlers are quick."""
        mean_s = self._tally.mean_s
        return self.place_count + (0 if mean_s is None else min(MAX_AHEAD, int(self.place_count * AHEAD_S / max(mean_s, 1e-6))))

    # --- the loop's thread

    def _accept(self, chunk: list[Delivery]) -> None:
        self._waiting.extend(chunk)
        self._settle()

    def _settle_soon(self) -> None:
        """Once for all that ends in one round of the loop."""
        if not self._settling:
            self._settling = True
            self._loop.soon(self._settle)

    def _settle(self) -> None:
        """Judge what has returned, fill free places, hand over what is finished, ask for more."""
        self._settling = False
        for _ in range(PORTION):
            if self._returned:
                self._judge(*self._returned.popleft())
            elif len(self._running) >= self.place_count or not self._waiting:
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
        if limit - self._fed_count + self._ended_count >= max(1, (limit - self.place_count) // 2):
            self._room.set()
        if self._closed and not self._left and len(self._running) == self._dropped_count:
            self._left = True
            self._loop.leave()

    def _fill(self) -> None:
        """One place, if there is one and a message for it."""
        if len(self._running) < self.place_count and (delivery := next_of(self._waiting)) is not None:
            if self._runner.stopping.is_set():
                self._keep(Nack(delivery.ack_id))
            else:
                self._begin(delivery)

    def _close(self) -> None:
        """Nothing more comes."""
        self._closed = True
        for delivery in taken_from(self._waiting):
            self._keep(Nack(delivery.ack_id))
        self._settle()

    def _begin(self, delivery: Delivery) -> None:
        place = _Place(delivery, self._clock.monotonic())
        self._running.add(place)
        if self._runner.admission.asks(delivery):
            self._loop.aside(partial(self._runner.admitted, delivery), partial(self._admitted, place))
        else:
            self._admitted(place, self._runner.admitted(delivery))

    def _admitted(self, place: _Place, admitted: Attempt | Finished) -> None:
        if not isinstance(admitted, Attempt):
            self._end(place, admitted)
        else:
            self._run(place, admitted)

    def _run(self, place: _Place, attempt: Attempt) -> None:
        place.attempt = attempt
        place.ctx = self._runner.async_context(attempt, self._loop.io)
        handler = attempt.handler
        place.task = self._loop.run(
            awaited(handler.function, attempt.task, place.ctx), handler.task_type, partial(self._ran, place, attempt, place.ctx)
        )
        if handler.timeout_s is not None:
            left_s = attempt.deadline_s - self._clock.monotonic()
            place.timer = self._loop.soon(self._cancel_late, place, after_s=max(0.0, left_s))

    def _cancel_late(self, place: _Place) -> None:
        if place.task is not None:
            place.late = True
            place.task.cancel()
            place.timer = self._loop.soon(self._give_up, place, after_s=CANCEL_LIMIT_S)

    def _give_up(self, place: _Place) -> None:
        """It was cancelled and goes on: its task has failed all the same, and its place is free."""
        if place.attempt is not None and place.ctx is not None:
            place.given_up = True
            log("handler_uncancelled", task_id=place.attempt.task.task_id, task_type=place.attempt.task.task_type)
            self._judge(place, place.attempt, with_output(overdue(place.attempt.handler.timeout_s), place.ctx.ended()))

    def _ran(self, place: _Place, attempt: Attempt, ctx: AsyncContext, task: asyncio.Task[Any]) -> None:
        """The handler has returned, or was cancelled."""
        if place.timer is not None:
            place.timer.cancel()
        if place.given_up:
            return
        # A task that is cancelled before its first step says nothing.
        answer = Answer(Said.FAILED, error_type="CancelledError") if task.cancelled() else task.result()
        if self._ending and answer.error_type == "CancelledError":
            # By us, at the end: the worker hands it back, and no attempt is spent.
            self._dropped_count += 1
            self._settle_soon()
            return
        self._returned.append((place, attempt, with_output(overdue(attempt.handler.timeout_s) if place.late else answer, ctx.ended())))
        self._settle_soon()

    def _judge(self, place: _Place, attempt: Attempt, answer: Answer) -> None:
        if answer.said in _QUIET and not attempt.marked:
            self._end(place, self._runner.judged(attempt, answer))
        else:
            self._loop.aside(partial(self._runner.judged, attempt, answer), partial(self._end, place))

    def _end(self, place: _Place, finished: Finished) -> None:
        taken_s = self._clock.monotonic() - place.began_s
        self._ran_count += 1
        self._ran_s += taken_s
        self._longest_s = max(self._longest_s, taken_s)
        self._running.discard(place)
        self._keep(finished)
        self._settle_soon()

    def _keep(self, finished: Finished) -> None:
        self._ended_count += 1
        self._finished.append(finished)

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
        for place in self._running:
            if place.task is not None:
                place.task.cancel()
