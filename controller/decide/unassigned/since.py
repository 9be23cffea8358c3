"""Since when the unassigned messages of a lane wait. Pure.

A sample counts messages and has no names for them. So those that nobody has are kept in groups by the earliest time at which they may have
come, the oldest first, and the oldest are launched for first. Where there are more than before, they have come back from a launch that did
not work through its share, and wait since its messages did; or the front door told when it accepted them; or they were put off until a time
that is over; or they are new, and came after the sample before.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from batch.model.exit import ExitReason
from controller.decide.ledger import Ledger, horizon, promised
from controller.model.execution import Worked
from controller.model.reading import SAMPLED_EVERY_S, Reading, Value

SOON_S = 180.0
"""Between two samples that are further apart, one or more were not seen."""
GROUPS_KEPT = 20
_DONE = frozenset({ExitReason.SHARE_DONE.value, ExitReason.DRAINED.value, ExitReason.NOT_CLAIMED.value})
"""How workers end whose messages do not come back."""


@dataclass(frozen=True, slots=True)
class Group:
    """`count` messages, which came at `since` (Unix seconds) at the earliest."""

    since: float
    count: int


@dataclass(frozen=True, slots=True)
class Launch:
    """The part of a decision whose messages wait since `since` (Unix seconds); `returned_count` of them are known to have come back."""

    decision_id: str
    since: float
    returned_count: int = 0

    def settled(self, returned: Mapping[str, int]) -> Launch:
        """With all that has come back accounted for."""
        return replace(self, returned_count=max(self.returned_count, returned.get(self.decision_id, 0)))


@dataclass(frozen=True, slots=True)
class Waiting:
    """The unassigned messages by their age, and the launches whose messages may come back, as of the last look that showed anything new, at
    `looked_at` (Unix seconds): a tick between two samples leaves all as it was. `sampled_at` is the newest sample, None if it left nothing;
    a part of what it showed was doubted if `is_doubted`. The lane's state carries it."""

    groups: tuple[Group, ...] = ()
    launches: tuple[Launch, ...] = ()
    sampled_at: float | None = None
    is_doubted: bool = False
    came_after: float = 0.0
    looked_at: float = 0.0

    @property
    def since(self) -> float | None:
        """When (Unix seconds) the first of them came, at the earliest; None if there are none."""
        return self.groups[0].since if self.groups else None

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(one.count for one in self.groups)

    def without(self, count: int) -> Waiting:
        """Without the oldest `count`: they were launched for, or a worker has them."""
        left, groups = count, []
        for one in self.groups:
            gone = min(left, one.count)
            left -= gone
            groups += [replace(one, count=one.count - gone)] if gone < one.count else []
        return replace(self, groups=tuple(groups))


@dataclass(frozen=True, slots=True)
class Look:
    """What is seen of a lane at `now` (Unix seconds). `unassigned_count` messages nobody has. `told` are times, with counts, at which
    messages came, as far as is known. `launches` are the parts of decisions that still matter, with since when (Unix seconds) their
    messages wait; `returned` says how many of each have come back so far. What was doubted came after `doubted_since`."""

    now: float
    reading: Reading
    ledger: Ledger
    unassigned_count: int
    told: Sequence[tuple[float, int]]
    launches: Mapping[str, float]
    returned: Mapping[str, int]
    doubted_since: float | None = None


def oldest_since(reading: Reading, ledger: Ledger) -> float | None:
    """When (Unix seconds) the oldest unassigned message began to wait, if known. A reading has one age for all messages, so it is not known
    once a part of them is assigned."""
    if not isinstance(reading, Value) or not reading.undelivered_count or reading.oldest_age_s is None or ledger.total_count:
        return None
    return reading.sampled_at - reading.oldest_age_s


def waiting_of(before: Waiting, look: Look) -> Waiting:
    """`before` with what the look shows."""
    came_after, threshold = _came_after(before, look)
    known = {one.decision_id: one for one in before.launches}
    launches = [known.get(name, Launch(name, since)) for name, since in look.launches.items()]
    waiting = replace(before, launches=tuple(launches)).without(max(0, before.count - look.unassigned_count))
    new_count = look.unassigned_count - waiting.count
    added: list[Group] = []
    for at, one in sorted(enumerate(launches), key=lambda pair: pair[1].since):
        count = min(new_count, max(0, look.returned.get(one.decision_id, 0) - one.returned_count))
        if count:
            added, new_count = [*added, Group(one.since, count)], new_count - count
            launches[at] = replace(one, returned_count=one.returned_count + count)
    for told_at, told_count in sorted(look.told, reverse=True):
        if told_at >= threshold and new_count:
            count = min(new_count, told_count)
            added, new_count = [*added, Group(told_at, count)], new_count - count
    added.append(Group(min(came_after, look.now), new_count))
    if not look.unassigned_count and not look.ledger.guard_count:
        # Nobody waits: what came back and is on no lease any more was taken by others.
        leased = {entry.decision_id for entry in look.ledger.entries if entry.outstanding_count}
        launches = [one if one.decision_id in leased else one.settled(look.returned) for one in launches]
    groups = _joined([*waiting.groups, *added])
    is_doubted = look.ledger.guard_count > 0
    if not groups and not is_doubted:
        return Waiting(launches=tuple(launches))
    sampled_at = look.reading.sampled_at if isinstance(look.reading, Value) else None
    found = Waiting(groups, tuple(launches), sampled_at, is_doubted, came_after, before.looked_at)
    return before if found == before else replace(found, looked_at=look.now)


