"""The proof: how every task of a submission ended, by name.

submitted = succeeded + superseded + cancelled + dead + missing, always; a task without an outcome is missing, never assumed done. One that
was replayed and has not ended since is missing again.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from zlib import crc32

from batch.client.closing import PARTS, read_summary, short_name
from batch.model.clock import from_iso, iso
from batch.model.deadletters import title_of
from batch.model.errors import ObjectMissing
from batch.model.names import DAMAGED, DELAYED, delayed_parts, manifest_folder, outcome_folder, submission_object
from batch.model.outcomes import PRECEDENCE, RANK, REPLAYED, Outcome, counts_in, from_line
from batch.services.ports import ObjectInfo, ObjectStore
from batch.shards import contents

IDS_KEPT = 1000
PROBLEMS_KEPT = 100
GROUPS_KEPT = 10_000
"""Deaths by more errors than these (each text may name another file) are one group more, without a fingerprint."""
_PER_REPLAY = 8
"""A rank is that of the outcome, less this for each replay: of a task's lines the lowest counts."""
_NONE = _PER_REPLAY - 1
_OUTPUT_BITS = 32
"""Beside its rank a task keeps a hash of the output's name that its first success named: 0 for none."""
_OUTPUT_MASK = (1 << _OUTPUT_BITS) - 1
_PENDING = _NONE << _OUTPUT_BITS


@dataclass(frozen=True, slots=True)
class Basis:
    """What a proof was made from: how many manifests and objects of outcomes there were, and the newest generation of each; `part_count`
    and `task_count` as `submission.json` says them (None without it). `shards` are those that were read. In one that submissions share
    only objects that may tell of this submission count, unless it `shares_tasks`: then a task of it, under an idempotency key, may have
    been another submission's before."""

    shards: tuple[str, ...] = ()
    shares_tasks: bool = False
    manifest_count: int = 0
    newest_manifest: int = 0
    outcome_count: int = 0
    newest_outcome: int = 0
    part_count: int | None = None
    task_count: int | None = None


@dataclass(frozen=True, slots=True)
class DeadGroup:
    """Dead tasks of one type with one fingerprint; `example` is the outcome of one of them; `task_ids` of the first thousand of a
    submission."""

    fingerprint: str
    task_type: str
    count: int
    example: Outcome
    task_ids: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The error's type and message, without numbers and ids."""
        return title_of(self.example.error_type, self.example.reason)


@dataclass(frozen=True, slots=True)
class Proof:
    """How the tasks of a submission ended.

    Counts are of distinct tasks. `missing` has the ids without an outcome, in order. `workers` counts outcome lines by (execution,
    index). `repeated_line_count`: outcome lines beyond the first of a task and replay (harmless: a redelivery). `second_output_count`: of
    these the successes that name another output than the first (not harmless: the task took effect twice), `second_outputs` the first
    thousand tasks. `unknown_count`: outcomes in the submission's own shard for tasks that it never had. `dead`: the dead ones by what
    killed them, the largest group first. `replayed`: the replay's number of missing ones that were replayed, by id. `problems`: what makes
    the counts themselves doubtful. `delayed`: until when missing tasks wait in the bucket, by id; `damaged`: the objects of those that
    cannot come back by themselves.
    Times are ISO 8601, empty when nothing has finished.
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
    dead: tuple[DeadGroup, ...] = ()
    replayed: Mapping[str, int] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    submitted_at: str = ""
    first_finished_at: str = ""
    last_finished_at: str = ""
    handler_s: float = 0.0
    delayed: Mapping[str, str] = field(default_factory=dict)
    damaged: Mapping[str, str] = field(default_factory=dict)
    second_output_count: int = 0
    second_outputs: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every task has an outcome, and nothing puts the count of tasks in doubt."""
        return self.closed and not self.missing and not self.problems

    @property
    def finishing_s(self) -> float:
        """Seconds from the first outcome to the last; 0 where one of them is at no time that can be read."""
        try:
            return from_iso(self.last_finished_at) - from_iso(self.first_finished_at) if self.first_finished_at else 0.0
        except ValueError:
            return 0.0

    @property
    def tasks_per_s(self) -> float:
        """Finished tasks per second between the first and the last outcome; 0 when that is no time."""
        return sum(self.counts.values()) / self.finishing_s if self.finishing_s > 0 else 0.0


def prove(store: ObjectStore, submission_id: str) -> Proof:
    """Read manifests and outcomes of a submission. Raises ObjectMissing when there is no such submission,
    ObjectDamaged, DependencyError."""
    return proved(store, submission_id)[0]


