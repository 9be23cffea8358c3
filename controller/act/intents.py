"""Intents: launches that were decided, part by part, from before they are tried until it is known what became of them. Pure values.

An intent is saved before the first call, so that a crash in between leaves a trace that the next tick can follow.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum

from batch.model.shares import share
from controller.model.execution import MAX_WORKERS_PER_EXECUTION


class PartState(StrEnum):
    """What is known of a part's launch."""

    PENDING = "pending"
    """Saved; it may have been tried."""
    LAUNCHED = "launched"
    REFUSED = "refused"
    """Cloud Run refused it, or an earlier part failed: nothing was started."""
    ABANDONED = "abandoned"
    """No execution was found in time. Its claim is taken, so that workers of a late execution end before they pull."""


@dataclass(frozen=True, slots=True)
class Part:
    """One execution of a decision: at most 10,000 workers. `decision_id` is `<id>.<part>`, what the workers see. The first of its messages
    came at `waited_since` (Unix seconds) at the earliest; None if nothing is known of them."""

    decision_id: str
    workers: int
    backlog: int
    state: PartState = PartState.PENDING
    execution: str = ""
    reason: str = ""
    waited_since: float | None = None


@dataclass(frozen=True, slots=True)
class Intent:
    """One launch: its parts, saved at `saved_at` (Unix seconds)."""

    decision_id: str
    saved_at: float
    parts: tuple[Part, ...]

    @property
    def pending(self) -> bool:
        """Whether it is unknown what became of a part."""
        return any(part.state is PartState.PENDING for part in self.parts)

    def age_s(self, now: float) -> float:
        """Seconds between `saved_at` and `now`; if `saved_at` is ahead, one of the clocks was wrong, and it counts the same."""
        return abs(now - self.saved_at)

    def with_part(self, changed: Part) -> Intent:
        """The intent with `changed` in place of the part with its id."""
        return replace(self, parts=tuple(changed if part.decision_id == changed.decision_id else part for part in self.parts))


def new_decision_id(now: float, rng: random.Random) -> str:
    """`20260131T120000123-9f2c04d1`: sorts by time; the random end keeps two controllers apart."""
    return f"{id_begin(now)}-{rng.getrandbits(32):08x}"


def id_begin(now: float) -> str:
    """What ids of decisions begin with that were made in this millisecond (Unix seconds)."""
    moment = datetime.fromtimestamp(now, UTC)
    return f"{moment:%Y%m%dT%H%M%S}{moment.microsecond // 1000:03d}"


def parts_for(
    decision_id: str, workers: int, backlog: int, most: int = MAX_WORKERS_PER_EXECUTION, *, waited_since: float | None = None
) -> tuple[Part, ...]:
    """Parts of at most `most` workers for messages that came at `waited_since` (Unix seconds) at the earliest. Each is assigned those that
    its workers would have had in one large execution, so no share grows and the parts sum to `backlog`."""
    parts: list[Part] = []
    for number, first in enumerate(range(0, workers, most)):
        last = min(first + most, workers)
        messages = sum(share(backlog, workers, index) for index in range(first, last))
        parts.append(Part(f"{decision_id}.{number}", last - first, messages, waited_since=waited_since))
    return tuple(parts)
