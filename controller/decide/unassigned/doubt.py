"""How much of a remainder is real: the gauge may be older than it says, and then counts messages that are acknowledged already. Pure.

What was acknowledged within GUARD_S before a sample explains as many messages of the reading. Nobody is launched for those, unless
something shows that they are others:

- Accepted since the sample: the reading cannot count them, so nothing of before explains them.
- Certain before: what was certain at the sample before, and was not launched for, is still there.
- The gauge has been less late. It was no later than explains what a sample left: if that is next to nothing, the sample shows so at once,
  else only when the work ends and nothing is left over. What lies beyond the most that it was late (and more, if that varies), at two
  samples in a row, is real. Until a few samples have shown it, all of GUARD_S is doubtful: a gauge that is always late, and messages
  that always come anew, look the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from controller.decide.ledger import GUARD_S, STEP_S, Ledger
from controller.model.reading import Reading, Value

ENOUGH = 3
"""So many samples must have shown how late the gauge is."""
KEPT = 10
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
    """What the next decision needs of samples. `late_s`: how many seconds older than it says the gauge was, by the last samples that told,
    oldest first. `perhaps_s` is what samples show if nothing is left over when the work ends. `newest` and `before` are what the last
    two samples left, each at the last look at it. The lane's state carries it."""

    late_s: tuple[float, ...] = ()
    perhaps_s: tuple[float, ...] = ()
    newest: Remainder | None = None
    before: Remainder | None = None

    @property
    def guard_s(self) -> float:
        """Within how many seconds before a sample acknowledgements are taken to be in the reading, where two samples agree: the most that
        the gauge was late, and as much more as that varies."""
        return min(GUARD_S, 2 * max(self.late_s) - min(self.late_s)) if len(self.late_s) >= ENOUGH else GUARD_S

    def launched(self, count: int) -> Doubt:
        """`count` of the unassigned messages were launched for."""
        newest, before = (None if one is None else one.launched(count) for one in (self.newest, self.before))
        return replace(self, newest=newest if newest or self.perhaps_s else None, before=before or None)


@dataclass(frozen=True, slots=True)
class Weighed:
    """The ledger with what it counts of the doubtful messages, and what to keep for the next sample."""

    ledger: Ledger
    doubt: Doubt = field(default_factory=Doubt)


def weighed(doubt: Doubt, ledger: Ledger, reading: Reading, accepted_count: int) -> Weighed:
    """Decides how many of the doubtful messages count as assigned. `accepted_count` messages came after the sample."""
    read_count = reading.undelivered_count if isinstance(reading, Value) else 0
    open_count = max(0, read_count + accepted_count - ledger.sure_count)
    doubtful_count = min(_within(ledger, GUARD_S), read_count)
    if isinstance(reading, Value):
        doubt = _sampled(doubt, ledger, reading, open_count)
    likely_count = max(0, open_count - min(_within(ledger, doubt.guard_s), doubtful_count))
    real_count = max(0, open_count - doubtful_count)
    if doubt.before is not None:
        real_count = max(real_count, min(open_count, doubt.before.certain_count), min(likely_count, doubt.before.likely_count))
    if isinstance(reading, Value):
        newest = Remainder(reading.sampled_at, real_count, max(real_count, likely_count))
        doubt = replace(doubt, newest=newest if newest or doubt.perhaps_s else None)
    return Weighed(replace(ledger, guard_count=open_count - real_count), doubt)


def _within(ledger: Ledger, seconds: float) -> int:
    """Messages that were acknowledged within this time before the sample."""
    step = round(seconds / STEP_S)
    return ledger.recent[step - 1] if ledger.recent and step else 0


def _sampled(doubt: Doubt, ledger: Ledger, reading: Value, open_count: int) -> Doubt:
    """With the present sample, if it is a new one: what the last one left is what was before, and what it showed is borne out or not."""
    last = doubt.newest
    if last is not None and last.sampled_at == reading.sampled_at:
        return doubt
    if last is not None and not 0 < reading.sampled_at - last.sampled_at <= SOON_S:
        last, doubt = None, replace(doubt, perhaps_s=())
    goes_on, shown_s = any(ledger.recent), _shown_s(ledger, reading, open_count)
    sure_s = doubt.perhaps_s if not goes_on and not open_count else ()
    perhaps_s = doubt.perhaps_s if goes_on else ()
    if shown_s is not None and shown_s <= STEP_S:
        sure_s = (shown_s,)
    elif shown_s is not None:
        perhaps_s = (*perhaps_s, shown_s)[-KEPT:]
    return Doubt((*doubt.late_s, *sure_s)[-KEPT:], perhaps_s, None, last or None)


def _shown_s(ledger: Ledger, reading: Value, open_count: int) -> float | None:
    """How many seconds older than it says the gauge is, if what was acknowledged shortly before the sample explains all that is left. None
    if that tells nothing: if too little was acknowledged at the time, or the ledger has far more than the reading. What takes all of
    GUARD_S to explain tells nothing either: messages that were hidden by just that doubt look the same."""
    recent = (0, *ledger.recent)
    third = len(recent) // 3
    goes_on = all(recent[at] > recent[at - third] for at in (third, 2 * third, 3 * third)) if third else False
    if not goes_on or open_count > recent[-2] or ledger.sure_count - reading.undelivered_count > recent[1]:
        return None
    return STEP_S * next(step for step, count in enumerate(recent) if count >= open_count)
