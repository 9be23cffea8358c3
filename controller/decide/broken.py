"""Broken lanes: whether a lane's newest executions acknowledged nothing because their workers could not work. Pure.

Only evidence counts: workers that ended `broken`, or failed before they wrote any progress. A task that kills its worker is not such
evidence: holding the lane for it would make the other tasks wait for one that can never succeed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from batch.model.clock import iso
from batch.model.exit import ExitReason
from controller.decide.ledger import NEVER_STARTED_S, Unlisted, waits_to_start_s
from controller.model.execution import Worked
from controller.model.wording import counted, spoken

FIRST_HOLD_S = 60.0
LONGEST_HOLD_S = 3600.0
COUNT_ENOUGH = 7
"""Broken executions in a row that hold the lane for the longest time: older ones are not looked for."""

assert FIRST_HOLD_S * 2 ** (COUNT_ENOUGH - 1) >= LONGEST_HOLD_S


class Sign(Enum):
    """What an execution says about its lane."""

    FINE = auto()
    BROKEN = auto()
    OPEN = auto()
    """It runs and has acknowledged nothing yet."""


@dataclass(frozen=True, slots=True)
class Broken:
    """`count` executions in a row acknowledged nothing; `how` says why, for the newest of them, `execution`. `ended_at` (Unix seconds) is
    when the last of them ended, or was given up because no worker of it had started. `trying` names what was launched after it and has
    yet to show whether the lane works again."""

    execution: str
    how: str
    count: int
    ended_at: float
    trying: str = ""

    @property
    def until(self) -> float:
        """Unix seconds until which nothing is launched."""
        return self.ended_at + hold_s(self.count)

    def hold_reason(self, lane: str, now: float) -> str:
        """Why nothing may be launched at `now` (Unix seconds); empty when one worker may try."""
        before = f", like {counted(self.count - 1, 'execution')} before it" if self.count > 1 else ""
        what = f"{self.execution} acknowledged nothing: {self.how}{before}"
        if self.trying:
            return f"{what}; {self.trying} tries whether the lane works again and has acknowledged nothing yet"
        if now >= self.until:
            return ""
        return (
            f"{what}; held until {iso(self.until)} ({spoken(self.until - now)} more), then one worker tries; mend what the worker's log "
            f"says, `fanout launch {lane} --tasks 1` tries at once"
        )


def hold_s(count: int) -> float:
    """Seconds that a lane is held after its `count`-th broken execution in a row: a minute, doubled each time, at most an hour."""
    return min(FIRST_HOLD_S * 2.0 ** min(count - 1, COUNT_ENOUGH), LONGEST_HOLD_S)


def sign_of(worked: Worked) -> Sign:
    """What the execution says about its lane. One that ended without failures, or was cancelled, says that the lane is fine, even if it
    found nothing to do."""
    if any(one.acked for one in worked.progress):
        return Sign.FINE
    if _broken_at(worked) or _failed_at_start(worked):
        return Sign.BROKEN
    return Sign.OPEN if worked.info.live else Sign.FINE


def undecided(newest_first: Sequence[Worked]) -> bool:
    """Whether older executions could still change what `broken_of` says of these."""
    signs = [sign_of(one) for one in newest_first]
    return Sign.FINE not in signs and signs.count(Sign.BROKEN) < COUNT_ENOUGH


def broken_of(newest_first: Iterable[Worked], unlisted: Sequence[Unlisted] = (), *, now: float) -> Broken | None:
    """Why the lane is broken; None if it works, as far as is known. `unlisted` launches are the newest of all. An execution that never
    starts shows nothing and does not keep another from trying: after `NEVER_STARTED_S` it counts as one more broken execution."""
    trying = [one.decision_id for one in unlisted]
    found: list[Worked] = []
    never_started: list[Worked] = []
    for worked in newest_first:
        sign = sign_of(worked)
        if sign is Sign.FINE:
            break
        if sign is Sign.BROKEN:
            found.append(worked)
        elif not found and waits_to_start_s(worked, now) >= NEVER_STARTED_S:
            never_started.append(worked)
        elif not found:
            trying.append(worked.info.name)
    if not found:
        return None
    newest = (never_started or found)[0]
    ended_at = max([*map(_ended_at, found), *(one.info.created_at + NEVER_STARTED_S for one in never_started)])
    return Broken(newest.info.name, _how(newest, never_started), len(found) + len(never_started), ended_at, " and ".join(trying))


def _how(newest: Worked, never_started: Sequence[Worked]) -> str:
    if newest in never_started:
        cancel = f"`gcloud run jobs executions cancel {newest.info.name}` ends it"
        return f"no worker of it has started in {spoken(NEVER_STARTED_S)}, look for a quota or an image problem in its conditions, {cancel}"
    if _failed_at_start(newest):
        return "its workers failed before they could begin"
    whys = [one.broken_by for one in newest.progress if one.broken_by]
    return f"its workers ended broken: {whys[0]}" if whys else "its workers ended broken"


def _broken_at(worked: Worked) -> list[float]:
    """When workers ended `broken` and have not begun again."""
    last = [tries[-1] for tries in worked.tries.values() if tries]
    return [one.updated_at for one in last if one.exit_reason == ExitReason.BROKEN.value]


def _failed_at_start(worked: Worked) -> bool:
    return worked.info.failed_count > 0 and not worked.tries


def _ended_at(worked: Worked) -> float:
    """Of an execution that is still alive, when the last worker that is known to have ended did."""
    if worked.info.completed_at is not None:
        return worked.info.completed_at
    return max([*_broken_at(worked), *worked.ended.values()], default=worked.info.created_at)
