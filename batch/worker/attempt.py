"""An attempt: one delivery whose handler is known and whose turn has come. A value that executors pass around."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from batch.handling.registry import Handler
from batch.model.attempts import NONE, Attempts
from batch.model.delivery import Delivery
from batch.model.message import Task


@dataclass(slots=True)
class Attempt:
    """`before` are the failed attempts on record; `began_s` is monotonic; `deadline_s` (monotonic) is when it must have ended.
    `quarantined`: it may have killed a worker, so it runs alone in a child. `marked`: its start is in the bucket. `counts_as`: the task as
    which its failure counts for the breaker, where one call failed for several."""

    delivery: Delivery
    task: Task
    handler: Handler
    payload: Any
    began_s: float
    deadline_s: float
    before: Attempts = NONE
    quarantined: bool = False
    marked: bool = False
    counts_as: str = ""

    @property
    def number(self) -> int:
        return self.before.attempt_count + 1
