"""The move of a running worker to another machine: SIGTSTP as the warning, ten seconds later it stands still, then SIGCONT.

The order is fixed and no step comes before its time; a worker that is being ended is moved no further.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

WARNING_S = 10.0  # between SIGTSTP and the standstill, as the container contract says


class Stage(IntEnum):
    """What was done last: nothing yet, SIGTSTP, SIGSTOP."""

    ASKED = 0
    WARNED = 1
    STILL = 2


@dataclass(frozen=True)
class Migration:
    """Asked for at Unix seconds `asked_s`; the worker stands still for `pause_s`."""

    asked_s: float
    pause_s: float
    stage: Stage = Stage.ASKED

    @property
    def due_s(self) -> float:
        """When the next step is due."""
        if self.stage is Stage.ASKED:
            return self.asked_s
        return self.asked_s + WARNING_S + (self.pause_s if self.stage is Stage.STILL else 0.0)

    def moved(self) -> Migration | None:
        """After the next step; None when that was the last."""
        return None if self.stage is Stage.STILL else replace(self, stage=Stage(self.stage + 1))
