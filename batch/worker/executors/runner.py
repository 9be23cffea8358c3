"""One delivery through its handler, in the thread that calls: admission, the handler, the verdict. Whatever a handler does, `run`
returns a value."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

from batch.events import log
from batch.handling.answer import MAX_TRACEBACK_CHARS, Answer, Said, called
from batch.handling.cancels import Cancels
from batch.handling.context import AsyncContext, Context, HowFar
from batch.model.clock import Clock
from batch.model.delivery import Delivery
from batch.model.errors import FanoutError, ServiceRefused, text_of
from batch.model.texts import traceback_text
from batch.services.ports import ObjectStore
from batch.telemetry.ports import AttemptWatch
from batch.worker.admission.admission import Admission
from batch.worker.admission.verdicts import FAULT_WAIT_S, Verdicts
from batch.worker.attempt import Attempt, Finished, Nack, Work, delivery_of, nack_after
from batch.worker.tally import Tally
from batch.worker.unstarted import Unstarted

Call = Callable[[Attempt], Answer]
"""How an executor runs an attempt's handler; never raises for what user code does."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Parts:
    """What every executor of a worker shares. `inbox` is the committer's; `failed` is called when an executor itself breaks, which
    ends the worker."""

    runner: Runner
    inbox: SimpleQueue[list[Finished] | None]
    tally: Tally
    clock: Clock
    failed: Callable[[BaseException], None]
    unstarted: Unstarted