def proved(store: ObjectStore, submission_id: str) -> tuple[Proof, Basis]:
    """As `prove`, with what the proof was made from."""
    summary = read_summary(store, submission_id)
    tally, manifests, outcomes = _Tally(submission_id), _Objects(), _Objects()
    for info, data in contents(store, manifests.counted(manifests_of(store, submission_id, summary))):
        tally.add_manifest(info.name, data)
    if summary is None and manifests.count == 0:
        raise ObjectMissing(submission_object(submission_id))
    shards = tuple(sorted(tally.shards | set(map(str, summary.get("shards", []) if summary else []))))
    for shard in shards:
        concerned = outcomes.counted(store.list(outcome_folder(shard)), submission_id, shard, every=tally.shares_tasks)
        for info, data in contents(store, concerned):
            tally.add_outcomes(shard, info.name, data)
    proof = _proof(submission_id, summary, manifests.count, tally)
    basis = Basis(shards, tally.shares_tasks, manifests.count, manifests.newest, outcomes.count, outcomes.newest, *_said(summary))
    return (_with_delayed(store, proof) if proof.missing else proof), basis


def basis_now(store: ObjectStore, submission_id: str, known: Basis) -> Basis:
    """What a proof would be made from now, of the same shards: only lists. Raises DependencyError."""
    summary, manifests, outcomes = read_summary(store, submission_id), _Objects(), _Objects()
    for _ in manifests.counted(manifests_of(store, submission_id, summary)):
        pass
    for shard in known.shards:
        for _ in outcomes.counted(store.list(outcome_folder(shard)), submission_id, shard, every=known.shares_tasks):
            pass
    return Basis(known.shards, known.shares_tasks, manifests.count, manifests.newest, outcomes.count, outcomes.newest, *_said(summary))


def _said(summary: Mapping[str, Any] | None) -> tuple[Any, Any]:
    """How many parts and tasks `submission.json` says there are."""
    return (summary.get("part_count"), summary.get("task_count")) if summary is not None else (None, None)


class _Objects:
    """Counts the objects that pass through it, and keeps the newest generation."""

    def __init__(self) -> None:
        self.count = self.newest = 0

    def counted(self, infos: Iterable[ObjectInfo], submission_id: str = "", shard: str = "", *, every: bool = True) -> Iterator[ObjectInfo]:
        """All of them; those count that may tell of the submission."""
        for info in infos:
            if every or counts_in(info.metadata, submission_id, shard) != {}:
                self.count += 1
                self.newest = max(self.newest, info.generation)
            yield info


def manifests_of(store: ObjectStore, submission_id: str, summary: Mapping[str, Any] | None) -> Iterator[ObjectInfo]:
    """Of one that was open those that its closing counted: of others nothing was published."""
    counted = set(summary[PARTS]) if summary is not None and PARTS in summary else None
    for info in store.list(manifest_folder(submission_id)):
        if counted is None or short_name(info.name) in counted:
            yield info


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


