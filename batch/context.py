"""What a handler may touch besides its task: the bucket, the time it has left, and a logger that knows the task."""

from __future__ import annotations

import logging
import threading
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Any

from batch.clock import Clock
from batch.message import Task
from batch.objects import ObjectStore
from batch.results import Written, write_output


class TaskLogger(logging.LoggerAdapter[logging.Logger]):
    """Adds the task's id and type to every line."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**(self.extra or {}), **kwargs.get("extra", {})}
        return msg, kwargs


@dataclass(slots=True)
class Context:
    """One attempt's surroundings. `attempt` counts runs of the handler from 1; `deadline_s` is monotonic (None: no limit);
    `payload` is the validated model when the handler names one; `stopping` is set when the worker has been told to end."""

    task: Task
    store: ObjectStore
    clock: Clock
    attempt: int = 1
    deadline_s: float | None = None
    payload: Any = None
    stopping: threading.Event = field(default_factory=threading.Event)
    outputs: list[Written] = field(default_factory=list)

    @property
    def log(self) -> TaskLogger:
        return TaskLogger(logging.getLogger("fanout.handler"), {"task_id": self.task.task_id, "task_type": self.task.task_type})

    def now(self) -> float:
        """Unix seconds."""
        return self.clock.now()

    def remaining_s(self) -> float:
        """Seconds until the attempt must have ended; infinite without a limit."""
        return float("inf") if self.deadline_s is None else self.deadline_s - self.clock.monotonic()

    def sleep(self, seconds: float) -> None:
        """Pass time, by the worker's clock."""
        self.clock.wait(threading.Event(), seconds)

    def read(self, name: str) -> bytes:
        """An object of the bucket. Raises ObjectMissing, DependencyError."""
        return self.store.read(name)

    def exists(self, name: str) -> bool:
        return self.store.info(name) is not None

    def write(self, name: str, data: bytes, content_type: str = "application/octet-stream") -> Written:
        """Write an output, once per task. Raises Superseded when a newer task has written it: let it pass through."""
        written = write_output(self.store, self.task, name, data, content_type)
        self.outputs.append(written)
        return written