@dataclass(slots=True)
class Runner:
    """What all executors of one worker share. `how_far`: what handlers that run have said of their progress, by task id; `unable` is called
    with the reason when no worker can keep its records."""

    admission: Admission
    verdicts: Verdicts
    store: ObjectStore
    clock: Clock
    stopping: threading.Event = field(default_factory=threading.Event)
    how_far: dict[str, HowFar] = field(default_factory=dict)
    unable: Callable[[str], None] = lambda _reason: None
    watch: AttemptWatch | None = None
    cancels: Cancels = field(init=False)

    def __post_init__(self) -> None:
        self.cancels = self.verdicts.cancels

    def run(self, work: Work, call: Call) -> Finished:
        """What becomes of this message; `call` runs the handler."""
        try:
            attempt = self._begun(work)
            return self.verdicts.finished(attempt, call(attempt)) if isinstance(attempt, Attempt) else attempt
        except Exception as error:  # noqa: BLE001 - as in `_guarded`
            return self._fault(work, error)

    def begun(self, work: Work) -> Attempt | Finished:
        """The first part of `run`, for executors that run handlers elsewhere."""
        return self._guarded(self._begun, work)

    def all_begun(self, works: Sequence[Work]) -> list[Attempt | Finished]:
        """As `begun`, for messages that one call takes."""
        try:
            return [self._begun(one) for one in works]
        except Exception:  # noqa: BLE001 - one of them: that one is found when each is begun by itself
            return [self.begun(one) for one in works]

    def judged(self, attempt: Attempt, answer: Answer) -> Finished:
        """The last part of `run`."""
        return self._guarded(self.verdicts.finished, attempt, answer)

    def judged_at_once(self, attempt: Attempt, answer: Answer) -> Finished | None:
        """As `judged`, of one that has no marker and has returned or yielded, without a request; None when it takes one: the result is
        refused, which is a failed attempt."""
        try:
            return self.verdicts.returned(attempt, answer) if answer.said is Said.RETURNED else self.judged(attempt, answer)
        except Exception:  # noqa: BLE001 - whatever it is, `judged` meets it again
            return None

    def decoded(self, delivery: Delivery) -> Attempt | Finished:
        """The attempt that a message asks for, before the bucket was asked about it."""
        return self._guarded(self.admission.decoded, delivery)

    def given_up(self, work: Work, reason: str) -> Finished:
        """As `Admission.given_up`."""
        return self._guarded(self.admission.given_up, work, reason)

    def put_off(self, attempt: Attempt) -> Finished | None:
        """What becomes, unrun, of one that was delivered before, as far as that takes no look at its record."""
        return self.verdicts.unstarted(attempt) or self._guarded(self.verdicts.slowed_types.put_off_again, attempt)

    def readmitted(self, attempt: Attempt, *, mark_quarantined: bool = True) -> Finished | None:
        """As `Admission.readmit`."""
        return self._guarded(partial(self.admission.readmit, mark_quarantined=mark_quarantined), attempt)

    def together(self, attempts: Sequence[Attempt], results: Sequence[Any], outputs: Sequence[str]) -> list[Finished] | None:
        """As `judged_at_once`, for attempts that one call has ended; None when one of them takes a request."""
        try:
            return self.verdicts.together(attempts, results, outputs)
        except Exception:  # noqa: BLE001 - one of them: that one is found when each is judged by itself
            return None

    def _begun(self, work: Work) -> Attempt | Finished:
        if isinstance(work, Attempt):
            work.began_s = self.clock.monotonic()
            if self.cancels.by_id and (cancelled := self.verdicts.unstarted(work)):
                return cancelled
            return self.admission.begin(work) or self._watched(work)
        attempt = self.admission.decoded(work)
        if not isinstance(attempt, Attempt):
            return attempt
        if self.cancels.by_id and (cancelled := self.verdicts.unstarted(attempt)):
            return cancelled
        slowed_types = self.verdicts.slowed_types
        if slowed_types.slowing.slowed and (unrun := slowed_types.put_off(attempt)):
            return unrun
        return self.admission.begin(attempt) or (attempt if self.watch is None else self._watched(attempt))

    def _watched(self, attempt: Attempt) -> Attempt:
        """With its span, where its message is sampled."""
        if self.watch is not None:
            task = attempt.task
            attempt.span = self.watch.begin(attempt.delivery, task.task_id, task.task_type, attempt.number)
        return attempt

    def _guarded(self, step: Callable[..., T], work: Work, *arguments: Any) -> T | Nack:
        """A fault of ours, or a service that fails, sends this message back; the others go on."""
        try:
            return step(work, *arguments)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other messages must not be lost with it
            return self._fault(work, error)

    def _fault(self, work: Work, error: Exception) -> Nack:
        if isinstance(error, FanoutError):
            # Of ours only a service's errors come this far; one that says the request was wrong is no fault of the task either.
            if isinstance(error, ServiceRefused):
                # A bucket that keeps its objects: where attempts cannot be recorded, a task would fail again and again, uncounted.
                self.unable(text_of(error))
            return self.verdicts.unserved(work, text_of(error))
        stack = traceback_text(error, MAX_TRACEBACK_CHARS)
        log("runner_fault", message_id=delivery_of(work).message_id, error=text_of(error), exception=stack)
        return nack_after(work, FAULT_WAIT_S)

    def context(self, attempt: Attempt, kind: type[Any] = Context) -> Any:
        """For a plain function; with another `kind` of context for others."""
        number, deadline_s = attempt.before.attempt_count + 1, attempt.deadline_s
        attributes, payload, how_far = attempt.delivery.attributes, attempt.payload, self.how_far
        stopping, cancels = self.stopping, self.cancels
        trace = "" if attempt.span is None else attempt.span.traceparent
        return kind(attempt.task, self.store, self.clock, number, deadline_s, payload, stopping, [], how_far, attributes, cancels, trace)

    def async_context(self, attempt: Attempt, pool: Executor) -> AsyncContext:
        """For an async function; its requests run in the threads of `pool`."""
        ctx: AsyncContext = self.context(attempt, AsyncContext)
        ctx.pool = pool
        return ctx

    def here(self, attempt: Attempt) -> Answer:
        """Call a sync handler in this thread."""
        ctx = self.context(attempt)
        answer = called(attempt.handler.function if attempt.span is None else attempt.function, attempt.task, ctx)
        output = ctx.ended()
        return with_output(answer, output) if output else answer


def with_output(answer: Answer, output: str) -> Answer:
    """The answer of a handler, with the name of what it wrote last if it has returned."""
    if output and answer.said is Said.RETURNED:
        answer.output = output
    return answer
