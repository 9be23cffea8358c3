"""One delivery through its handler, in the thread that calls: admission, the handler, the verdict. Whatever a handler does, `run`
returns a value."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

from batch.answer import Answer, Said, called
from batch.clock import Clock
from batch.context import Context
from batch.errors import FanoutError, text_of
from batch.events import log
from batch.objects import ObjectStore
from batch.subscription import Delivery
from batch.worker.admission import Admission
from batch.worker.attempt import Attempt
from batch.worker.finished import Finished
from batch.worker.verdicts import FAULT_WAIT_S, Verdicts, back

Call = Callable[[Attempt], Answer]
"""How an executor runs an attempt's handler; never raises for what user code does."""


@dataclass(slots=True)
class Runner:
    """What all executors of one worker share."""

    admission: Admission
    verdicts: Verdicts
    store: ObjectStore
    clock: Clock
    stopping: threading.Event = field(default_factory=threading.Event)

    def run(self, delivery: Delivery, call: Call | None = None) -> Finished:
        """What becomes of this delivery; `call` runs the handler (in this thread by default)."""

        def whole() -> Finished:
            admitted = self.admission.attempt(delivery)
            return self.verdicts.finished(admitted, (call or self.here)(admitted)) if isinstance(admitted, Attempt) else admitted

        return self.guarded(delivery, whole)

    def guarded(self, delivery: Delivery, step: Callable[[], Finished]) -> Finished:
        """A step of ours that must not take other messages along when it fails."""
        try:
            return step()
        except FanoutError as error:
            # Of ours only a service's errors come this far; one that says the request was wrong is no fault of the task either.
            return self.verdicts.unserved(delivery, text_of(error))
        except Exception as error:  # noqa: BLE001 - a fault of ours must not take the other messages along
            log("runner_fault", message_id=delivery.message_id, error=text_of(error), exception=traceback.format_exc())
            return back(delivery, FAULT_WAIT_S)

    def context(self, attempt: Attempt) -> Context:
        return Context(attempt.task, self.store, self.clock, attempt.number, attempt.deadline_s, attempt.payload, self.stopping)

    def here(self, attempt: Attempt) -> Answer:
        """Call a sync handler in this thread."""
        ctx = self.context(attempt)
        answer = called(lambda: attempt.handler.function(attempt.task, ctx))
        if answer.said is Said.RETURNED and ctx.outputs:
            answer.output = ctx.outputs[-1].name
        return answer
