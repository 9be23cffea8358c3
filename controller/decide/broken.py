"""Broken lanes: whether a lane's newest executions acknowledged nothing because their workers could not work. Pure.

Only evidence counts: workers that ended `broken`, or failed before they wrote any progress, or cannot start. A task that kills its worker
is not such evidence: holding the lane for it would make the other tasks wait for one that can never succeed. Nor is a signal that ends a
worker before it has begun, unless that happens to execution after execution. And an acknowledgement by any worker shows that the lane
works: what was launched before it counts no more. Only one by a worker that began since shows that others can begin, where an execution
cannot start, or execution after execution fails: without it each tick would launch as many again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from batch.model.exit import ExitReason
from controller.decide.ledger import Unlisted, waits_to_start_s
from controller.model.execution import Worked
from controller.model.lane import START_WITHIN_S
from controller.model.wording import counted, spoken, told_at

FIRST_HOLD_S = 60.0
LONGEST_HOLD_S = 3600.0
COUNT_ENOUGH = 7
"""Broken executions in a row that hold the lane for the longest time: older ones are not looked for."""
CHANCES_ENOUGH = 3
"""Executions in a row that say little one by one: signals ended their workers before they could begin, or these failed while older workers
go on. So many have a reason in the lane."""
MEND_LOG = "mend what the worker's log says"

assert FIRST_HOLD_S * 2 ** (COUNT_ENOUGH - 1) >= LONGEST_HOLD_S


class Sign(Enum):
    """What an execution says about its lane."""

    FINE = auto()
    BROKEN = auto()
    SIGNALLED = auto()
    """Signals ended its workers before they could begin."""
    OPEN = auto()
    """It runs and has acknowledged nothing yet."""


_FAILED = (Sign.BROKEN, Sign.SIGNALLED)


@dataclass(frozen=True, slots=True)
class Broken:
    """`count` executions in a row acknowledged nothing; `how` says why, for the newest of them, `execution`. `ended_at` (Unix seconds) is
    when the last of them ended, or was given up because no worker of it had started. `mend` says what to do about it, `trying` names what
    was launched after it and has yet to show whether the lane works again."""

    execution: str
    how: str
    count: int
    ended_at: float
    trying: str = ""
    mend: str = MEND_LOG

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
            f"{what}; held until {told_at(self.until, now)} ({spoken(self.until - now)} more), then one worker tries; {self.mend}, "
            f"`fanout launch {lane} --tasks 1` tries at once"
        )


def hold_s(count: int) -> float:
    """Seconds that a lane is held after its `count`-th broken execution in a row: a minute, doubled each time, at most an hour."""
    return min(FIRST_HOLD_S * 2.0 ** min(count - 1, COUNT_ENOUGH), LONGEST_HOLD_S)


def sign_of(worked: Worked) -> Sign:
    """What the execution says about its lane. One that ended without failures, or was cancelled, says that the lane is fine, even if it
    found nothing to do."""
    if any(one.acked for one in worked.progress):
        return Sign.FINE
    if _broken_at(worked) or worked.info.cannot_start:
        return Sign.BROKEN
    if _failed_at_start(worked) and not worked.start_signal:
        return Sign.BROKEN
    if worked.info.live:
        return Sign.OPEN
    return Sign.SIGNALLED if _failed_at_start(worked) else Sign.FINE


def undecided(newest_first: Sequence[Worked]) -> bool:
    """Whether older executions could still change what `broken_of` says of these."""
    signs = [sign_of(one) for one in newest_first]
    return Sign.FINE not in signs and sum(one in _FAILED for one in signs) < COUNT_ENOUGH


def broken_of(
    newest_first: Sequence[Worked], unlisted: Sequence[Unlisted] = (), *, now: float, start_within_s: float = START_WITHIN_S
) -> Broken | None:
    """Why the lane is broken; None if it works, as far as is known. `unlisted` launches are the newest of all. An execution that never
    starts shows nothing and does not keep another from trying: after `start_within_s` it counts as one more broken execution."""
    works_at = max((_acked_at(one) for one in newest_first), default=0.0)
    begins_at = max((progress.started_at for one in newest_first for progress in one.progress if progress.acked), default=0.0)
    trying = [one.decision_id for one in unlisted]
    found: list[Worked] = []
    never_started: list[Worked] = []
    for worked in newest_first:
        sign = sign_of(worked)
        if sign is Sign.FINE or (sign in _FAILED and worked.info.created_at < begins_at):
            break
        if sign is Sign.SIGNALLED and worked.info.created_at < works_at:
            continue  # no evidence, where older workers go on
        if sign in _FAILED:
            found.append(worked)
        elif not found and waits_to_start_s(worked, now) >= start_within_s:
            never_started.append(worked)
        elif not found:
            trying.append(worked.info.name)
    if len(found) < CHANCES_ENOUGH:
        found = [one for one in found if one.info.cannot_start or one.info.created_at >= works_at]
        if all(sign_of(one) is Sign.SIGNALLED for one in found):
            return None
    newest = (never_started or found)[0]
    how, mend = _never_started(newest, start_within_s) if newest in never_started else _how(newest)
    ended_at = max([*map(_ended_at, found), *(one.info.created_at + start_within_s for one in never_started)])
    return Broken(newest.info.name, how, len(found) + len(never_started), ended_at, " and ".join(trying), mend)


def _never_started(newest: Worked, start_within_s: float) -> tuple[str, str]:
    cancel = f"`gcloud run jobs executions cancel {newest.info.name}` ends it"
    return (
        f"no worker of it has started in {spoken(start_within_s)}, look for a quota or an image problem in its conditions, {cancel}",
        "mend what they name",
    )


def _how(newest: Worked) -> tuple[str, str]:
    """Why an execution acknowledged nothing, and what to do about it."""
    info = newest.info
    if info.cannot_start:
        mend = "mend the image, quota or network that it names"
        if info.live:
            mend = f"{mend}, end it with `gcloud run jobs executions cancel {info.name}`"
        return f"it cannot start: {info.cannot_start}", mend
    if newest.start_signal:
        limits = "mend what ends them: signal 9 at the start is most often too little memory"
        return f"its workers were ended by signal {newest.start_signal} before they could begin", limits
    if _failed_at_start(newest):
        return "its workers failed before they could begin", MEND_LOG
    whys = [one.broken_by for one in newest.progress if one.broken_by]
    return f"its workers ended broken: {whys[0]}" if whys else "its workers ended broken", MEND_LOG


def _broken_at(worked: Worked) -> list[float]:
    """When workers ended `broken` and have not begun again."""
    last = [tries[-1] for tries in worked.tries.values() if tries]
    return [one.updated_at for one in last if one.exit_reason == ExitReason.BROKEN.value]


def _failed_at_start(worked: Worked) -> bool:
    return worked.info.failed_count > 0 and not worked.tries


def _acked_at(worked: Worked) -> float:
    """When (Unix seconds) a worker last acknowledged a message; 0 if none has."""
    return max((one.last_acked_at or one.updated_at for one in worked.progress if one.acked), default=0.0)


def _ended_at(worked: Worked) -> float:
    """Of an execution that is still alive, when the last worker that is known to have ended did, or it was known that none can start."""
    info = worked.info
    if info.completed_at is not None:
        return info.completed_at
    return max([*_broken_at(worked), *worked.ended.values()], default=info.cannot_start_since or info.created_at)
