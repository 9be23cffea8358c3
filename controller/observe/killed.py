"""What killed tries of workers have done, as the metadata of their outcome objects counts it: their last progress may be much older.

The ledger does not use it: to it a killed worker's messages stay assigned for an ack deadline, whatever became of them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from batch.model.message import rolling_shard
from batch.model.names import outcome_folder
from batch.model.outcomes import PRECEDENCE
from batch.model.progress import Progress
from batch.services.ports import ObjectInfo, ObjectStore
from controller.model.execution import ExecutionInfo, NumberedTries

NAMED = 5
"""Killed tries that a line names."""
HOUR_S = 3600.0
MAX_HOURS = 6
_REST = re.compile(r"(\d+)-(\d+)-\d+\.jsonl")

Try = tuple[int, int]


def killed_tries(tries: NumberedTries, *, live: bool, ended: Collection[int] = ()) -> list[Try]:
    """The tries, by worker index and number, that ended without an exit reason: another one came after, or their worker, or the whole
    execution, has ended. `ended`: the indexes of workers that have ended for good while others live."""
    last = dict(sorted(tries))
    over = [key for key in tries if not live or key[0] in ended or key[1] < last[key[0]]]
    return sorted(key for key in over if not tries[key].exit_reason)


def killed_text(execution: str, killed: Sequence[Try]) -> str:
    """One line about killed tries, and the next command."""
    named = ", ".join(f"worker {index} (try {retry})" for index, retry in killed[:NAMED])
    more = f" and {len(killed) - NAMED} more" if len(killed) > NAMED else ""
    return f"{execution}: {named}{more} ended without an exit reason: killed, or crashed; `fanout execution {execution}` shows how"


def with_outcomes(store: ObjectStore, info: ExecutionInfo, tries: NumberedTries, killed: Collection[Try]) -> NumberedTries:
    """The same tries; what the `killed` ones have done is what their outcomes say. Raises DependencyError."""
    counts = _counts(store, info, {key: tries[key] for key in killed})
    return {key: _told(progress, counts[key]) if key in counts else progress for key, progress in tries.items()}


def _told(progress: Progress, counts: Mapping[str, int]) -> Progress:
    """Outcomes are written before they are acknowledged, so a few of them may have been delivered again."""
    acked = max(progress.acked, sum(counts.values()) + progress.delayed)
    most = {name: max(getattr(progress, name), counts.get(name, 0)) for name in PRECEDENCE}
    return replace(progress, acked=acked, taken=max(progress.taken, acked + progress.returned), **most)


def _counts(store: ObjectStore, info: ExecutionInfo, killed: NumberedTries) -> Mapping[Try, Counter[str]]:
    found: dict[Try, Counter[str]] = {key: Counter() for key in killed}
    shards: dict[str, set[Try]] = {}
    for key, progress in killed.items():
        for shard in {*progress.shards, *_rolling(info, progress)}:
            shards.setdefault(shard, set()).add(key)
    for shard, keys in shards.items():
        for key, one in _objects(store, shard, info.name):
            if key in keys:
                found[key].update({name: int(count) for name in PRECEDENCE if (count := one.metadata.get(name, "")).isdecimal()})
    return found


def _rolling(info: ExecutionInfo, progress: Progress) -> Iterator[str]:
    """The shards of single tasks that it most likely wrote to: it may have been killed before its progress named them."""
    lane = info.env.get("LANE") or info.full_name.split("/jobs/")[-1].split("/")[0]
    at, end = progress.started_at - HOUR_S, info.completed_at or progress.updated_at
    for _ in range(MAX_HOURS):
        yield rolling_shard(lane, at)
        at += HOUR_S
        if at >= end + HOUR_S:
            return


def _objects(store: ObjectStore, shard: str, execution: str) -> Iterator[tuple[Try, ObjectInfo]]:
    """The outcome objects in a shard of an execution's tries."""
    for one in store.list(outcome_folder(shard)):
        writer = one.name.rpartition("/")[2]
        # Another execution's name may begin with this one's.
        if writer.startswith(f"{execution}-") and (named := _REST.fullmatch(writer.removeprefix(f"{execution}-"))):
            yield (int(named[1]), int(named[2])), one
