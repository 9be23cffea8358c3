"""The guard of what belongs to the whole worker process: what a handler in a thread or on the event loop has left changed is put back, and
logged with the task types that it may have been.

It looks now and then, never for each message, and only where the process is a worker's: in a test others own its state. A change is left
alone while a handler runs that ran when it was first seen: it may be a `with` block of that handler's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from batch.events import log
from batch.handling.registry import Kind
from batch.logs import own
from batch.model.clock import Clock
from batch.process_state import ProcessState
from batch.worker.attempt import Attempt, Work

LOOK_EVERY_S = 0.5


@dataclass(slots=True)
class Guard:
    """`task_types` are those that run in this process. Called by one thread."""

    clock: Clock
    task_types: Sequence[str]
    _state: ProcessState = field(default_factory=ProcessState)
    _next_s: float = 0.0
    _ran: Sequence[Work] = ()
    _seen: dict[str, Any] = field(default_factory=dict)
    _maybe: Sequence[Work] = ()
    _types: str = ""
    _logged: set[str] = field(default_factory=set)

    def look(self, running: Callable[[], Sequence[Work]]) -> None:
        """`running` gives the messages whose handlers run."""
        if own.handler is None:
            return
        now_s = self.clock.monotonic()
        if now_s < self._next_s:
            return
        self._next_s = now_s + LOOK_EVERY_S
        self.check(running())

    def check(self, runs: Sequence[Work]) -> None:
        """One look."""
        changed = self._state.changed()
        if changed != self._seen:
            self._seen, self._maybe = changed, [work for work in runs if _here(work)]
            types = {one for work in (*self._ran, *runs) if _here(work) and (one := _task_type(work))}
            self._types = ", ".join(sorted(types or self.task_types))
        self._ran = runs
        if changed and not any(one is work for one in self._maybe for work in runs):
            self._state.put_back(changed)
            self._say(", ".join(changed))
            self._seen, self._maybe = {}, ()

    def _say(self, what: str) -> None:
        if what not in self._logged:
            self._logged.add(what)
            reason = f"{what}, by one of: {self._types}"
            log("process_changed", reason=reason, changed=what, task_types=self._types)


def _here(work: Work) -> bool:
    return not (isinstance(work, Attempt) and (work.handler.kind is Kind.PROCESS or work.quarantined))


def _task_type(work: Work) -> str:
    return work.task.task_type if isinstance(work, Attempt) else work.attributes.get("task_type", "")
