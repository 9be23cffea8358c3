"""Counting what has ended of a submission, from the metadata of outcome objects, read on from the last settled minute.

Such counts are approximate (a redelivery repeats a line): they make somebody look, only the proof decides.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import dataclass, field

from batch.model.clock import minute
from batch.model.names import outcome_folder
from batch.model.outcomes import PRECEDENCE, REPLAYED, counts_in
from batch.services.ports import ObjectInfo, ObjectStore
from batch.shards import contents, lines_of

SETTLED_AFTER_S = 300.0
"""So long after a minute is over nobody writes an outcome object of it: an object is named by its writer's clock, before it is written."""
ANEW_AFTER_S = 3600.0
"""Then all minutes are counted once more, for an object that came later all the same: a paused machine, a replay that was resumed."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A submission's lines in one shard, by outcome: `counts` of all, `before` of those in minutes before `settled` (as objects are named),
    which are not listed again until an hour after `begun_s` (Unix seconds). `written`: the same lines by the execution that wrote them,
    and under OBJECTS the objects that may tell of the submission; `newest` is the highest generation of these."""

    counts: Mapping[str, int] = field(default_factory=dict)
    settled: str = ""
    before: Mapping[str, int] = field(default_factory=dict)
    begun_s: float = 0.0
    written: Mapping[str, int] = field(default_factory=dict)
    written_before: Mapping[str, int] = field(default_factory=dict)
    newest: int = 0


NOTHING_SEEN = Seen()
OBJECTS = "/objects"
"""No execution has such a name."""
_WRITER = re.compile(r"(.+)-\d+-\d+-\d+\.jsonl")


def ended_count(counts: Mapping[str, int]) -> int:
    """How many tasks have ended: one whose dead letter was replayed has not, until it ends once more."""
    return max(0, sum(counts.get(outcome, 0) for outcome in PRECEDENCE) - counts.get(REPLAYED, 0))


def look_on(store: ObjectStore, submission_id: str, shard: str, seen: Seen, now: float) -> Seen:
    """`seen` brought up to `now` (Unix seconds). Raises DependencyError."""
    return look_on_shard(store, shard, {submission_id: seen}, now)[submission_id]


def look_on_shard(store: ObjectStore, shard: str, seen: Mapping[str, Seen], now: float) -> dict[str, Seen]:
    """As `look_on`, for several submissions that share a shard: it is listed once. Raises DependencyError."""
    looks = {submission_id: _Look(submission_id, shard, one, now) for submission_id, one in seen.items()}
    folder = outcome_folder(shard)
    untold: dict[str, tuple[ObjectInfo, list[_Look]]] = {}
    for info in store.list(folder, folder + min((look.begins for look in looks.values()), default="")):
        silent = [look for look in looks.values() if not look.adds(info)]
        if silent:
            untold[info.name] = (info, silent)
    for info, data in contents(store, [info for info, _ in untold.values()], may_go=True):
        for look in untold[info.name][1]:
            look.adds_lines(store, info, data)
    return {submission_id: look.seen for submission_id, look in looks.items()}


class _Look:
    """One submission's counting of one listing."""

    def __init__(self, submission_id: str, shard: str, seen: Seen, now: float) -> None:
        self.submission_id, self.shard = submission_id, shard
        self._old = Seen(begun_s=now) if now - seen.begun_s >= ANEW_AFTER_S else seen
        self.begins = self._old.settled
        self._settles = max(self.begins, minute(now - SETTLED_AFTER_S))
        self._before, self._since = Counter(self._old.before), Counter[str]()
        self._written_before, self._written_since = Counter(self._old.written_before), Counter[str]()
        self._newest = self._old.newest
        self._ids: Set[str] | None = None

    @property
    def seen(self) -> Seen:
        counts, written = self._before + self._since, self._written_before + self._written_since
        before, written_before = dict(self._before), dict(self._written_before)
        return Seen(dict(counts), self._settles, before, self._old.begun_s, dict(written), written_before, self._newest)

    def adds(self, info: ObjectInfo) -> bool:
        """False if its metadata does not tell: its lines are to be counted."""
        at = self._minute(info)
        counts = counts_in(info.metadata, self.submission_id, self.shard) if at >= self.begins else {}
        if counts:
            self._add(info, counts)
        return counts is not None

    def adds_lines(self, store: ObjectStore, info: ObjectInfo, data: bytes) -> None:
        if self._ids is None:
            self._ids = task_ids(store, self.submission_id)
        self._add(info, Counter(outcome.outcome for outcome in lines_of(data, self._ids)))

    def _add(self, info: ObjectInfo, counts: Mapping[str, int]) -> None:
        is_settled = self._minute(info) < self._settles
        (self._before if is_settled else self._since).update(counts)
        writer = _WRITER.fullmatch(info.name.rpartition("/")[2])
        written = {OBJECTS: 1, **({writer[1]: sum(counts.values())} if writer else {})}
        (self._written_before if is_settled else self._written_since).update(written)
        self._newest = max(self._newest, info.generation)

    def _minute(self, info: ObjectInfo) -> str:
        return info.name.removeprefix(outcome_folder(self.shard)).partition("/")[0]


def task_ids(store: ObjectStore, submission_id: str) -> Set[str]:
    """The task ids in a submission's manifests. Raises DependencyError."""
    found = set()
    for _, data in contents(store, store.list(f"submissions/{submission_id}/manifest-"), may_go=True):
        for line in data.splitlines():
            try:
                found.add(str(json.loads(line)["task_id"]))
            except (ValueError, TypeError, KeyError, RecursionError):
                continue  # the proof tells of it
    return found
