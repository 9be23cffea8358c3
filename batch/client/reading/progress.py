"""How far a submission is, by the metadata of what lies in the bucket: no outcome is read for it.

Such counts are approximate. A redelivery repeats a line, so they may be too high, and are capped at what was submitted; they never say that
a submission is complete. That says only its stored proof, while nothing newer is there.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Set
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice
from math import floor
from typing import Any

from batch.client.closing import read_summary
from batch.client.proof import manifests_of
from batch.client.reading.cost import Cost, Spent, all_spent, cost_of
from batch.client.stored_proof import StoredProof, read_stored, told_again
from batch.dead.lanes import LaneFacts
from batch.ends import marks
from batch.ends.counting import NOTHING_SEEN, OBJECTS, SETTLED_AFTER_S, Seen, ended_count, look_on, task_ids
from batch.ends.options import End, ends_of
from batch.model.attempts import from_json
from batch.model.clock import from_iso, iso
from batch.model.errors import MessageRefused, ObjectMissing
from batch.model.message import ROLLING_BELOW, shard_in_id
from batch.model.names import attempts_object, delayed_folder, delayed_parts, opened_object, submission_object
from batch.model.outcomes import PRECEDENCE, REPLAYED
from batch.services.ports import ObjectStore

MAX_DELAYED_LOOKED_AT = 1000
"""Names of delayed messages of the lane: one request. Where there are as many, how many are the submission's is not told."""
RUNNING_TOLD_S = 180.0
"""What a worker said longer ago is not believed: it may have been killed."""


class SubmissionState(StrEnum):
    """Open: tasks may still be added. Finishing: counts suggest the end, which is not proven yet. Failed: complete, with more dead tasks
    than its client tolerates."""

    OPEN = "open"
    RUNNING = "running"
    FINISHING = "finishing"
    COMPLETE = "complete"
    FAILED = "failed"

    @property
    def is_end(self) -> bool:
        """Whether nothing changes any more, but by a retry or a replay."""
        return self in (SubmissionState.COMPLETE, SubmissionState.FAILED)


@dataclass(slots=True)
class Known:
    """What is kept of a submission from one look to the next, so that each reads on from the last."""

    summary: Mapping[str, Any] | None = None
    seen: dict[str, Seen] = field(default_factory=dict)
    spent: dict[str, Spent] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SubmissionProgress:
    """How far a submission is. `task_count` is None while it is open; `accepted_count` are known so far. `is_approximate`: the counts are
    not those of a proof. At least `running_count` of the pending ones run: workers that wrote outcomes of it name them, each its oldest 20.
    `delayed_count` of the pending ones wait until a time; None where that is not known. Times are Unix seconds, 0
    where there is none. `end`: `waiting` until what its client wants to happen at its end was published, then `fired`; `end_error`: why the
    last `fanout.finish` failed, while it waits."""

    submission_id: str
    lane: str
    state: SubmissionState
    accepted_count: int
    task_count: int | None
    counts: Mapping[str, int]
    pending_count: int
    running_count: int
    delayed_count: int | None
    is_approximate: bool
    tasks_per_s: float
    expected_end_at: float
    submitted_at: str
    closed_at: str
    proved_at: float
    end: str
    end_error: str
    cost: Cost

    def as_object(self) -> dict[str, Any]:
        """As JSON values; what is not known is null."""
        return {
            "submission_id": self.submission_id,
            "lane": self.lane or None,
            "state": self.state.value,
            "task_count": self.task_count,
            "accepted_count": self.accepted_count,
            **{f"{name}_count": self.counts[name] for name in PRECEDENCE},
            "pending_count": self.pending_count,
            "running_count": self.running_count,
            "delayed_count": self.delayed_count,
            "approximate": self.is_approximate,
            "tasks_per_s": round(self.tasks_per_s, 3),
            "expected_end_at": iso(self.expected_end_at) if self.expected_end_at else None,
            "submitted_at": self.submitted_at or None,
            "closed_at": self.closed_at or None,
            "proved_at": iso(self.proved_at) if self.proved_at else None,
            "end": self.end or None,
            "end_error": self.end_error or None,
            "cost": self.cost.as_object(),
        }


