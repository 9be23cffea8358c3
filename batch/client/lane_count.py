"""The proof by count: how the messages ended that a lane was given in some hours. For publishers that keep no list of what they publish.

Outcomes of such messages lie in the lane's shards by the hour of their first publish, so whole hours are counted, and only those are read.
It says how many ended, never which have not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from batch.model.clock import iso
from batch.model.message import rolling_shard
from batch.model.names import delayed_folder, outcome_folder
from batch.model.outcomes import PRECEDENCE, RANK, REPLAYED, from_line
from batch.services.ports import ObjectStore
from batch.shards import contents

HOUR_S = 3600.0
MAX_HOURS = 31 * 24
PROBLEMS_KEPT = 100
_PER_REPLAY = 8
"""A rank is that of the outcome, less this for each replay: of a task's lines the lowest counts."""


@dataclass(frozen=True, slots=True)
class LaneCount:
    """Distinct tasks by outcome, of messages first published from `since` until before `until` (ISO 8601, whole hours). `pending_count`:
    replayed, and without an outcome since. `given_count`: how many messages there were, None where nobody has said so. `delayed_count`:
    tasks of the lane that wait in the bucket, whenever they were published. `problems`: what makes the counts doubtful."""

    lane: str
    since: str
    until: str
    counts: Mapping[str, int]
    given_count: int | None = None
    pending_count: int = 0
    delayed_count: int = 0
    problems: tuple[str, ...] = ()

    @property
    def ended_count(self) -> int:
        """Tasks with an outcome."""
        return sum(self.counts.values())

    @property
    def complete(self) -> bool:
        """Whether as many tasks have ended as messages were given."""
        return self.given_count == self.ended_count and not self.pending_count and not self.problems


def hours(since: float, until: float) -> Iterator[float]:
    """When each UTC hour begins (Unix seconds) that has a moment from `since` to `until` in it."""
    at = since // HOUR_S * HOUR_S
    while at <= until:
        yield at
        at += HOUR_S


def count(store: ObjectStore, lane: str, subscription: str, since: float, until: float, given_count: int | None = None) -> LaneCount:
    """Read the lane's shards of these hours (Unix seconds). Raises ObjectMissing, DependencyError."""
    found: dict[str, int] = {}
    problems: list[str] = []
    whole = list(hours(since, until))
    for at in whole:
        for info, data in contents(store, store.list(outcome_folder(rolling_shard(lane, at)))):
            for line in filter(bytes.strip, data.splitlines()):
                try:
                    one = from_line(line)
                except ValueError:
                    problems += [f"{info.name} holds a line that is no outcome: {line[:80]!r}"] if len(problems) < PROBLEMS_KEPT else []
                    continue
                rank = RANK[one.outcome] - _PER_REPLAY * one.replay_number
                found[one.task_id] = min(rank, found.get(one.task_id, rank))
    ended = Counter(rank % _PER_REPLAY for rank in found.values())
    return LaneCount(
        lane,
        iso(whole[0]),
        iso(whole[-1] + HOUR_S),
        {name: ended[RANK[name]] for name in PRECEDENCE},
        given_count,
        ended[RANK[REPLAYED]],
        sum(1 for _ in store.list(delayed_folder(subscription))),
        tuple(problems),
    )
