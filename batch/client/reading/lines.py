"""Outcome lines of a submission, as workers wrote them. A task may have more than one: a redelivery repeats it, a replay adds to it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Set
from dataclasses import dataclass

from batch.client.closing import read_summary
from batch.client.proof import manifests_of
from batch.ends.counting import task_ids
from batch.model.clock import iso, minute
from batch.model.errors import MessageRefused, ObjectMissing
from batch.model.names import outcome_folder, submission_object
from batch.model.outcomes import REPLAYED, Outcome, from_line
from batch.services.ports import ObjectStore
from batch.shards import contents

READS_AHEAD = 4
MAX_TASKS_HELD = 100_000
"""Of a submission whose tasks must be told apart: with `final`, or in shards that others share."""
AROUND_S = 300.0
"""How much earlier than it says an outcome may have been written: clocks differ."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which lines: of these outcomes and task types (empty: any), finished since then (Unix seconds). `final`: of each task the line that
    counts, if it has ended."""

    outcomes: Collection[str] = ()
    task_types: Collection[str] = ()
    since: float = 0.0
    final: bool = False

    def matches(self, one: Outcome) -> bool:
        """Whether this outcome is wanted."""
        is_kind = (not self.outcomes or one.outcome in self.outcomes) and (not self.task_types or one.task_type in self.task_types)
        return is_kind and (not self.since or one.finished_at >= iso(self.since))


def outcome_lines(store: ObjectStore, submission_id: str, wanted: Wanted) -> Iterator[bytes]:
    """Each with its line end, a few objects in memory at a time; lines that are no outcome are left out, the proof names them. Raises
    ObjectMissing when there is no such submission; MessageRefused where more tasks would have to be held than may be; DependencyError."""
    summary = read_summary(store, submission_id)
    if summary is None and next(manifests_of(store, submission_id, None), None) is None:
        raise ObjectMissing(submission_object(submission_id))
    count, shards = (int(summary.get("task_count") or 0), summary.get("shards", [])) if summary else (0, [submission_id])
    is_shared = any(shard != submission_id for shard in shards)
    if count > MAX_TASKS_HELD and (wanted.final or is_shared):
        raise _too_many(f"{count:,}")
    own = task_ids(store, submission_id) if is_shared else None
    read = _Reading(store, submission_id, tuple(shards), own, "" if wanted.final or not wanted.since else minute(wanted.since - AROUND_S))
    if wanted.final:
        return read.final(wanted)
    return (line for _, line, one in read.lines() if wanted.matches(one))


def _too_many(count: str) -> MessageRefused:
    what = "one line for each task, and lines in shards that other submissions share"
    return MessageRefused(
        "invalid", f"{what}, can be told of at most {MAX_TASKS_HELD:,} tasks, and this submission has {count}", ("final",)
    )


@dataclass(frozen=True, slots=True)
class _Reading:
    """`own`: the tasks that count in a shard that others share. Nothing older than the minute `begins` is read."""

    store: ObjectStore
    submission_id: str
    shards: tuple[str, ...]
    own: Set[str] | None
    begins: str

    def lines(self) -> Iterator[tuple[tuple[str, int], bytes, Outcome]]:
        """Each with its place, which is the same whenever it is read."""
        for shard in self.shards:
            folder = outcome_folder(shard)
            for info, data in contents(self.store, self.store.list(folder, folder + self.begins), READS_AHEAD, may_go=True):
                for number, line in enumerate(data.splitlines()):
                    try:
                        one = from_line(line)
                    except ValueError:
                        continue
                    if shard == self.submission_id or self.own is None or one.task_id in self.own:
                        yield (info.name, number), line + b"\n", one

    def final(self, wanted: Wanted) -> Iterator[bytes]:
        """Reads all twice: once to know which lines count, once to tell them."""
        best: dict[str, tuple[tuple[int, int], tuple[str, int]]] = {}
        for place, _, one in self.lines():
            if one.task_id not in best or one.order < best[one.task_id][0]:
                best[one.task_id] = one.order, place
                if len(best) > MAX_TASKS_HELD:
                    raise _too_many("more")
        for place, line, one in self.lines():
            if best.get(one.task_id, ((), ()))[1] == place and one.outcome != REPLAYED and wanted.matches(one):
                yield line
