"""A worker's progress, as the metadata of one object: what the controller's ledger is computed from.

Counters only grow: `taken` from the subscription, `acked` (whatever the outcome, and what was delayed), `returned` (nacked).
`taken - acked - returned` messages are outstanding.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import NamedTuple

MARK_EVERY_S = 15
MARKS_KEPT = 40
"""Ten minutes of marks: longer than any reading of the backlog may be old."""
DEFERRED_KEPT = 64
RUNNING_KEPT = 20
RUNNING_BYTES = 3000
"""What the running tasks may take of the 8 KiB of an object's metadata; the youngest are left out."""
SHARDS_BYTES = 1500
"""What the names of outcome shards may take; a worker that writes to more names the first."""
JITTER = 0.2
"""A worker waits up to a tenth more or less than the interval, so that workers do not write in step."""
MAX_BROKEN_BY_CHARS = 500
MANY_WORKERS = 1000
"""Above this number each worker writes less often, so that all together stay below the bucket's rate."""


class RunningTask(NamedTuple):
    """A task whose handler runs, since `since` (Unix seconds)."""

    task_id: str
    task_type: str
    since: int


@dataclass(frozen=True, slots=True)
class Progress:
    """One worker try. Times are Unix seconds; `marks` are (time, acked by then) on the 15 s grid, oldest first;
    `deferred` are (due time, count) of messages nacked with a delay; `exit_reason` is empty while it runs."""

    share: int
    started_at: float
    updated_at: float
    taken: int = 0
    acked: int = 0
    returned: int = 0
    succeeded: int = 0
    superseded: int = 0
    cancelled: int = 0
    dead: int = 0
    handler_s: float = 0.0
    marks: tuple[tuple[int, int], ...] = ()
    deferred: tuple[tuple[int, int], ...] = ()
    exit_reason: str = ""
    handled: int = 0
    """Messages whose handlers took `handler_s` together: more than are acknowledged, where outcomes wait to be written. 0: not known."""
    delayed: int = 0
    """How many of `acked` wait in the bucket until their task is due. They have left the subscription, so no ledger counts them."""
    last_acked_at: float = 0.0
    """When `acked` last grew (Unix seconds); 0 when it never did, or the worker did not write it."""
    broken_by: str = ""
    """What a worker that ended `broken` could not work with."""

    longest_s: float = 0.0
    """The most handler seconds that one message took; 0 when the worker did not write it."""

    running: tuple[RunningTask, ...] = ()
    """The tasks that have been running longest, the oldest first; of a group its first."""
    shards: tuple[str, ...] = ()
    """The outcome shards that the worker has begun to write to: there lies what it has done since its last progress."""

    @property
    def held(self) -> int:
        """Messages that are outstanding in this worker."""
        return max(0, self.taken - self.acked - self.returned)

    def acked_at(self, unix_s: float) -> int:
        """About how many messages were acknowledged by then (Unix seconds): what came between two marks is taken to have come evenly. It
        never falls as time goes on."""
        if unix_s >= self.updated_at:
            return self.acked
        at = bisect_right(self.marks, unix_s, key=_time)
        begin, before = self.marks[at - 1] if at else (self.started_at, 0)
        end, after = self.marks[at] if at < len(self.marks) else (self.updated_at, self.acked)
        begin = max(begin, self.started_at)
        if not begin < unix_s < end or after <= before:
            return before
        return before + int((after - before) * (unix_s - begin) / (end - begin))


def _time(mark: tuple[int, int]) -> int:
    return mark[0]


def interval_s(base_s: float, worker_count: int) -> float:
    """Seconds between two writes of the progress of one of `worker_count` workers."""
    return base_s * max(1.0, worker_count / MANY_WORKERS)


_COUNTS = ("share", "taken", "acked", "returned", "succeeded", "superseded", "cancelled", "dead")
_MORE_COUNTS = ("delayed", "handled")
_SECONDS = ("started_at", "updated_at", "handler_s")


def to_metadata(progress: Progress) -> dict[str, str]:
    """All values as texts, below 8 KiB: as many of the newest marks and of the next due deferrals as fit."""
    metadata = {name: str(getattr(progress, name)) for name in _COUNTS}
    metadata |= {name: f"{getattr(progress, name):.3f}" for name in _SECONDS}
    metadata["marks"] = json.dumps(progress.marks[-MARKS_KEPT:], separators=(",", ":"))
    metadata["deferred"] = json.dumps(_fewer(progress.deferred), separators=(",", ":"))
    metadata["exit_reason"] = progress.exit_reason
    metadata |= {name: str(getattr(progress, name)) for name in _MORE_COUNTS}
    metadata["last_acked_at"] = f"{progress.last_acked_at:.3f}"
    metadata["longest_s"] = f"{progress.longest_s:.3f}"
    metadata["running"] = _within(RUNNING_BYTES, progress.running[:RUNNING_KEPT])
    metadata["shards"] = _within(SHARDS_BYTES, progress.shards)
    if progress.broken_by:
        # A handler's words may be in it: a person reads them in a terminal.
        metadata["broken_by"] = "".join(one if one.isprintable() else " " for one in progress.broken_by[:MAX_BROKEN_BY_CHARS])
    return metadata


def from_metadata(metadata: Mapping[str, str]) -> Progress:
    """Raises ValueError when the metadata is not a worker's progress."""
    try:
        counts = {name: int(metadata[name]) for name in _COUNTS} | {name: int(metadata.get(name, "0")) for name in _MORE_COUNTS}
        seconds = {name: float(metadata[name]) for name in _SECONDS}
        seconds |= {name: float(metadata.get(name, "0")) for name in ("last_acked_at", "longest_s")}
        running = tuple(RunningTask(str(one), str(kind), int(since)) for one, kind, since in json.loads(metadata.get("running", "[]")))
        shards = tuple(map(str, json.loads(metadata.get("shards", "[]"))))
        if not all(map(isfinite, seconds.values())):
            raise ValueError(f"times are {seconds}")
        marks, deferred = (
            tuple((int(time), int(count)) for time, count in json.loads(metadata.get(name, "[]"))) for name in ("marks", "deferred")
        )
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"not a worker's progress: {error!r}") from error
    told = {"marks": marks, "deferred": deferred, "running": running, "shards": shards}
    texts = {name: metadata.get(name, "") for name in ("exit_reason", "broken_by")}
    return Progress(**counts, **seconds, **texts, **told)  # type: ignore[arg-type]


def _within(max_bytes: int, values: Sequence[object]) -> str:
    """The first of these, as JSON, that fit."""
    texts: list[str] = []
    left = max_bytes
    for value in values:
        text = json.dumps(value, separators=(",", ":"))
        left -= len(text) + 1
        if left < 1:
            break
        texts.append(text)
    return f"[{','.join(texts)}]"


def _fewer(deferred: tuple[tuple[int, int], ...]) -> list[tuple[int, int]]:
    """At most DEFERRED_KEPT pairs: neighbours are joined at the later due time, so that the sum stays right."""
    pairs = sorted(deferred)
    while len(pairs) > DEFERRED_KEPT:
        pairs = [
            (max(pair[0] for pair in pairs[at : at + 2]), sum(pair[1] for pair in pairs[at : at + 2])) for at in range(0, len(pairs), 2)
        ]
    return pairs