def _came_after(before: Waiting, look: Look) -> tuple[float, float]:
    """When (Unix seconds) messages came at the earliest that nothing tells of and this look is the first to show; and from when on what was
    told may be of messages that are new."""
    reading, looked_at = look.reading, float(int(before.looked_at))
    if not isinstance(reading, Value):
        return look.now, looked_at or look.now - SAMPLED_EVERY_S
    if before.sampled_at == reading.sampled_at:
        return before.came_after, looked_at
    first_look = before.sampled_at is None or not 0 < reading.sampled_at - before.sampled_at <= SOON_S
    if first_look and (oldest := oldest_since(reading, look.ledger)) is not None:
        return oldest, reading.sampled_at - SAMPLED_EVERY_S
    came_after = reading.sampled_at - SAMPLED_EVERY_S if first_look else before.sampled_at or 0.0
    if before.is_doubted:  # what was doubted at the sample before had come before it
        came_after = min(came_after - SAMPLED_EVERY_S, came_after if look.doubted_since is None else look.doubted_since)
    no_older = came_after if reading.oldest_age_s is None else max(came_after, reading.sampled_at - reading.oldest_age_s)
    return no_older, reading.sampled_at - SAMPLED_EVERY_S if first_look else looked_at


def _joined(groups: Sequence[Group]) -> tuple[Group, ...]:
    """In order, one group for each time; if there are too many, the youngest are joined at the earliest of their times."""
    counts: dict[float, int] = {}
    for one in groups:
        if one.count:
            counts[one.since] = counts.get(one.since, 0) + one.count
    found = [Group(since, count) for since, count in sorted(counts.items())]
    kept, rest = found[: GROUPS_KEPT - 1], found[GROUPS_KEPT - 1 :]
    return (*kept, Group(rest[0].since, sum(one.count for one in rest))) if rest else tuple(kept)


def told_of(accepted: Sequence[tuple[float, int]], executions: Sequence[Worked], now: float) -> list[tuple[float, int]]:
    """Times (Unix seconds), with counts, at which messages came: those that the front door accepted, and those that a worker had put off
    until a time that is over."""
    due = [(float(at), count) for worked in executions for one in worked.progress for at, count in one.deferred if at <= now]
    return [*accepted, *due]


def returned_by(executions: Sequence[Worked], ledger: Ledger, unused: Mapping[str, int], now: float) -> dict[str, int]:
    """How many messages have come back, by part of a decision: what workers that failed, were killed or ran out of time have not
    acknowledged, what they are too slow for, what waits for a start that does not come. `unused` are the messages of parts that were never
    launched, or given up. What ended long ago has told already, and its progress is not read again."""
    edge = horizon(ledger.since, now)
    entries = {entry.execution: entry for entry in ledger.entries}
    found = dict(unused)
    for one in executions:
        name = one.info.decision_id
        is_unread = not one.tries and one.info.completed_at is not None and one.info.completed_at < edge
        if not name or name in unused or is_unread:
            continue
        entry = entries.get(one.info.name)
        waits = entry is not None and one.info.live and not one.tries and not entry.assigned_count
        indexes: Collection[int] = range(one.info.task_count)
        count = sum(_unworked(one, index, now, gives_all=waits) for index in indexes) + (entry.late_count if entry is not None else 0)
        if count > 0:
            found[name] = count
    return found


def _unworked(worked: Worked, index: int, now: float, *, gives_all: bool) -> int:
    """What a worker that has ended leaves of its share; of one that is alive, all or nothing."""
    if gives_all:
        return promised(worked.info, index)
    tries = worked.tries.get(index, ())
    if worked.ended_at(index) is None or (tries and tries[-1].exit_reason in _DONE):
        return 0
    later_count = sum(count for one in tries for due, count in one.deferred if due > now)
    return max(0, promised(worked.info, index) - sum(one.acked for one in tries) - later_count)
