"""What a message of another's making says, whatever its form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from batch.model.errors import MessageRefused
from batch.model.message import Task


@dataclass(frozen=True, slots=True)
class Read:
    """`identity` is what makes it the same task whenever its subscription delivers it; `task_type` is empty where it names none.
    `unwanted`: why no handler is to have it, empty where one is."""

    identity: str
    task_type: str
    fields: Mapping[str, Any]
    data: bytes
    unwanted: str = ""


class EventUnwanted(MessageRefused):
    """A bucket's event of a type that its lane does not run: `task` ends `cancelled` with this reason, and no handler has it."""

    def __init__(self, reason: str, task: Task) -> None:
        self.task = task
        super().__init__("unwanted", reason)
