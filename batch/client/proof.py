"""The proof: how every task of a submission ended, by name.

submitted = succeeded + superseded + cancelled + dead + missing, always; a task without an outcome is missing, never assumed done.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from batch.model.clock import from_iso, iso
from batch.model.errors import ObjectMissing
from batch.model.names import DAMAGED, DELAYED, delayed_parts, manifest_object, outcome_folder, submission_object
from batch.model.outcomes import PRECEDENCE, RANK, Outcome, from_line
from batch.services.ports import ObjectStore

READS_AHEAD = 16
REASONS_KEPT = 1000
PROBLEMS_KEPT = 100
_NONE = len(PRECEDENCE)


@dataclass(frozen=True, slots=True)
class Proof:
    """How the tasks of a submission ended.

    Counts are of distinct tasks. `missing` has the ids without an outcome, in order. `workers` counts outcome lines by (execution,
    index). `repeated_line_count`: outcome lines beyond the first of a task (harmless: a redelivery). `unknown_count`: outcomes in the
    submission's own shard for tasks that it never had. `reasons`: why tasks are dead, by id, the first thousand. `problems`: what
    makes the counts themselves doubtful. `delayed`: until when missing tasks wait in the bucket, by id; `damaged`: the objects of those
    that cannot come back by themselves. Times are ISO 8601, empty when nothing has finished.
    """

    submission_id: str
    closed: bool
    submitted_count: int
    counts: Mapping[str, int]
    missing: tuple[str, ...] = ()
    repeated_line_count: int = 0
    repeated_task_count: int = 0
    unknown_count: int = 0
    workers: Mapping[tuple[str, int], int] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    submitted_at: str = ""
    first_finished_at: str = ""
    last_finished_at: str = ""
    handler_s: float = 0.0
    delayed: Mapping[str, str] = field(default_factory=dict)
    damaged: Mapping[str, str] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every task has an outcome, and nothing puts the count of tasks in doubt."""
        return self.closed and not self.missing and not self.problems

    @property
    def finishing_s(self) -> float:
        """Seconds from the first outcome to the last."""
        return from_iso(self.last_finished_at) - from_iso(self.first_finished_at) if self.first_finished_at else 0.0

    @property
    def tasks_per_s(self) -> float:
        """Finished tasks per second between the first and the last outcome; 0 when that is no time."""
        return sum(self.counts.values()) / self.finishing_s if self.finishing_s > 0 else 0.0


def prove(store: ObjectStore, submission_id: str) -> Proof:
    """Read manifests and outcomes of a submission. Raises ObjectMissing when there is no such submission, DependencyError."""
    summary = _summary(store, submission_id)
    tally = _Tally(submission_id)
    part_count = 0
    for name, data in _contents(store, f"submissions/{submission_id}/manifest-"):
        part_count += 1
        tally.add_manifest(name, data)
    if summary is None and part_count == 0:
        raise ObjectMissing(submission_object(submission_id))
    shards = sorted(tally.shards | set(summary.get("shards", []) if summary else []))
    for shard in shards:
        for name, data in _contents(store, outcome_folder(shard)):
            tally.add_outcomes(shard, name, data)
    proof = _proof(submission_id, summary, part_count, tally)
    return _with_delayed(store, proof) if proof.missing else proof


def _with_delayed(store: ObjectStore, proof: Proof) -> Proof:
    """Where missing tasks wait in the bucket; the names of the objects say it."""
    missing = set(proof.missing)
    delayed: dict[str, str] = {}
    damaged: dict[str, str] = {}
    for info in store.list(DELAYED):
        parts = delayed_parts(info.name)
        if parts is None or parts[1] not in missing:
            continue
        due, task_id = parts
        if info.name.startswith(DAMAGED) and info.name.count("/") > DAMAGED.count("/"):
            damaged[task_id] = info.name
        else:
            delayed[task_id] = max(iso(due), delayed.get(task_id, ""))
    return replace(proof, delayed=dict(sorted(delayed.items())), damaged=dict(sorted(damaged.items())))


def _summary(store: ObjectStore, submission_id: str) -> dict[str, Any] | None:
    try:
        body = json.loads(store.read(submission_object(submission_id)))
    except ObjectMissing:
        return None
    if not isinstance(body, dict):
        raise ValueError(f"{submission_object(submission_id)} is not a JSON object; it was not written by a submission")
    return body


