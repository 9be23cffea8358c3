"""Slots: the threads that run handlers. Daemon threads, not a pool: a pool's exit waits for a handler that is stuck.

A slot takes a short list at once when handlers are quick. What it has taken and not started, and what it has finished and not
handed over, never waits behind a slow handler: others can reach both.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue

from batch.events import log
from batch.handling.answer import Answer
from batch.model.clock import Clock
from batch.model.delivery import Delivery
from batch.worker.attempt import Attempt
from batch.worker.executors.overdue import Overtaken, is_overdue, most_lost, timed_out, too_many
from batch.worker.finished import Finished, Nack
from batch.worker.pulling.flow import chunk_size
from batch.worker.ready_queue import Ready, next_of, taken_from
from batch.worker.runner import Call, Runner
from batch.worker.tally import Tally
from batch.worker.watchdog import stack_of

HAND_OVER_S = 0.25
"""What is finished is handed over, and what waits behind one handler is given to other slots, after this time."""


@dataclass(slots=True)
class _Slot:
    """One thread's hands. The thread works from the left of `waiting`; deques, because others take from them as well."""

    waiting: deque[Delivery] = field(default_factory=deque)
    finished: deque[Finished] = field(default_factory=deque)
    current: Delivery | None = None
    began_s: float = 0.0
    thread: threading.Thread | None = None
    timed: dict[str, Attempt] = field(default_factory=dict)
    """The attempt that runs, by its ack id, if it has a time limit. Whoever takes it out decides what becomes of it: `pop` is one step."""
    overdue: tuple[Attempt, str] | None = None
    """What the thread before this one did not end, and where it hangs."""


class Slots:
    """`count` threads between the ready line and the committer's inbox. `failed` is told when a slot itself breaks."""

    def __init__(
        self,
        count: int,
        ready: Ready,
        inbox: SimpleQueue[list[Finished] | None],
        runner: Runner,
        tally: Tally,
        clock: Clock,
        failed: Callable[[BaseException], None],
        call: Call | None = None,
    ) -> None:
        """`call` runs an attempt's handler; in the slot's own thread by default."""
        self.place_count = count
        self.ready = ready
        self._call = call
        self._inbox = inbox
        self._runner = runner
        self._tally = tally
        self._clock = clock
        self._failed = failed
        self._slots = [_Slot() for _ in range(count)]
        self._lost: list[threading.Thread] = []

    def start(self) -> None:
        for number, slot in enumerate(self._slots):
            self._start(number, slot)

    def _start(self, number: int, slot: _Slot) -> None:
        slot.thread = threading.Thread(target=self._run, args=(slot,), name=f"slot-{number}", daemon=True)
        slot.thread.start()

    @property
    def busy_count(self) -> int:
        """Slots whose handler runs at this moment."""
        return sum(slot.current is not None for slot in self._slots)

    def running(self) -> list[Delivery]:
        """The deliveries whose handlers run at this moment."""
        return [delivery for slot in self._slots if (delivery := slot.current) is not None]

    def relieve(self) -> None:
        """Where a handler has been running for long: hand over what its slot has finished, let other slots have what waits behind it."""
        now_s = self._clock.monotonic()
        for slot in self._slots:
            if slot.current is not None and now_s - slot.began_s >= HAND_OVER_S:
                self._hand_over(slot)
                for delivery in self.ready.put_back(taken_from(slot.waiting)):
                    self._inbox.put([Nack(delivery.ack_id)])
        for number, slot in enumerate(self._slots):
            for ack_id, attempt in slot.timed.copy().items():
                if is_overdue(attempt, now_s) and slot.timed.pop(ack_id, None) is not None:
                    self._replace(number, slot, attempt)

    def _replace(self, number: int, lost: _Slot, attempt: Attempt) -> None:
        """Give up the thread of a slot, whose handler is past its time limit; a fresh one records that, and goes on."""
        stack = stack_of(lost.thread.ident if lost.thread else None)
        facts = {"task_id": attempt.task.task_id, "task_type": attempt.task.task_type, "timeout_s": attempt.handler.timeout_s}
        log("handler_timed_out", **facts, stack=stack)
        self._hand_over(lost)
        fresh = self._slots[number] = _Slot(deque(taken_from(lost.waiting)), current=attempt.delivery, began_s=lost.began_s)
        fresh.overdue = (attempt, stack)
        self._start(number, fresh)
        hanging = self._lost = [thread for thread in (*self._lost, lost.thread) if thread is not None and thread.is_alive()]
        if len(hanging) >= most_lost(self.place_count):
            self._failed(too_many(len(hanging), attempt))

    def reclaim(self) -> None:
        """The end: what is finished goes to the committer, what has not started goes back."""
        for slot in self._slots:
            self._hand_over(slot)
            not_started: list[Finished] = [Nack(delivery.ack_id) for delivery in taken_from(slot.waiting)]
            if not_started:
                self._inbox.put(not_started)

    def _run(self, slot: _Slot) -> None:
        try:
            if slot.overdue is not None:
                self._record(slot, *slot.overdue)
            while chunk := self.ready.take(self._chunk_size):
                slot.waiting.extend(chunk)
                del chunk  # or it would keep the data of its messages while this thread waits for the next
                self.round(slot)
        except Overtaken:
            return
        except BaseException as error:  # noqa: BLE001 - a slot that dies in silence would leave its messages to expire
            self._failed(error)

    def _record(self, slot: _Slot, attempt: Attempt, stack: str) -> None:
        """What the thread before this one did not end: a failed attempt; then what waited behind it."""
        slot.finished.append(self._runner.judged(attempt, timed_out(attempt, stack)))
        slot.current = None
        took_s = self._clock.monotonic() - attempt.began_s
        self._tally.ran(1, took_s, took_s)
        self._hand_over(slot)
        self.round(slot)

    def _in_time(self, slot: _Slot, attempt: Attempt) -> Answer:
        """Run the handler in this thread. Raises Overtaken when its time was over before it came back."""
        if attempt.handler.timeout_s is None:
            return self._runner.here(attempt)
        slot.timed[attempt.delivery.ack_id] = attempt
        answer = self._runner.here(attempt)
        if slot.timed.pop(attempt.delivery.ack_id, None) is None:
            raise Overtaken
        return answer

    def _chunk_size(self, waiting: int) -> int:
        return chunk_size(slots=len(self._slots), ready=waiting, mean_s=self._tally.mean_s)

    def round(self, slot: _Slot) -> None:
        """Run what the slot has taken. Once the worker is stopping, what has not started goes back."""
        now_s = began_s = handed_s = self._clock.monotonic()
        longest_s = 0.0
        count = 0
        call = self._call or partial(self._in_time, slot)
        while (delivery := next_of(slot.waiting)) is not None:
            if self._runner.stopping.is_set():
                slot.finished.append(Nack(delivery.ack_id))
                continue
            slot.began_s = now_s
            slot.current = delivery
            slot.finished.append(self._runner.run(delivery, call))
            slot.current = None
            count += 1
            now_s = self._clock.monotonic()
            longest_s = max(longest_s, now_s - slot.began_s)
            if now_s - handed_s >= HAND_OVER_S:
                self._hand_over(slot)
                handed_s = now_s
        self._tally.ran(count, self._clock.monotonic() - began_s, longest_s)
        self._hand_over(slot)

    def _hand_over(self, slot: _Slot) -> None:
        finished = taken_from(slot.finished)
        if finished:
            self._inbox.put(finished)
