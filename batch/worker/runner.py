"""One delivery through its handler, in the thread that calls: admission, the handler, the verdict. Whatever a handler does, `run`
returns a value."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

from batch.events import log
from batch.handling.answer import Answer, Said, called
from batch.handling.context import AsyncContext, Context, HowFar
from batch.model.clock import Clock
from batch.model.delivery import Delivery
from batch.model.errors import FanoutError, text_of
from batch.services.ports import ObjectStore
from batch.worker.admission import Admission
from batch.worker.attempt import Attempt
from batch.worker.committing.verdicts import FAULT_WAIT_S, Verdicts, back
from batch.worker.finished import Finished

Call = Callable[[Attempt], Answer]
"""How an executor runs an attempt's handler; never raises for what user code does."""


@dataclass(slots=True)
class Runner:
    """What all executors of one worker share. `how_far`: what handlers that run have said of their progress, by task id. `alone` runs a
    quarantined, in a process of its own; `at_end` is called once what still runs was handed back."""

    admission: Admission
    verdicts: Verdicts
    store: ObjectStore
    clock: Clock
    stopping: threading.Event = field(default_factory=threading.Event)
    how_far: dict[str, HowFar] = field(default_factory=dict)
    alone: Call = field(init=False)
    at_end: Callable[[], None] = field(default=lambda: None, init=False)

    def run(self, delivery: Delivery, call: Call | None = None) -> Finished:
        """What becomes of this delivery; `call` runs the handler (in this thread by default)."""

        try:
            admitted = self.admission.attempt(delivery)
            if not isinstance(admitted, Attempt):
                return admitted
            return self.verdicts.finished(admitted, (call or self.here)(admitted))
        except Exception as error:  # noqa: BLE001 - a fault of ours must not take the other messages along
            return self._fault(delivery, error)

    def admitted(self, delivery: Delivery) -> Attempt | Finished:
        """The first part of `run`, for executors that run handlers elsewhere."""
        try:
            return self.admission.attempt(delivery)
        except Exception as error:  # noqa: BLE001 - as above
            return self._fault(delivery, error)

    def judged(self, attempt: Attempt, answer: Answer) -> Finished:
        """The last part of `run`."""
        try:
            return self.verdicts.finished(attempt, answer)
        except Exception as error:  # noqa: BLE001 - as above
            return self._fault(attempt.delivery, error)

    def together(self, attempts: Sequence[Attempt], results: Sequence[Any], outputs: Sequence[str]) -> list[Finished]:
        """As `judged`, for attempts that one call has ended, none of them marked: all have returned."""
        try:
            return self.verdicts.together(attempts, results, outputs)
        except Exception:  # noqa: BLE001 - one of them: that one is found when each is judged by itself
            answers = (Answer(Said.RETURNED, result, output) for result, output in zip(results, outputs, strict=True))
            return [self.judged(attempt, answer) for attempt, answer in zip(attempts, answers, strict=True)]

    def run_quarantined(self, attempt: Attempt) -> Finished:
        """The rest of `run` for an attempt that was admitted as a quarantined task. Waits for its turn and its end."""
        try:
            return self.verdicts.finished(attempt, self.alone(attempt))
        except Exception as error:  # noqa: BLE001 - as above
            return self._fault(attempt.delivery, error)

    def _fault(self, delivery: Delivery, error: Exception) -> Finished:
        if isinstance(error, FanoutError):
            # Of ours only a service's errors come this far; one that says the request was wrong is no fault of the task either.
            return self.verdicts.unserved(delivery, text_of(error))
        stack = "".join(traceback.format_exception(error))
        log("runner_fault", message_id=delivery.message_id, error=text_of(error), exception=stack)
        return back(delivery, FAULT_WAIT_S)

    def context(self, attempt: Attempt) -> Context:
        """For a plain function."""
        return Context(
            attempt.task,
            self.store,
            self.clock,
            attempt.before.attempt_count + 1,
            attempt.deadline_s,
            attempt.payload,
            self.stopping,
            [],
            self.how_far,
        )

    def async_context(self, attempt: Attempt, pool: Executor) -> AsyncContext:
        """For an async function; its requests run in the threads of `pool`."""
        return AsyncContext(
            attempt.task,
            self.store,
            self.clock,
            attempt.before.attempt_count + 1,
            attempt.deadline_s,
            attempt.payload,
            self.stopping,
            [],
            self.how_far,
            pool,
        )

    def here(self, attempt: Attempt) -> Answer:
        """Call a sync handler in this thread."""
        ctx = self.context(attempt)
        return with_output(called(attempt.handler.function, attempt.task, ctx), ctx.ended())


def with_output(answer: Answer, output: str) -> Answer:
    """The answer of a handler, with the name of what it wrote last if it has returned."""
    if output and answer.said is Said.RETURNED:
        answer.output = output
    return answer
