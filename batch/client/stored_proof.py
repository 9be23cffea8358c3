"""The stored proof: a complete proof is kept beside its submission, and answers for it while the bucket shows nothing newer.

It never answers for what it has not read: when an object of outcomes or a manifest was added, changed or is gone, all is proved again. Only
where outcomes have expired since is the proof told as it was stored, and says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from typing import Any

from batch.client.proof import Basis, DeadGroup, Proof, basis_now, proved
from batch.model.clock import iso
from batch.model.errors import DependencyUnavailable, ObjectMissing, PreconditionFailed
from batch.model.names import stored_proof_object
from batch.model.outcomes import PRECEDENCE, Outcome
from batch.services.ports import ObjectStore

FORMAT = 1
MAX_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class StoredProof:
    """`stored_at` is Unix seconds. `more`: what else stands beside the proof, such as the round whose end was fired."""

    proof: Proof
    basis: Basis
    stored_at: float = 0.0
    more: Mapping[str, Any] = field(default_factory=dict)
    generation: int = 0


@dataclass(frozen=True, slots=True)
class ToldProof:
    """A proof, and when it was stored (Unix seconds; 0: it is new, and not complete). `as_stored`: some of the outcomes that it was made
    from are gone since, so that nobody can prove it again."""

    proof: Proof
    stored_at: float = 0.0
    as_stored: bool = False

    def as_object(self, most: int | None = None) -> dict[str, object]:
        """As JSON values; `most` missing tasks are named."""
        told = {"as_stored": self.as_stored, "stored_at": iso(self.stored_at) if self.stored_at else None}
        return {**as_object(self.proof, most), **told}


def proof_of(store: ObjectStore, submission_id: str) -> ToldProof:
    """The stored proof while it holds, else a new one, which is stored if it is complete. Raises ObjectMissing when there is no such
    submission, ObjectDamaged, DependencyError."""
    stored = read_stored(store, submission_id)
    told = told_again(store, submission_id, stored)
    if told is not None:
        return told
    proof, basis = proved(store, submission_id)
    if stored is not None and not proof.complete:
        # What it was not made from may be gone one day, too: it would be believed then.
        with suppress(PreconditionFailed):
            store.delete(stored_proof_object(submission_id), if_generation=stored.generation)
    return ToldProof(proof, store_proof(store, proof, basis).stored_at if proof.complete else 0.0)


def told_again(store: ObjectStore, submission_id: str, stored: StoredProof | None) -> ToldProof | None:
    """None without a stored proof, and once the bucket holds something that it was not made from, or a manifest is gone: then it must be
    proved again. Only lists. Raises DependencyError."""
    if stored is None:
        return None
    known, now = stored.basis, basis_now(store, submission_id, stored.basis)
    if now == known:
        return ToldProof(stored.proof, stored.stored_at)
    gone = replace(known, outcome_count=now.outcome_count, newest_outcome=now.newest_outcome)
    if now == gone and now.outcome_count < known.outcome_count and now.newest_outcome <= known.newest_outcome:
        return ToldProof(stored.proof, stored.stored_at, as_stored=True)
    return None


def read_stored(store: ObjectStore, submission_id: str) -> StoredProof | None:
    """None where there is none, or one that this version cannot read. Raises DependencyError."""
    try:
        data, info = store.read_with_info(stored_proof_object(submission_id))
    except ObjectMissing:
        return None
    try:
        body = json.loads(data)
        proof, basis = _from_object(body["proof"]), body["basis"]
        found = Basis(**{**basis, "shards": tuple(basis["shards"])})
        more = {name: value for name, value in body.items() if name not in ("format", "proof", "basis")}
        return StoredProof(proof, found, info.updated_s, more, info.generation) if body["format"] == FORMAT else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None  # it is proved again, and replaced


def store_proof(store: ObjectStore, proof: Proof, basis: Basis, **more: Any) -> StoredProof:
    """Keep a complete proof; `more` stands beside it, and so does what stood there before under other names. Raises DependencyError."""
    name = stored_proof_object(proof.submission_id)
    for _ in range(MAX_ROUNDS):
        known = read_stored(store, proof.submission_id)
        beside = {**(known.more if known else {}), **more}
        body = {**beside, "format": FORMAT, "basis": asdict(basis), "proof": as_object(proof)}
        data = json.dumps(body, indent=1, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"
        generation = known.generation if known else _generation(store, name)
        try:
            info = store.write(name, data, content_type="application/json", if_generation=generation)
        except PreconditionFailed:
            continue
        return StoredProof(proof, basis, info.updated_s, beside, info.generation)
    raise DependencyUnavailable(f"object {name} changed {MAX_ROUNDS} times while it was written; ask again")


def _generation(store: ObjectStore, name: str) -> int:
    """Of an object that is no proof, which is replaced; 0 without any."""
    info = store.info(name)
    return info.generation if info is not None else 0


def as_object(proof: Proof, most: int | None = None) -> dict[str, object]:
    """The proof as JSON values; `most` missing tasks are named."""
    return {
        "submission_id": proof.submission_id,
        "complete": proof.complete,
        "closed": proof.closed,
        "submitted_count": proof.submitted_count,
        **{f"{name}_count": count for name, count in proof.counts.items()},
        "missing_count": len(proof.missing),
        "missing": list(proof.missing[:most]),
        "delayed_until": dict(islice(proof.delayed.items(), most)),
        "damaged": dict(islice(proof.damaged.items(), most)),
        "replayed": dict(islice(proof.replayed.items(), most)),
        "dead": [_group(group) for group in proof.dead],
        "repeated_line_count": proof.repeated_line_count,
        "second_output_count": proof.second_output_count,
        "second_outputs": list(proof.second_outputs),
        "repeated_task_count": proof.repeated_task_count,
        "unknown_count": proof.unknown_count,
        "problems": list(proof.problems),
        "workers": [{"execution": execution, "index": index, "count": count} for (execution, index), count in proof.workers.items()],
        "submitted_at": proof.submitted_at,
        "first_finished_at": proof.first_finished_at,
        "last_finished_at": proof.last_finished_at,
        "handler_s": round(proof.handler_s, 3),
        "tasks_per_s": round(proof.tasks_per_s, 3),
    }


def _group(group: DeadGroup) -> dict[str, object]:
    one = group.example
    return {
        "fingerprint": group.fingerprint,
        "task_type": group.task_type,
        "count": group.count,
        "title": group.title,
        "error_type": one.error_type,
        "reason": one.reason,
        "execution": one.execution,
        "index": one.index,
        "task_ids": list(group.task_ids),
    }


def _from_object(body: Mapping[str, Any]) -> Proof:
    """A complete one: what only others have is not read. Raises ValueError, KeyError or TypeError for what is none."""
    proof = Proof(
        submission_id=str(body["submission_id"]),
        closed=body["closed"] is True,
        submitted_count=int(body["submitted_count"]),
        counts={name: int(body[f"{name}_count"]) for name in PRECEDENCE},
        repeated_line_count=int(body["repeated_line_count"]),
        repeated_task_count=int(body["repeated_task_count"]),
        unknown_count=int(body["unknown_count"]),
        workers={(one["execution"], one["index"]): one["count"] for one in body["workers"]},
        dead=tuple(_from_group(group) for group in body["dead"]),
        submitted_at=body["submitted_at"],
        first_finished_at=body["first_finished_at"],
        last_finished_at=body["last_finished_at"],
        handler_s=float(body["handler_s"]),
        second_output_count=int(body["second_output_count"]),
        second_outputs=tuple(body["second_outputs"]),
    )
    if not proof.complete or body["complete"] is not True or sum(proof.counts.values()) != proof.submitted_count:
        raise ValueError("it is not complete")
    return proof


def _from_group(body: Mapping[str, Any]) -> DeadGroup:
    told = {name: body[name] for name in ("error_type", "reason", "execution", "index", "fingerprint")}
    example = Outcome(body["task_ids"][0], body["task_type"], "dead", "", **told)
    return DeadGroup(body["fingerprint"], body["task_type"], int(body["count"]), example, tuple(body["task_ids"]))
