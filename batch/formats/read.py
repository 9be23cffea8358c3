"""What a message of another's making says, whatever its form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Read:
    """`identity` is what makes it the same task whenever it comes; `task_type` is empty where it names none. `unwanted`: why no handler is
    to have it, empty where one is."""

    identity: str
    task_type: str
    fields: Mapping[str, Any]
    data: bytes
    unwanted: str = ""
