"""Messages that the gauge counts and no worker of the lane gets: another consumer has leased them, or nacked them with a delay. Pure.

A worker that ends `drained` has proven that nothing was to be had. So what its launch was sized for and it did not find is somebody else's,
as long as the gauge counts messages of that age: workers launched for it each minute would find nothing each minute. Messages that came
since count as before. What workers of the lane have deferred stands in the ledger, and is nobody else's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from batch.model.exit import ExitReason
from controller.decide.broken import LONGEST_HOLD_S, hold_s
from controller.decide.ledger import Entry, Ledger, Unlisted, promised
from controller.model.execution import Worked
from controller.model.reading import Reading, Value
from controller.model.wording import counted, spoken, told_at

FEW = 0.05
"""An execution that took no more than this part of what it was launched for has found next to nothing."""

AGE_STEP_S = 1.0
"""The gauge tells the oldest message's age in whole seconds."""


@dataclass(frozen=True, slots=True)
class HeldElsewhere:
    """`count` executions in a row found next to nothing, the last of them, `execution`, `found_count` of `promised_count` messages; it
    ended at `ended_at` (Unix seconds). `held_count` messages are taken to be held. `trying` names what was launched after the wait and
    has taken nothing yet. They are of `subscription`: the lane's may be another by now. The lane's state carries it: a wait is longer than
    executions are looked at."""

    execution: str
    found_count: int
    promised_count: int
    count: int
    held_count: int
    ended_at: float
    trying: str = ""
    subscription: str = ""

    @property
    def until(self) -> float:
        """Unix seconds until which nothing is launched for them: a minute, doubled for each execution in a row, at most an hour."""
        return self.ended_at + hold_s(self.count)

    def waits(self, now: float, start_within_s: float) -> bool:
        """Whether nothing is launched for them at `now` (Unix seconds). A look may start `start_within_s` late, or never."""
        return now < self.until + (max(LONGEST_HOLD_S, start_within_s) if self.trying else 0.0)

    def counted_by(self, reading: Reading, ledger: Ledger) -> int:
        """How many of the messages in the reading they are, beside those that are assigned."""
        return min(self.held_count, max(0, reading.undelivered_count - ledger.total_count)) if isinstance(reading, Value) else 0

    def entry(self, count: int) -> Entry:
        """They stand in the ledger like the messages of an execution: nobody is launched for them."""
        note = f"{self.execution} found {self.found_count} of {self.promised_count}"
        return Entry("another consumer", "", live=False, worker_count=0, live_worker_count=0, assigned_count=count, note=note)

    def reason(self, count: int, now: float) -> str:
        """Why nothing is launched for `count` messages."""
        held = "1 message is" if count == 1 else f"{count} messages are"
        before = f", like {counted(self.count - 1, 'execution')} before it" if self.count > 1 else ""
        what = f"{self.execution} drained the subscription and found {self.found_count} of {self.promised_count}{before}"
        why = "another consumer has them leased, or nacked them with a delay"
        at = f"the next look is at {told_at(self.until, now)} ({spoken(self.until - now)} more)"
        next_look = f"{self.trying} looks for them" if self.trying else at
        return f"{held} held by somebody else: {what}; {why}; {next_look}"


def held_elsewhere(
    before: HeldElsewhere | None, newest_first: Sequence[Worked], unlisted: Sequence[Unlisted], reading: Reading, subscription: str = ""
) -> HeldElsewhere | None:
    """`before` with what has ended since; None once nothing shows that messages are held. `unlisted` launches are the newest of all.
    Executions that say that they drain another subscription than `subscription` show nothing."""
    newest_first = [one for one in newest_first if one.info.env.get("SUBSCRIPTION_NAME", subscription) == subscription or not subscription]
    found = None if before is None or before.subscription != subscription else replace(before, trying="")
    for one in sorted((one for one in newest_first if one.info.completed_at is not None), key=_ended_at):
        if found is None or _ended_at(one) > found.ended_at:
            found = _after(found, one)
    if found is None or _all_newer(reading, found.ended_at) or any(_may_be_own(one, found.ended_at) for one in newest_first):
        return None
    tries = [one for one in newest_first if one.info.live and one.info.created_at >= found.until]
    if any(_found_all(one) for one in tries):
        return None
    trying = [one.decision_id for one in unlisted] + [one.info.name for one in tries]
    return replace(found, trying=" and ".join(trying), subscription=subscription)


def _after(found: HeldElsewhere | None, one: Worked) -> HeldElsewhere | None:
    """What is known once this execution has ended, too."""
    taken_count, promised_count = _taken(one), _promised(one)
    short_count = max(0, promised_count - taken_count)
    if found is None:
        is_held = _is_drained(one) and taken_count <= FEW * promised_count
        return HeldElsewhere(one.info.name, taken_count, promised_count, 1, short_count, _ended_at(one)) if is_held else None
    is_look = one.info.created_at >= found.until  # else it was launched for what came since
    if not _is_drained(one):
        return None if is_look or taken_count > promised_count else found
    if not is_look and _found_all(one):
        return found
    if is_look and taken_count >= found.held_count:
        return None
    # Whatever a look found, it ended with nothing left: the age of what the gauge counts then tells whether some are still held.
    held_count = max(found.held_count, short_count) if is_look else found.held_count + short_count
    return HeldElsewhere(one.info.name, taken_count, promised_count, found.count + 1, held_count, _ended_at(one))


def _all_newer(reading: Reading, at: float) -> bool:
    """Whether no message in the reading is known to have been there at `at` (Unix seconds). A sample of before says nothing new."""
    if not isinstance(reading, Value) or reading.sampled_at <= at:
        return False
    return not reading.undelivered_count or reading.oldest_age_s is None or reading.sampled_at - reading.oldest_age_s - AGE_STEP_S > at


def _may_be_own(one: Worked, at: float) -> bool:
    """Whether the oldest messages may be this execution's: deferred at `at` (Unix seconds), or outstanding since before."""
    last = [tries[-1] for tries in one.tries.values() if tries]
    has_them = one.info.live and one.info.created_at <= at and any(not progress.exit_reason and progress.held for progress in last)
    return has_them or any(due > at for progress in one.progress for due, _ in progress.deferred)


def _is_drained(one: Worked) -> bool:
    """Whether each of its workers has proven that nothing was to be had."""
    last = [tries[-1].exit_reason for tries in one.tries.values() if tries]
    return len(last) == one.info.task_count and set(last) == {ExitReason.DRAINED.value}


def _found_all(one: Worked) -> bool:
    return _taken(one) >= (1 - FEW) * _promised(one)


def _taken(one: Worked) -> int:
    return sum(progress.taken for progress in one.progress)


def _promised(one: Worked) -> int:
    return sum(promised(one.info, index) for index in range(one.info.task_count))


def _ended_at(one: Worked) -> float:
    return one.info.completed_at or 0.0
