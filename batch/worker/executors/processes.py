"""Isolation: how an attempt's handler is run in a child process. Each thread of isolated handlers has a child of its own, made when the
first attempt needs it and replaced when it is gone."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from dataclasses import astuple, dataclass, field
from functools import partial
from typing import Any

from batch.events import log
from batch.handling.answer import Answer, Said
from batch.handling.cancels import Cancel
from batch.handling.registry import Kind
from batch.logs import trace_field
from batch.model.clock import Clock
from batch.services.ports import ObjectStore
from batch.settings import WorkerSettings
from batch.worker.attempt import Attempt, Work
from batch.worker.executors.child_process import CannotStart, Child, NeverBegan, Order
from batch.worker.executors.environment import environment_of_child, hint
from batch.worker.executors.runner import Parts
from batch.worker.executors.running import Where
from batch.worker.executors.threads import ThreadExecutor
from batch.worker.ready_queue import ReadyQueue

START_TRIES = 2
_NOT_RUN = Answer(Said.SNOOZED, after_s=0.0)
"""The worker ends: the message goes back, if that has not been done already, and no attempt is spent."""


def process_count(settings: WorkerSettings) -> int:
    """How many children work at a time."""
    return settings.processes or os.cpu_count() or 1


@dataclass(slots=True)
class Isolation:
    """The children of one worker. `end_s` (monotonic) is when every handler must be through; `broken` is told what no other child would
    do better; `cancelled_by` is asked for the entry that cancels an attempt's task."""

    settings: WorkerSettings
    store: ObjectStore
    clock: Clock
    stopping: threading.Event
    end_s: float
    broken: Callable[[str], None]
    cancelled_by: Callable[[Attempt], Cancel | None] = lambda _attempt: None
    _own: threading.local = field(default_factory=threading.local, init=False)
    _children: set[Child] = field(default_factory=set, init=False)
    _running: dict[str, Child] = field(default_factory=dict, init=False)
    """By ack id: the child that runs an attempt."""
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _over: bool = field(default=False, init=False)
    _unable: str = field(default="", init=False)

    def call(self, attempt: Attempt) -> Answer:
        """Run an attempt in this thread's child. Never raises for what the handler does."""
        return self.guarded(lambda: self._with_own_child(attempt))

    def alone(self, attempt: Attempt, timeout_s: float, memory_mb: int) -> Answer:
        """Run an attempt in a child that serves nothing else, before or after."""

        def run() -> Answer:
            child = self._started(as_in_worker=attempt.handler.kind is not Kind.PROCESS)
            try:
                return self._run(child, attempt, timeout_s, memory_mb)
            finally:
                self._give_up(child)

        return self.guarded(run)

    def guarded(self, run: Callable[[], Answer]) -> Answer:
        """Tries again where no handler had begun; a child that cannot be started spends no attempt."""
        reason = ""
        for _ in range(START_TRIES):
            try:
                answer = run()
            except NeverBegan as error:
                reason = f"a process for isolated handlers ended before the handler began: it {error}"
                continue
            except CannotStart as error:
                if self.stopping.is_set():
                    return _NOT_RUN
                reason = f"{error}{hint(str(error), os.environ, self.settings.child_environment)}"
                if error.lasting:
                    self._unable = reason
                    self.broken(reason)
                break
            if answer.error_type == "KeyError":
                answer.reason += hint(answer.reason, os.environ, self.settings.child_environment)
            return _NOT_RUN if self._over else answer
        if self._over:
            return _NOT_RUN
        log("child_failed", error=reason)
        return Answer(Said.DEPENDENCY, reason=reason)

    def leave(self) -> None:
        """This thread needs its child no more."""
        child = getattr(self._own, "child", None)
        if child is not None:
            self._own.child = None
            self._give_up(child)

    def abandon(self) -> None:
        """The worker ends and has nacked what still runs: end the processes, and let nothing be said of their attempts."""
        with self._lock:
            self._over = True
            children = list(self._children)
        for child in children:
            child.abandon()

    def _with_own_child(self, attempt: Attempt) -> Answer:
        child = getattr(self._own, "child", None)
        if child is None or not child.idle():
            self.leave()
            child = self._own.child = self._started()
        answer = self._run(child, attempt, attempt.handler.timeout_s, attempt.handler.memory_mb)
        if not child.idle():
            self.leave()
        return answer

    def where(self, ack_id: str) -> Where | None:
        """Where the handler of an attempt is; None until its child has said so."""
        child = self._running.get(ack_id)
        return Where("its process is being started") if child is None else child.where()

    def _run(self, child: Child, attempt: Attempt, timeout_s: float | None, memory_mb: int | None) -> Answer:
        self._running[attempt.ack_id] = child
        try:
            return child.run(self._order(attempt, timeout_s, memory_mb))
        finally:
            del self._running[attempt.ack_id]

    def _started(self, *, as_in_worker: bool = False) -> Child:
        """`as_in_worker`: with the whole environment, for a handler that has it otherwise too."""
        if self._unable:
            raise CannotStart(self._unable)
        hello = {
            "kind": "hello",
            "path": sys.path,
            "modules": self.settings.handlers,
            "bucket_name": self.store.bucket_name,
            "log_level": self.settings.log_level,
            "forms": astuple(self.settings.forms),
        }
        environment = dict(os.environ) if as_in_worker else environment_of_child(os.environ, self.settings.child_environment)
        child = Child(hello, environment, self.store, self.clock, self.stopping)
        with self._lock:
            self._children.add(child)
        try:
            child.get_ready()
        except CannotStart:
            self._give_up(child)
            raise
        return child

    def _give_up(self, child: Child) -> None:
        child.close()
        with self._lock:
            self._children.discard(child)

    def _order(self, attempt: Attempt, timeout_s: float | None, memory_mb: int | None) -> Order:
        """The limit counts from now: how long a child took to start is not the handler's fault."""
        now_s = self.clock.monotonic()
        until_s = None if timeout_s is None else now_s + timeout_s
        delivery, task = attempt.delivery, attempt.task
        header = {
            "attributes": dict(delivery.attributes),
            "message_id": delivery.message_id,
            "published_s": delivery.published_s,
            "lane": self.settings.lane_name,
            "number": attempt.number,
            "remaining_s": min(self.end_s, self.end_s if until_s is None else until_s) - now_s,
            "memory_mb": memory_mb,
            "traceparent": attempt.traceparent,
        }
        traced = trace_field(delivery.attributes, attempt.traceparent)
        facts = {"task_id": task.task_id, "task_type": task.task_type, "attempt": attempt.number, **traced}
        return Order(header, delivery.data, until_s, timeout_s, facts, partial(self.cancelled_by, attempt))


class ProcessExecutor(ThreadExecutor):
    """Threads whose handlers run in children, one child a thread."""

    def __init__(self, isolation: Isolation, concurrency: int, queue: ReadyQueue, parts: Parts) -> None:
        super().__init__(concurrency, queue, parts, isolation.call)
        self._isolation = isolation

    def _where(self, _slot: object, work: Work) -> Where | None:
        return self._isolation.where(work.ack_id)

    def shut_down(self) -> None:
        """As for threads; and what still runs was nacked: its process ends, and nothing is said of its attempt."""
        super().shut_down()
        self._isolation.abandon()

    def _run(self, *slot: Any) -> None:
        try:
            super()._run(*slot)
        finally:
            self._isolation.leave()
