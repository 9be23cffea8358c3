"""The stored proof holds while nothing newer is there, and is never told for what it was not made from."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from batch.client.proof import prove, proved
from batch.client.stored_proof import as_object, proof_of, read_stored, store_proof
from batch.client.submission import Submission
from batch.client.submit import NewTask
from batch.model.names import manifest_object, outcome_folder, outcome_object, stored_proof_object, submission_object
from batch.model.outcomes import Outcome, counted, to_line
from batch.testing import MemoryBroker, MemoryObjectStore
from tests.batch.submitted import Submitted


def ended(count: int = 150, *, dead: int = 0) -> Submitted:
    one = Submitted(count)
    kinds = ["dead"] * dead + ["succeeded"] * (count - dead)
    for at in range(0, count, 50):
        one.write(one.outcome(task_id, kind) for task_id, kind in zip(one.ids[at : at + 50], kinds[at : at + 50], strict=True))
    return one


def reads(store: MemoryObjectStore, action: Callable[[], object]) -> list[str]:
    """The outcome objects that were read during this."""
    found: list[str] = []
    read = store.read

    def noted(name: str) -> bytes:
        found.append(name)
        return read(name)

    store.read = noted  # type: ignore[method-assign]
    action()
    store.read = read  # type: ignore[method-assign]
    return [name for name in found if name.startswith("outcomes/")]


def test_a_complete_proof_is_stored_and_told_again_without_reading_outcomes() -> None:
    one = ended(dead=3)
    first = proof_of(one.store, one.submission_id)
    assert (first.proof.complete, first.stored_at, first.as_stored) == (True, one.clock.now(), False)
    one.clock.advance(60)
    assert reads(one.store, lambda: proof_of(one.store, one.submission_id)) == []
    again = proof_of(one.store, one.submission_id)
    assert again.as_object() == first.as_object()
    assert [(group.count, group.example.reason) for group in again.proof.dead] == [(3, "because")]


def test_an_incomplete_proof_is_not_stored() -> None:
    one = Submitted(150)
    one.write(one.outcome(task_id) for task_id in one.ids[1:])
    told = proof_of(one.store, one.submission_id)
    assert (told.proof.missing, told.stored_at) == ((one.ids[0],), 0.0)
    assert read_stored(one.store, one.submission_id) is None


@pytest.mark.parametrize("count", [5, 150])
def test_a_newer_outcome_is_proved_again(count: int) -> None:
    """Its own shard, and one that it shares."""
    one = ended(count) if count > 50 else Submitted(count)
    if count < 50:
        one.write(map(one.outcome, one.ids))
    assert proof_of(one.store, one.submission_id).proof.complete
    one.write([replace(one.outcome(one.ids[0], "replayed"), replay_number=1)])
    told = proof_of(one.store, one.submission_id)
    assert (told.proof.complete, told.proof.missing, told.proof.replayed) == (False, (one.ids[0],), {one.ids[0]: 1})
    one.write([replace(one.outcome(one.ids[0]), replay_number=1)])
    assert proof_of(one.store, one.submission_id).proof.complete


def test_in_a_shared_shard_outcomes_of_other_submissions_leave_it_as_it_is() -> None:
    one = Submitted(5)
    one.write(map(one.outcome, one.ids))
    assert proof_of(one.store, one.submission_id).proof.complete
    metadata = counted(one.shard, [("succeeded", "s-of-somebody-else")])
    one.store.write(outcome_object(one.shard, one.clock.now(), "other-0-0", 1), b"", metadata=metadata)
    assert reads(one.store, lambda: proof_of(one.store, one.submission_id)) == []
    one.store.write(outcome_object(one.shard, one.clock.now(), "other-0-0", 2), b"")
    assert reads(one.store, lambda: proof_of(one.store, one.submission_id)), "an object that does not tell whose lines it has"


def test_a_task_that_was_another_submissions_before_is_looked_for_in_all_of_its_shard() -> None:
    """The line of a task under a key counts for the submission of the message that came first."""
    first = Submitted(0)
    submissions = [
        Submission(lane="default", topic=MemoryBroker(first.clock).topic("t"), store=first.store, clock=first.clock, rng=random.Random(n))
        for n in range(2)
    ]
    for submission in submissions:
        submission.add([NewTask("work", {}, "one-key")])
        submission.close()
    ids = [submission.submission_id for submission in submissions]
    task_id = json.loads(first.store.read(manifest_object(ids[0], 0)))["task_id"]
    shard = json.loads(first.store.read(submission_object(ids[1])))["shards"][0]

    def write(outcome: str, number: int) -> None:
        line = to_line(Outcome(task_id, "work", outcome, "2026-01-01T00:00:00.000000Z", replay_number=number))
        metadata = counted(shard, [(outcome, ids[0])])
        first.store.write(outcome_object(shard, first.clock.now(), "run-0-0", number + 10 * (outcome == "dead")), line, metadata=metadata)

    write("dead", 0)
    assert proof_of(first.store, ids[1]).proof.complete
    write("replayed", 1)
    assert proof_of(first.store, ids[1]).proof.missing == (task_id,)


def test_once_outcomes_have_expired_it_is_told_as_stored() -> None:
    one = ended()
    before = proof_of(one.store, one.submission_id)
    names = one.store.names(outcome_folder(one.shard))
    one.store.delete(names[0])
    told = proof_of(one.store, one.submission_id)
    assert (told.as_stored, told.stored_at, told.proof) == (True, before.stored_at, before.proof)
    for name in names[1:]:
        one.store.delete(name)
    assert proof_of(one.store, one.submission_id).as_stored
    one.write([replace(one.outcome(one.ids[0], "replayed"), replay_number=1)])
    told = proof_of(one.store, one.submission_id)
    assert (told.as_stored, told.proof.complete, len(told.proof.missing)) == (False, False, 150)


def test_without_a_stored_proof_an_outcome_object_that_is_gone_means_missing_tasks() -> None:
    one = ended()
    one.store.delete(one.store.names(outcome_folder(one.shard))[0])
    assert len(proof_of(one.store, one.submission_id).proof.missing) == 50


@pytest.mark.parametrize("what", ["deleted", "changed", "added", "line"])
def test_manifests_that_are_not_those_of_the_proof_make_it_doubtful(what: str) -> None:
    one = ended()
    assert proof_of(one.store, one.submission_id).proof.complete
    name = manifest_object(one.submission_id, 1)
    if what == "deleted":
        one.store.delete(name)
    elif what == "changed":
        one.store.write(name, one.store.read(name).split(b"\n", 1)[1])
    elif what == "line":
        one.store.write(name, one.store.read(name) + b'["no task"]\n')
    else:
        one.store.write(f"submissions/{one.submission_id}/manifest-0123456789abcdef-0.jsonl", one.store.read(name))
    told = proof_of(one.store, one.submission_id)
    assert (told.proof.complete, bool(told.proof.problems), told.as_stored) == (False, True, False)


def test_manifests_of_added_parts_are_proved_too() -> None:
    """Their names hold a random part before the number."""
    one = ended()
    more = [f"{number:016x}-{one.submission_id}" for number in range(2)]
    lines = "".join(json.dumps({"task_id": task_id, "task_type": "work", "shard": one.submission_id}) + "\n" for task_id in more)
    one.store.write(f"submissions/{one.submission_id}/manifest-0123456789abcdef-0.jsonl", lines.encode())
    summary = json.loads(one.store.read(submission_object(one.submission_id)))
    changed = {**summary, "part_count": summary["part_count"] + 1, "task_count": summary["task_count"] + 2}
    one.store.write(submission_object(one.submission_id), json.dumps(changed).encode())
    assert prove(one.store, one.submission_id).missing == tuple(more)
    one.write(map(one.outcome, more))
    assert prove(one.store, one.submission_id).complete


def test_what_stands_beside_the_proof_is_kept() -> None:
    one = ended()
    proof, basis = proved(one.store, one.submission_id)
    store_proof(one.store, proof, basis, round=2)
    store_proof(one.store, proof, basis, fired="on_complete")
    stored = read_stored(one.store, one.submission_id)
    assert stored is not None
    assert (stored.more, as_object(stored.proof)) == ({"round": 2, "fired": "on_complete"}, as_object(proof))


@pytest.mark.parametrize("body", [b"", b"[]", b'{"format": 2}', b'{"format": 1, "proof": {}, "basis": {}}'])
def test_what_is_no_stored_proof_is_replaced(body: bytes) -> None:
    one = ended()
    one.store.write(stored_proof_object(one.submission_id), body)
    assert proof_of(one.store, one.submission_id).proof.complete
    assert read_stored(one.store, one.submission_id) is not None


def test_one_that_was_changed_by_hand_to_be_complete_is_not_believed() -> None:
    one = ended()
    proof_of(one.store, one.submission_id)
    name = stored_proof_object(one.submission_id)
    body = json.loads(one.store.read(name))
    body["proof"]["succeeded_count"] -= 1
    one.store.write(name, json.dumps(body).encode())
    assert proof_of(one.store, one.submission_id).proof.counts["succeeded"] == 150


def test_a_line_that_is_repeated_is_told_apart_from_an_output_that_is_written_twice() -> None:
    one = Submitted(150)
    first = [replace(one.outcome(task_id), output=f"processed/{task_id}") for task_id in one.ids]
    one.write(first)
    one.write(first[:10])
    one.write(replace(line, output=f"{line.output}-again") for line in first[:2])
    one.write(replace(line, output="processed/of-a-replay", replay_number=1) for line in first[:1])
    proof = prove(one.store, one.submission_id)
    assert (proof.complete, proof.repeated_line_count, proof.second_output_count) == (True, 12, 2)
    assert proof.second_outputs == tuple(one.ids[:2])


def test_once_a_newer_proof_was_not_complete_the_stored_one_is_never_told_again() -> None:
    """A task was replayed, and never ended; then all outcomes have expired."""
    one = ended(dead=1)
    assert proof_of(one.store, one.submission_id).proof.complete
    one.write([replace(one.outcome(one.ids[0], "replayed"), replay_number=1)])
    assert not proof_of(one.store, one.submission_id).proof.complete
    for name in one.store.names(outcome_folder(one.shard)):
        one.store.delete(name)
    told = proof_of(one.store, one.submission_id)
    assert (told.proof.complete, told.as_stored) == (False, False)


@pytest.mark.parametrize("what", ["fewer", "more", "deleted"])
def test_a_summary_that_is_not_that_of_the_proof_makes_it_doubtful(what: str) -> None:
    one = ended()
    assert proof_of(one.store, one.submission_id).proof.complete
    name = submission_object(one.submission_id)
    if what == "deleted":
        one.store.delete(name)
    else:
        body = json.loads(one.store.read(name))
        one.store.write(name, json.dumps({**body, "task_count": body["task_count"] + (1 if what == "more" else -1)}).encode())
    assert not proof_of(one.store, one.submission_id).proof.complete