def progress(
    store: ObjectStore, submission_id: str, lanes: Mapping[str, LaneFacts], now: float, known: Known | None = None
) -> SubmissionProgress:
    """How far a submission is at `now` (Unix seconds). `known`, kept by the caller, makes the next look cheaper. Raises ObjectMissing when
    there is no such submission, ObjectDamaged, DependencyError."""
    known = known if known is not None else Known()
    about = _about(store, submission_id, known)
    for shard in about.shards:
        known.seen[shard] = look_on(store, submission_id, shard, known.seen.get(shard, NOTHING_SEEN), now)
    found = _Found.of([known.seen[shard] for shard in about.shards])
    stored = _holding(store, submission_id, found) if about.closed else None
    if stored is not None:
        counts: Mapping[str, int] = stored.proof.counts
        state = _end_of(about, counts["dead"])
    else:
        counts = _capped(found.counts, about.accepted_count)
        is_ended = ended_count(found.counts) >= about.accepted_count
        state = SubmissionState.OPEN if not about.closed else SubmissionState.FINISHING if is_ended else SubmissionState.RUNNING
    pending = max(0, about.accepted_count - sum(counts.values()))
    rate = _rate(known, about, now) if not state.is_end else 0.0
    lane = lanes.get(about.lane)
    written = {name: count for name, count in found.written.items() if name != OBJECTS}
    spent = all_spent(store, written, known.spent)
    return SubmissionProgress(
        submission_id,
        about.lane,
        state,
        about.accepted_count,
        about.accepted_count if about.closed else None,
        counts,
        pending,
        min(pending, _running_count(store, about, spent, now)) if pending else 0,
        _delayed_count(store, submission_id, lane, about.accepted_count) if pending else 0,
        stored is None,
        rate,
        now + pending / rate if rate and pending and about.closed else 0.0,
        about.submitted_at,
        about.closed_at,
        stored.stored_at if stored else 0.0,
        *_end(store, about),
        cost_of(
            lane,
            written,
            spent,
            message_count=about.accepted_count + found.counts.get(REPLAYED, 0),
            write_count=about.part_count + 1 + found.written.get(OBJECTS, 0),
        ),
    )


@dataclass(frozen=True, slots=True)
class _About:
    """What a submission says of itself, or while it is open what its manifests say."""

    submission_id: str
    closed: bool
    lane: str
    accepted_count: int
    part_count: int
    shards: tuple[str, ...]
    submitted_at: str = ""
    closed_at: str = ""
    ends: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Found:
    """What was seen in all shards."""

    counts: Mapping[str, int]
    written: Mapping[str, int]
    newest: int

    @classmethod
    def of(cls, all_seen: list[Seen]) -> _Found:
        counts, written = Counter[str](), Counter[str]()
        for seen in all_seen:
            counts.update(seen.counts)
            written.update(seen.written)
        return cls(counts, written, max((seen.newest for seen in all_seen), default=0))


def _about(store: ObjectStore, submission_id: str, known: Known) -> _About:
    known.summary = known.summary or read_summary(store, submission_id)
    if known.summary is not None:
        return _from_summary(submission_id, known.summary)
    opened, parts = _opened(store, submission_id), list(manifests_of(store, submission_id, None))
    if not opened and not parts:
        raise ObjectMissing(submission_object(submission_id))
    shards = dict.fromkeys([submission_id, *(shard for part in parts for shard in part.metadata.get("shards", "").split(",") if shard)])
    count = sum(int(part.metadata.get("tasks", 0)) for part in parts)
    lane, submitted_at = str(opened.get("lane", "")), str(opened.get("submitted_at", ""))
    return _About(submission_id, False, lane, count, len(parts), tuple(shards), submitted_at, "", opened.get("ends") or {})


def _from_summary(submission_id: str, summary: Mapping[str, Any]) -> _About:
    counts = int(summary.get("task_count") or 0), int(summary.get("part_count") or 0)
    texts = str(summary.get("submitted_at", "")), str(summary.get("closed_at", ""))
    shards = tuple(map(str, summary.get("shards", ())))
    return _About(submission_id, True, str(summary.get("lane", "")), *counts, shards, *texts, summary.get("ends") or {})


