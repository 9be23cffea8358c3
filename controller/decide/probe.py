"""Probes: one worker that looks, when the gauge has told nothing for long. Pure.

An unknown backlog is not zero, and no reason to launch: after `fanout/probe-after` one worker may look, while nothing else is alive, and
each further probe waits twice as long as the one before. An idle lane is only probed while tasks are unfinished that the front
door told of: a lane that nobody uses costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

from controller.decide.ledger import GUARD_S
from controller.model.execution import Worked
from controller.model.reading import FUTURE_S, Idle, Reading, Unknown, Value

LONGEST_WAIT_S = 6 * 3600.0


@dataclass(frozen=True, slots=True)
class Blind:
    """The gauge has told nothing since `since` (Unix seconds); `probe_count` workers have looked, the last one launched at
    `probed_at`. It goes from decision to decision through the lane's state."""

    since: float
    probe_count: int = 0
    probed_at: float = 0.0

    def probed(self, now: float) -> Blind:
        """After one more probe."""
        return replace(self, probe_count=self.probe_count + 1, probed_at=now)

    def due_at(self, probe_after_s: float) -> float:
        """When (Unix seconds) the next probe may start."""
        wait_s = probe_after_s * 2.0 ** min(self.probe_count, 40)
        return max(self.since, self.probed_at) + min(wait_s, max(LONGEST_WAIT_S, probe_after_s))


def blind_of(reading: Reading, before: Blind | None, now: float) -> Blind | None:
    """None once the gauge tells something; an idle one is only remembered where it was probed."""
    match reading:
        case Value():
            return None
        case Idle():
            return before
        case Unknown():
            return Blind(now) if before is None or max(before.since, before.probed_at) > now + FUTURE_S else before


def probe_due(reading: Reading, before: Blind | None, probe_after_s: float, now: float, unfinished_count: int = 0) -> bool:
    """Whether a probe may start if nothing is alive: then, and only then, executions are listed for a reading that is no value."""
    match reading:
        case Value():
            return False
        case Idle():
            return unfinished_count > 0 and (before is None or now >= before.due_at(probe_after_s))
        case Unknown():
            return before is not None and now >= before.due_at(probe_after_s)


def unfinished(accepted: Sequence[tuple[float, int]], executions: Sequence[Worked]) -> int:
    """Of the tasks that the front door told of, as (Unix seconds, count), how many no worker has acknowledged since."""
    if not accepted:
        return 0
    since = min(at for at, _ in accepted) - GUARD_S
    acked_count = sum(one.acked - one.acked_at(since) for worked in executions for tries in worked.tries.values() for one in tries)
    return max(0, sum(count for _, count in accepted) - acked_count)


def to_json(blind: Blind) -> dict[str, Any]:
    return {"since": blind.since, "probe_count": blind.probe_count, "probed_at": blind.probed_at}


def from_json(body: Mapping[str, Any]) -> Blind:
    """Raises KeyError, TypeError or ValueError on what is no such value."""
    since, probed_at = float(body["since"]), float(body["probed_at"])
    if not (isfinite(since) and isfinite(probed_at)):
        raise ValueError(f"times are {since} and {probed_at}")
    return Blind(since, int(body["probe_count"]), probed_at)
