"""Intents: launches that were decided, part by part, from before they are tried until they are known to be done. Pure values.

An intent is saved before the first call, so that a crash in between leaves a trace that the next tick can follow.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from batch.model.shares import share
from controller.model.execution import MAX_WORKERS_PER_EXECUTION
from controller.model.plain import finite


class PartState(StrEnum):
    PENDING = "pending"
    """Saved; perhaps tried, perhaps not."""
    LAUNCHED = "launched"
    REFUSED = "refused"
    """Cloud Run said no, or an earlier part failed: nothing was started."""
    ABANDONED = "abandoned"
    """Not found in time. Its claim is taken, so that workers of a late execution end before they pull."""


@dataclass(frozen=True, slots=True)
class Part:
    """One execution of a decision: at most 10,000 workers. `decision_id` is `<id>.<part>`, what the workers see."""

    decision_id: str
    workers: int
    backlog: int
    state: PartState = PartState.PENDING
    execution: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Intent:
    """`saved_at` is Unix seconds."""

    decision_id: str
    saved_at: float
    parts: tuple[Part, ...]

    @property
    def pending(self) -> bool:
        return any(part.state is PartState.PENDING for part in self.parts)

    def age_s(self, now: float) -> float:
        """Seconds since it was saved; as many where that is still to come, for one of the clocks was wrong."""
        return abs(now - self.saved_at)

    def with_part(self, changed: Part) -> Intent:
        """The intent with the part of the same id replaced."""
        return replace(self, parts=tuple(changed if part.decision_id == changed.decision_id else part for part in self.parts))


def new_decision_id(now: float, rng: random.Random) -> str:
    """`20260131T120000123-9f2c04d1`: sorts by time; the random end keeps two controllers apart."""
    moment = datetime.fromtimestamp(now, UTC)
    return f"{moment:%Y%m%dT%H%M%S}{moment.microsecond // 1000:03d}-{rng.getrandbits(32):08x}"


def split(decision_id: str, workers: int, backlog: int, most: int = MAX_WORKERS_PER_EXECUTION) -> tuple[Part, ...]:
    """Parts of at most `most` workers. Each gets the messages that its workers would have had in one large execution, so no share grows
    and the parts sum to `backlog`."""
    parts: list[Part] = []
    for number, first in enumerate(range(0, workers, most)):
        last = min(first + most, workers)
        messages = sum(share(backlog, workers, index) for index in range(first, last))
        parts.append(Part(f"{decision_id}.{number}", last - first, messages))
    return tuple(parts)


def to_json(intent: Intent) -> dict[str, Any]:
    return asdict(intent)


def from_json(body: Mapping[str, Any]) -> Intent:
    """Raises KeyError, TypeError or ValueError on what is no intent."""
    parts = tuple(
        Part(
            str(part["decision_id"]),
            int(part["workers"]),
            int(part["backlog"]),
            PartState(part["state"]),
            str(part["execution"]),
            str(part["reason"]),
        )
        for part in body["parts"]
    )
    return Intent(str(body["decision_id"]), finite(body["saved_at"]), parts)