def _opened(store: ObjectStore, submission_id: str) -> Mapping[str, Any]:
    """What an open submission said when it began; empty for one whose client has not closed it yet."""
    try:
        body = json.loads(store.read(opened_object(submission_id)))
        return body if isinstance(body, dict) else {}
    except (ObjectMissing, ValueError, RecursionError):
        return {}


def _holding(store: ObjectStore, submission_id: str, found: _Found) -> StoredProof | None:
    """The stored proof, unless something newer than it was seen."""
    stored = read_stored(store, submission_id)
    if stored is None:
        return None
    if stored.basis.shares_tasks:  # what was seen are not all objects that may tell of them
        return stored if told_again(store, submission_id, stored) else None
    return stored if found.newest <= stored.basis.newest_outcome else None


def _end_of(about: _About, dead_count: int) -> SubmissionState:
    try:
        end = ends_of(about.ends).come_to(dead_count, about.accepted_count)
    except (MessageRefused, AttributeError):
        end = End.FAILURE if dead_count else End.COMPLETE
    return SubmissionState.COMPLETE if end is End.COMPLETE else SubmissionState.FAILED


def _capped(counts: Mapping[str, int], most: int) -> dict[str, int]:
    """Lines as tasks: a replayed one is not dead any longer, and there are no more than were submitted."""
    left, found = most, dict[str, int]()
    for outcome in PRECEDENCE:
        count = counts.get(outcome, 0) - (counts.get(REPLAYED, 0) if outcome == "dead" else 0)
        found[outcome] = min(max(0, count), left)
        left -= found[outcome]
    return found


def _rate(known: Known, about: _About, now: float) -> float:
    """Tasks that ended a second, in the minutes that are not settled."""
    recent = sum(ended_count(seen.counts) - ended_count(seen.before) for seen in (known.seen[shard] for shard in about.shards))
    since = floor((now - SETTLED_AFTER_S) / 60.0) * 60.0
    with suppress(ValueError):  # one that nobody has closed yet does not say it
        since = max(since, from_iso(about.submitted_at))
    return max(0, recent) / max(1.0, now - since)


def _delayed_count(store: ObjectStore, submission_id: str, lane: LaneFacts | None, count: int) -> int | None:
    if lane is None or not lane.subscription:
        return None
    found = list(islice(store.list(delayed_folder(lane.subscription)), MAX_DELAYED_LOOKED_AT))
    if len(found) >= MAX_DELAYED_LOOKED_AT:
        return None
    return _own_count(store, submission_id, {parts[1] for info in found if (parts := delayed_parts(info.name)) is not None}, count)


def _running_count(store: ObjectStore, about: _About, spent: Mapping[str, Spent], now: float) -> int:
    named = {task_id for one in spent.values() for task_id, at in one.running if at >= now - RUNNING_TOLD_S}
    return _own_count(store, about.submission_id, named, about.accepted_count)


def _own_count(store: ObjectStore, submission_id: str, named: Set[str], count: int) -> int:
    """How many of these are tasks of the submission, which has `count`: ids of a small one do not tell."""
    own = task_ids(store, submission_id) if named and count < ROLLING_BELOW else frozenset[str]()
    return sum(task_id in own or shard_in_id(task_id) == submission_id for task_id in named)


def _end(store: ObjectStore, about: _About) -> tuple[str, str]:
    if not about.ends:
        return "", ""
    mark = marks.standing(store, about.lane, about.submission_id)
    if mark is None:
        return "fired", ""
    if not mark.told.task_id:
        return "waiting", ""
    with suppress(ObjectMissing):  # it has not failed
        attempts = from_json(store.read(attempts_object(mark.told.task_id)))
        if attempts.errors:
            last = attempts.errors[-1]
            return "waiting", f"task {mark.told.task_id} failed {attempts.attempt_count} times, last with {last.error_type}: {last.reason}"
    return "waiting", ""