def _contents(store: ObjectStore, prefix: str) -> Iterator[tuple[str, bytes]]:
    """Names and contents below `prefix`; a few reads run ahead, for a submission may have thousands of small objects."""
    ahead: deque[tuple[str, Future[bytes]]] = deque()
    with ThreadPoolExecutor(READS_AHEAD, thread_name_prefix="proof") as pool:
        for info in store.list(prefix):
            ahead.append((info.name, pool.submit(store.read, info.name)))
            if len(ahead) >= READS_AHEAD:
                name, content = ahead.popleft()
                yield name, content.result()
        while ahead:
            name, content = ahead.popleft()
            yield name, content.result()


class _Tally:
    """What was read so far; for a million tasks it keeps an id, a rank and little else each."""

    def __init__(self, submission_id: str) -> None:
        self.own_shard = submission_id
        self.ranks: dict[str, int] = {}
        self.shards: set[str] = set()
        self.manifest_lines = 0
        self.line_count = 0
        self.finished = 0
        self.unknown: set[str] = set()
        self.workers: Counter[tuple[str, int]] = Counter()
        self.reasons: dict[str, str] = {}
        self.problems: list[str] = []
        self.first_at = self.last_at = ""
        self.handler_s = 0.0

    def add_manifest(self, name: str, data: bytes) -> None:
        for line in data.splitlines():
            try:
                body = json.loads(line)
                self.ranks[body["task_id"]] = _NONE
                self.shards.add(body["shard"])
            except (ValueError, KeyError, TypeError):
                self._doubt(f"{name} holds a line that names no task: {line[:80]!r}")
                continue
            self.manifest_lines += 1

    def add_outcomes(self, shard: str, name: str, data: bytes) -> None:
        for line in data.splitlines():
            if not line.strip():
                continue
            try:
                outcome = from_line(line)
            except ValueError:
                self._doubt(f"{name} holds a line that is no outcome: {line[:80]!r}")
                continue
            self._add(shard, outcome)

    def _doubt(self, problem: str) -> None:
        if len(self.problems) < PROBLEMS_KEPT:
            self.problems.append(problem)

    def _add(self, shard: str, outcome: Outcome) -> None:
        known = self.ranks.get(outcome.task_id)
        if known is None:
            if shard == self.own_shard:
                self.unknown.add(outcome.task_id)
            return
        self.line_count += 1
        self.finished += known == _NONE
        self.ranks[outcome.task_id] = min(known, RANK[outcome.outcome])
        self.workers[(outcome.execution, outcome.index)] += 1
        self.handler_s += outcome.duration_s
        self.last_at = max(self.last_at, outcome.finished_at)
        self.first_at = min(self.first_at or outcome.finished_at, outcome.finished_at)
        if outcome.outcome == "dead" and len(self.reasons) < REASONS_KEPT:
            self.reasons[outcome.task_id] = f"{outcome.error_type}: {outcome.reason}" if outcome.error_type else outcome.reason


def _proof(submission_id: str, summary: dict[str, Any] | None, part_count: int, tally: _Tally) -> Proof:
    ranks = Counter(tally.ranks.values())
    dead = RANK["dead"]
    return Proof(
        submission_id=submission_id,
        closed=summary is not None,
        submitted_count=len(tally.ranks),
        counts={name: ranks[rank] for name, rank in RANK.items()},
        missing=tuple(sorted(task_id for task_id, rank in tally.ranks.items() if rank == _NONE)),
        repeated_line_count=tally.line_count - tally.finished,
        repeated_task_count=tally.manifest_lines - len(tally.ranks),
        unknown_count=len(tally.unknown),
        workers=dict(sorted(tally.workers.items())),
        reasons={task_id: reason for task_id, reason in tally.reasons.items() if tally.ranks[task_id] == dead},
        problems=(*_doubts(submission_id, summary, part_count, tally), *tally.problems),
        submitted_at=str(summary.get("submitted_at", "")) if summary else "",
        first_finished_at=tally.first_at,
        last_finished_at=tally.last_at,
        handler_s=tally.handler_s,
    )


def _doubts(submission_id: str, summary: dict[str, Any] | None, part_count: int, tally: _Tally) -> Iterable[str]:
    if summary is None:
        return
    if summary.get("part_count") != part_count:
        last = manifest_object(submission_id, max(0, int(summary.get("part_count") or 0) - 1))
        yield f"{part_count} manifests were found where {summary.get('part_count')} were written (up to {last}); was one deleted?"
    elif summary.get("task_count") != tally.manifest_lines:
        yield f"the manifests name {tally.manifest_lines} tasks where {summary.get('task_count')} were submitted; was one changed?"