class _Tally:
    """What was read so far; for a million tasks it keeps an id, a rank (with the hash of an output) and little else each."""

    def __init__(self, submission_id: str) -> None:
        self.own_shard = submission_id
        self.found: dict[str, int] = {}
        self.shares_tasks = False
        self.second_output_count = 0
        self.second_outputs: dict[str, None] = {}
        self.shards: set[str] = set()
        self.manifest_lines = 0
        self.repeated_line_count = 0
        self.unknown: set[str] = set()
        self.workers: Counter[tuple[str, int]] = Counter()
        self.deaths: dict[str, tuple[str, str]] = {}
        self.examples: dict[tuple[str, str], tuple[tuple[str, str], Outcome]] = {}
        self.problems: list[str] = []
        self.first_at = self.last_at = ""
        self.handler_s = 0.0

    def add_manifest(self, name: str, data: bytes) -> None:
        for line in data.splitlines():
            try:
                body = json.loads(line)
                self.found[body["task_id"]] = _PENDING
                self.shards.add(body["shard"])
                self.shares_tasks = self.shares_tasks or not body["task_id"].endswith(body["shard"])
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
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
        found = self.found.get(outcome.task_id)
        if found is None:
            if shard == self.own_shard:
                self.unknown.add(outcome.task_id)
            return
        known, rank = found >> _OUTPUT_BITS, RANK[outcome.outcome] - _PER_REPLAY * outcome.replay_number
        is_repeat = known // _PER_REPLAY == rank // _PER_REPLAY and known % _PER_REPLAY < RANK[REPLAYED]
        if rank <= known:
            kept = found & _OUTPUT_MASK if is_repeat and rank == known else 0
            self.found[outcome.task_id] = rank << _OUTPUT_BITS | self._output(outcome, kept)
            if outcome.outcome == "dead":
                self._died(outcome)
        if outcome.outcome == REPLAYED:
            return
        self.repeated_line_count += is_repeat
        if outcome.execution:  # the tick ends what was cancelled while it was delayed
            self.workers[(outcome.execution, outcome.index)] += 1
        self.handler_s += outcome.duration_s
        self.last_at = max(self.last_at, outcome.finished_at)
        self.first_at = min(self.first_at or outcome.finished_at, outcome.finished_at)

    def _output(self, outcome: Outcome, kept: int) -> int:
        """The hash of the output of the task's first success of this replay: `kept`, if it is known."""
        if outcome.outcome != "succeeded" or not outcome.output:
            return kept
        named = crc32(outcome.output.encode("utf-8", "surrogatepass")) or 1
        if kept and kept != named:
            self.second_output_count += 1
            if len(self.second_outputs) < IDS_KEPT:
                self.second_outputs[outcome.task_id] = None
        return kept or named

    def _died(self, outcome: Outcome) -> None:
        group = (outcome.fingerprint or title_of(outcome.error_type, outcome.reason), outcome.task_type)
        if group not in self.examples and len(self.examples) >= GROUPS_KEPT:
            group = ("", "")
        self.deaths[outcome.task_id] = self.examples.setdefault(group, (group, outcome))[0]

    def dead_groups(self) -> tuple[DeadGroup, ...]:
        counts: Counter[tuple[str, str]] = Counter()
        named: dict[tuple[str, str], list[str]] = {}
        for number, (task_id, group) in enumerate((one, group) for one, group in self.deaths.items() if self._is_dead(one)):
            counts[group] += 1
            if number < IDS_KEPT or group not in named:
                named.setdefault(group, []).append(task_id)
        groups = [
            DeadGroup(group[0], group[1], count, self.examples[group][1], tuple(named.get(group, ()))) for group, count in counts.items()
        ]
        return tuple(sorted(groups, key=lambda one: (-one.count, one.fingerprint, one.task_type)))

    def _is_dead(self, task_id: str) -> bool:
        return self.rank(task_id) % _PER_REPLAY == RANK["dead"]

    def rank(self, task_id: str) -> int:
        """The lowest of the task's lines."""
        return self.found[task_id] >> _OUTPUT_BITS


def _proof(submission_id: str, summary: dict[str, Any] | None, part_count: int, tally: _Tally) -> Proof:
    counts = Counter((found >> _OUTPUT_BITS) % _PER_REPLAY for found in tally.found.values())
    missing = sorted(task_id for task_id in tally.found if tally.rank(task_id) % _PER_REPLAY >= RANK[REPLAYED])
    return Proof(
        submission_id=submission_id,
        closed=summary is not None,
        submitted_count=len(tally.found),
        counts={name: counts[RANK[name]] for name in PRECEDENCE},
        missing=tuple(missing),
        repeated_line_count=tally.repeated_line_count,
        repeated_task_count=tally.manifest_lines - len(tally.found),
        unknown_count=len(tally.unknown),
        workers=dict(sorted(tally.workers.items())),
        dead=tally.dead_groups(),
        replayed={task_id: -(tally.rank(task_id) // _PER_REPLAY) for task_id in missing if tally.rank(task_id) < 0},
        problems=(*_doubts(summary, part_count, tally), *tally.problems),
        submitted_at=str(summary.get("submitted_at", "")) if summary else "",
        first_finished_at=tally.first_at,
        last_finished_at=tally.last_at,
        handler_s=tally.handler_s,
        second_output_count=tally.second_output_count,
        second_outputs=tuple(tally.second_outputs),
    )


def _doubts(summary: dict[str, Any] | None, part_count: int, tally: _Tally) -> Iterable[str]:
    if summary is None:
        return
    if summary.get("part_count") != part_count:
        yield f"{part_count} manifests were found where {summary.get('part_count')} were written; was one deleted, or added since?"
    elif summary.get("task_count") != tally.manifest_lines:
        yield f"the manifests name {tally.manifest_lines} tasks where {summary.get('task_count')} were submitted; was one changed?"
