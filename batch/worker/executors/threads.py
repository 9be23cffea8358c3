"""The threads that run plain handlers. Daemon threads, not a pool: a pool's exit waits for a handler that is stuck.

A thread takes a short list at once when handlers are quick. What it has taken and not started, and what it has finished and not handed
over, never waits behind a slow handler: others can reach both.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from functools import partial

from batch.events import log
from batch.handling.answer import Answer
from batch.worker.attempt import Attempt, Finished, Work
from batch.worker.executors.overdue import Overtaken, is_overdue, most_lost, timed_out, too_many
from batch.worker.executors.runner import Call, Parts
from batch.worker.executors.running import Running, Where
from batch.worker.flow import chunk_size
from batch.worker.ready_queue import ReadyQueue, next_of, taken_from
from batch.worker.watchdog import stack_of

HAND_OVER_S = 0.25
"""What is finished is handed over, and what waits behind one handler is given to other threads, after this time."""


@dataclass(slots=True)
class _TaskSlot:
    """What one thread has taken. It works from the left of `waiting`; deques, because other threads take from them as well."""

    waiting: deque[Work] = field(default_factory=deque)
    finished: deque[Finished] = field(default_factory=deque)
    current: Work | None = None
    timed: Attempt | None = None
    """The attempt that runs, or ran last, if it has a time limit; its `claim` says who gives the answer."""
    began_s: float = 0.0
    thread: threading.Thread | None = None
    overdue: tuple[Attempt, str] | None = None
    """What the thread before this one did not end, and where it hangs."""


class ThreadExecutor:
    """`concurrency` threads between their queue and the committer's inbox."""

    def __init__(self, concurrency: int, queue: ReadyQueue, parts: Parts, call: Call | None = None) -> None:
        """`call` runs an attempt's handler; in the executor's own threads by default."""
        self.concurrency = concurrency
        self.queue = queue
        self._call = call
        self._runner, self._inbox, self._tally, self._clock = parts.runner, parts.inbox, parts.tally, parts.clock
        self._failed, self._unstarted = parts.failed, parts.unstarted
        self._slots = [_TaskSlot() for _ in range(concurrency)]
        self._lost: list[threading.Thread] = []

    def start(self) -> None:
        for number, slot in enumerate(self._slots):
            self._start(number, slot)

    def _start(self, number: int, slot: _TaskSlot) -> None:
        slot.thread = threading.Thread(target=self._run, args=(slot,), name=f"handler-{number}", daemon=True)
        slot.thread.start()

    @property
    def busy_count(self) -> int:
        return sum(slot.current is not None for slot in self._slots)

    def running(self) -> list[Running]:
        """One with a time limit as the attempt that it has become: who tells how it ended must claim it."""
        current = [(slot, slot.current, slot.timed, slot.began_s) for slot in self._slots]
        return [
            Running([timed if timed and timed.ack_id == work.ack_id else work], began_s, partial(self._where, slot, work))
            for slot, work, timed, began_s in current
            if work is not None
        ]

    def _where(self, slot: _TaskSlot, _work: Work) -> Where | None:
        return Where(stack_of(slot.thread.ident if slot.thread else None))

    def flush(self) -> None:
        """Where a handler has been running for long: hand over what its thread has finished, let others have what waits behind it."""
        now_s = self._clock.monotonic()
        for slot in self._slots:
            if slot.current is not None and now_s - slot.began_s >= HAND_OVER_S:
                self._hand_over(slot)
                self._unstarted.nack(self.queue.put_front(taken_from(slot.waiting)))
        for number, slot in enumerate(self._slots):
            attempt = slot.timed
            if attempt is not None and is_overdue(attempt, now_s) and attempt.claimed():
                self._replace(number, slot, attempt)

    def _replace(self, number: int, lost: _TaskSlot, attempt: Attempt) -> None:
        """Give up a thread whose handler is past its time limit; a fresh one records that, and goes on."""
        stack = stack_of(lost.thread.ident if lost.thread else None)
        facts = {"task_id": attempt.task.task_id, "task_type": attempt.task.task_type, "timeout_s": attempt.handler.timeout_s}
        log("handler_timed_out", **facts, stack=stack)
        self._hand_over(lost)
        fresh = self._slots[number] = _TaskSlot(deque(taken_from(lost.waiting)), current=attempt, began_s=lost.began_s)
        fresh.overdue = (attempt, stack)
        self._start(number, fresh)
        hanging = self._lost = [thread for thread in (*self._lost, lost.thread) if thread is not None and thread.is_alive()]
        if len(hanging) >= most_lost(self.concurrency):
            self._failed(too_many(len(hanging), attempt))

    def shut_down(self) -> None:
        """What is finished goes to the committer, what has not started is nacked."""
        for slot in self._slots:
            self._hand_over(slot)
            self._unstarted.nack(taken_from(slot.waiting))

    def _run(self, slot: _TaskSlot) -> None:
        try:
            if slot.overdue is not None:
                self._record(slot, *slot.overdue)
            while chunk := self.queue.take(lambda waiting: chunk_size(threads=self.concurrency, ready=waiting, mean_s=self._tally.mean_s)):
                slot.waiting.extend(chunk)
                del chunk  # or it would keep the data of its messages while this thread waits for the next
                self.round(slot)
        except Overtaken:
            return
        except BaseException as error:  # noqa: BLE001 - a thread that dies in silence would leave its messages to expire
            self._failed(error)

    def _record(self, slot: _TaskSlot, attempt: Attempt, stack: str) -> None:
        """What the thread before this one did not end: a failed attempt; then what waited behind it."""
        slot.finished.append(self._runner.judged(attempt, timed_out(attempt, stack)))
        slot.current = None
        took_s = self._clock.monotonic() - attempt.began_s
        self._tally.ran(1, took_s, took_s)
        self._hand_over(slot)
        self.round(slot)

    def _in_time(self, slot: _TaskSlot, attempt: Attempt) -> Answer:
        """Run the handler in this thread. Raises Overtaken when its time was over before it came back."""
        if attempt.handler.timeout_s is None:
            return self._runner.here(attempt)
        attempt.claim = threading.Lock()
        slot.timed = attempt
        answer = self._runner.here(attempt)
        if not attempt.claimed():
            raise Overtaken
        slot.timed = None
        return answer

    def round(self, slot: _TaskSlot) -> None:
        """Run what the thread has taken. Once the worker is stopping, what has not started is nacked."""
        now_s = began_s = handed_s = self._clock.monotonic()
        longest_s = 0.0
        count = 0
        call = self._call or partial(self._in_time, slot)
        while (work := next_of(slot.waiting)) is not None:
            if self._runner.stopping.is_set():
                self._unstarted.nack([work, *taken_from(slot.waiting)])
                break
            slot.began_s = now_s
            slot.current = work
            slot.finished.append(self._runner.run(work, call))
            slot.current = None
            count += 1
            now_s = self._clock.monotonic()
            longest_s = max(longest_s, now_s - slot.began_s)
            if now_s - handed_s >= HAND_OVER_S:
                self._hand_over(slot)
                handed_s = now_s
        self._tally.ran(count, self._clock.monotonic() - began_s, longest_s)
        self._hand_over(slot)

    def _hand_over(self, slot: _TaskSlot) -> None:
        finished = taken_from(slot.finished)
        if finished:
            self._inbox.put(finished)
