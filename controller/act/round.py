"""What a tick came to: the result of one lane, and the round of all lanes."""

from __future__ import annotations

from dataclasses import dataclass, field

from controller.act.intents import Intent, PartState
from controller.act.republisher import Republished
from controller.decide.decision import Decision
from controller.lanes.lanes import LaneRefused


@dataclass(frozen=True, slots=True)
class TickResult:
    """What one tick decided and did. `stood_down`: another controller decided for this lane at the same time, nothing was launched."""

    decision: Decision
    intent: Intent | None = None
    stood_down: bool = False
    dry_run: bool = False
    notes: tuple[str, ...] = ()
    delayed: Republished = field(default_factory=Republished)

    @property
    def launched(self) -> tuple[str, ...]:
        """Names of the executions that were started."""
        parts = self.intent.parts if self.intent else ()
        return tuple(part.execution for part in parts if part.state is PartState.LAUNCHED)

    @property
    def failures(self) -> tuple[str, ...]:
        """Why parts of the launch did not, or may not, take effect."""
        parts = self.intent.parts if self.intent else ()
        return tuple(f"{part.decision_id}: {part.reason}" for part in parts if part.state is not PartState.LAUNCHED)


@dataclass(frozen=True, slots=True)
class Round:
    """One tick of every lane asked for, and the jobs that could not be lanes."""

    results: tuple[TickResult, ...]
    refused: tuple[LaneRefused, ...] = ()
