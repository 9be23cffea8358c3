"""Probes: one worker that looks into the subscription when the gauge has not been readable for long. Pure.

An unknown backlog is not zero, and no reason to launch: after `fanout/probe-after` one worker may look, if no other is alive, and each
further probe waits twice as long as the one before. An idle lane is probed only while tasks that the front door accepted are unfinished:
an unused lane costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from controller.decide.ledger import GUARD_S
from controller.model.execution import Worked
from controller.model.reading import FUTURE_S, Idle, Reading, Unknown, Value

LONGEST_WAIT_S = 6 * 3600.0


@dataclass(frozen=True, slots=True)
class Blind:
    """The gauge has not been readable since `since` (Unix seconds); `probe_count` workers have looked, the last one launched at
    `probed_at`. The lane's state carries it from decision to decision."""

    since: float
    probe_count: int = 0
    probed_at: float = 0.0

    def probed(self, now: float) -> Blind:
        """With one more probe, launched at `now` (Unix seconds)."""
        return replace(self, probe_count=self.probe_count + 1, probed_at=now)

    def due_at(self, probe_after_s: float) -> float:
        """Unix seconds from which the next probe may start."""
        wait_s = probe_after_s * 2.0 ** min(self.probe_count, 40)
        return max(self.since, self.probed_at) + min(wait_s, max(LONGEST_WAIT_S, probe_after_s))


def blind_of(reading: Reading, before: Blind | None, now: float) -> Blind | None:
    """`before` brought up to date: None once there is a value; kept for an idle gauge that was probed; begun for an unknown one."""
    match reading:
        case Value():
            return None
        case Idle():
            return before
        case Unknown():
            return Blind(now) if before is None or max(before.since, before.probed_at) > now + FUTURE_S else before


def probe_due(reading: Reading, before: Blind | None, probe_after_s: float, now: float, unfinished_count: int = 0) -> bool:
    """Whether a probe may start if no worker is alive. Only then are executions listed for a reading without a value."""
    match reading:
        case Value():
            return False
        case Idle():
            return unfinished_count > 0 and (before is None or now >= before.due_at(probe_after_s))
        case Unknown():
            return before is not None and now >= before.due_at(probe_after_s)


def unfinished(accepted: Sequence[tuple[float, int]], executions: Sequence[Worked]) -> int:
    """Of the tasks that the front door accepted, as (Unix seconds, count), how many no worker has acknowledged since."""
    if not accepted:
        return 0
    since = min(at for at, _ in accepted) - GUARD_S
    acked_count = sum(one.acked - one.acked_at(since) for worked in executions for one in worked.progress)
    return max(0, sum(count for _, count in accepted) - acked_count)
