"""How much of a remainder is real: the gauge may be older than it says, and then counts messages that are acknowledged already. Pure.

What was acknowledged within GUARD_S before a sample explains as many messages of the reading. Nobody is launched for those, unless
something shows that they are others:

- Accepted since the sample: the reading cannot count them, so nothing of before explains them.
- Certain before: what was certain at the sample before, and was not launched for, is still there.
- Beyond how late the gauge is, at two samples in a row. It was no later than explains all that a sample left; messages that are there make
  a sample show more, never less, so the middle of what the last samples show is taken. Until one has told, all of GUARD_S is doubtful.
- For half of the time to drain in, unless samples agree on how late the gauge is.

A gauge that is late by another time at each sample costs workers a start-up now and then: they take work from others.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from statistics import median_high

from controller.decide.ledger import GUARD_S, STEP_S, Ledger
from controller.model.reading import SAMPLED_EVERY_S, Reading, Value

ENOUGH = 3
"""So many samples that agree on how late the gauge is are believed, however long a doubt lasts."""
MOST = 2 / 3
"""Of the samples."""
KEPT = 10
LONGEST_PART = 0.5
"""For how much of the time that there is to drain in messages may be doubted, while samples have not told."""
SOON_S = 600.0
"""A sample that is older than this says nothing about the present one."""


@dataclass(frozen=True, slots=True)
class Remainder:
    """What a sample left, less what was launched for since: `certain_count` messages are there whatever the gauge does, `likely_count` if
    it is no later than it was seen to be."""

    sampled_at: float
    certain_count: int
    likely_count: int

    def __bool__(self) -> bool:
        return bool(self.certain_count or self.likely_count)

    def launched(self, count: int) -> Remainder:
        """Less what was launched for."""
        return replace(self, certain_count=max(0, self.certain_count - count), likely_count=max(0, self.likely_count - count))


@dataclass(frozen=True, slots=True)
class Doubt:
    """What the next decision needs of samples. `late_s`: how many seconds older than it says the gauge was at most, by the last samples
    that told, oldest first. `newest` and `before` are what the last two samples left, each at the last look at it. What is doubted came
    after `since` (Unix seconds). The lane's state carries it."""

    late_s: tuple[float, ...] = ()
    newest: Remainder | None = None
    before: Remainder | None = None
    since: float | None = None

    @property
    def guard_s(self) -> float:
        """Within how many seconds before a sample acknowledgements are taken to be in the reading, where two samples agree."""
        return median_high(self.late_s) if self.late_s else GUARD_S

    @property
    def has_told(self) -> bool:
        """Whether ENOUGH samples agree, all of them; where most say that the gauge is late, without those that show nothing of it. After a
        launch for what was done already one does not: the ledger has more than there is until that worker ends."""
        late_s = [one for one in self.late_s if one]
        told = late_s if len(late_s) >= max(ENOUGH, MOST * len(self.late_s)) else self.late_s
        return len(told) >= ENOUGH and max(told) - min(told) <= STEP_S

    def is_over(self, reading: Reading, now: float, within_s: float) -> bool:
        """Whether it has lasted so long, and over enough samples, that messages would be late for it, and none has told."""
        if self.since is None or not isinstance(reading, Value):
            return False
        if self.has_told:
            return False
        return now - self.since >= within_s * LONGEST_PART and reading.sampled_at - self.since >= ENOUGH * SAMPLED_EVERY_S

    def launched(self, count: int) -> Doubt:
        """`count` of the unassigned messages were launched for."""
        newest, before = (None if one is None else one.launched(count) for one in (self.newest, self.before))
        return replace(self, newest=newest or None, before=before or None)


@dataclass(frozen=True, slots=True)
class Weighed:
    """The ledger with what it counts of the doubtful messages, and what to keep for the next sample."""

    ledger: Ledger
    doubt: Doubt = field(default_factory=Doubt)


def weighed(doubt: Doubt, ledger: Ledger, reading: Reading, accepted_count: int, *, now: float, within_s: float) -> Weighed:
    """Decides at `now` (Unix seconds) how many of the doubtful messages count as assigned. `accepted_count` messages came after the
    sample; messages are to be done within `within_s`."""
    read_count = reading.undelivered_count if isinstance(reading, Value) else 0
    open_count = max(0, read_count + accepted_count - ledger.sure_count)
    doubtful_count = min(_within(ledger, GUARD_S), read_count)
    if isinstance(reading, Value):
        doubt = _sampled(doubt, ledger, reading, open_count)
    likely_count = max(0, open_count - min(_within(ledger, doubt.guard_s), doubtful_count))
    real_count = max(0, open_count - doubtful_count)
    if doubt.before is not None:
        real_count = max(real_count, min(open_count, doubt.before.certain_count), min(likely_count, doubt.before.likely_count))
    if doubt.is_over(reading, now, within_s):
        real_count = open_count
    if isinstance(reading, Value):
        newest = Remainder(reading.sampled_at, real_count, max(real_count, likely_count))
        doubt = replace(doubt, newest=newest or None, since=doubt.since if open_count > real_count else None)
    return Weighed(replace(ledger, guard_count=open_count - real_count), doubt)


def _within(ledger: Ledger, seconds: float) -> int:
    """Messages that were acknowledged within this time before the sample."""
    step = round(seconds / STEP_S)
    return ledger.recent[step - 1] if ledger.recent and step else 0


def _sampled(doubt: Doubt, ledger: Ledger, reading: Value, open_count: int) -> Doubt:
    """With the present sample, if it is a new one: what the last one left is what was before."""
    last = doubt.newest
    if last is not None and last.sampled_at == reading.sampled_at:
        return doubt
    is_next = last is not None and 0 < reading.sampled_at - last.sampled_at <= SOON_S
    shown_s = _shown_s(ledger, reading, open_count)
    late_s = doubt.late_s if shown_s is None else (*doubt.late_s, shown_s)[-KEPT:]
    came_after = reading.sampled_at - SAMPLED_EVERY_S if doubt.since is None else doubt.since
    return Doubt(late_s, None, last if is_next else None, came_after)


def _shown_s(ledger: Ledger, reading: Value, open_count: int) -> float | None:
    """How many seconds older than it says the gauge is at most: what was acknowledged within so long before the sample explains all that is
    left, to the nearest STEP_S. None if that tells nothing: if work did not go on all the time, or the ledger has more than the reading."""
    recent = (0, *ledger.recent)
    third = len(recent) // 3
    goes_on = all(recent[at] > recent[at - third] for at in (third, 2 * third, 3 * third)) if third else False
    if not goes_on or open_count > recent[-1] or ledger.sure_count - reading.undelivered_count > recent[1]:
        return None
    return STEP_S * min(range(len(recent)), key=lambda step: abs(recent[step] - open_count))
