"""The proof in memory: every task is counted once, whatever the workers wrote, and a damaged record is never a complete one."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.client import proof as proof_module
from batch.client.proof import Proof, prove
from batch.client.stored_proof import as_object
from batch.client.submission import Submission
from batch.client.submit import NewTask
from batch.model.clock import iso
from batch.model.errors import ObjectMissing
from batch.model.message import ROLLING_BELOW
from batch.model.names import damaged_object, delayed_object, manifest_object, outcome_object, submission_object, writer_of
from batch.model.outcomes import PRECEDENCE, to_line
from batch.testing import ManualClock, MemoryBroker, MemoryObjectStore
from fanout.submission.proof import as_text
from tests.batch.submitted import Submitted


def accounted(proof: Proof) -> bool:
    return proof.submitted_count == sum(proof.counts.values()) + len(proof.missing)


@pytest.mark.parametrize("count", [3, ROLLING_BELOW, 250])
def test_complete_when_every_task_has_an_outcome(count: int) -> None:
    one = Submitted(count)
    one.write(one.outcome(task_id, index=number % 2) for number, task_id in enumerate(one.ids))
    proof = one.prove()
    assert proof.complete
    assert accounted(proof)
    assert proof.counts == {"succeeded": count, "superseded": 0, "cancelled": 0, "dead": 0}
    assert proof.workers == {("run", 0): (count + 1) // 2, ("run", 1): count // 2}
    assert proof.finishing_s == pytest.approx(0.5 * (count - 1))
    assert proof.tasks_per_s == pytest.approx(count / proof.finishing_s)
    assert proof.handler_s == pytest.approx(0.25 * count)


def test_missing_tasks_are_named() -> None:
    one = Submitted(200)
    one.write(one.outcome(task_id) for task_id in one.ids[5:])
    proof = one.prove()
    assert set(proof.missing) == set(one.ids[:5])
    assert not proof.complete
    assert accounted(proof)


def test_an_unclosed_submission_is_never_complete() -> None:
    one = Submitted(200, close=False)
    one.write(one.outcome(task_id) for task_id in one.ids)
    proof = one.prove()
    assert not proof.closed
    assert not proof.complete
    assert len(proof.missing) == proof.submitted_count - len(one.ids) == 0


def test_two_outcomes_of_a_task_count_once_by_precedence() -> None:
    one = Submitted(150)
    one.write(one.outcome(task_id, "dead") for task_id in one.ids)
    one.write(one.outcome(task_id) for task_id in one.ids[:100])
    proof = one.prove()
    assert (proof.counts["succeeded"], proof.counts["dead"]) == (100, 50)
    assert proof.repeated_line_count == 100
    (group,) = proof.dead
    assert set(group.task_ids) == set(one.ids[100:])
    assert (group.count, group.example.reason) == (50, "because")


def test_where_each_death_has_an_error_of_its_own_few_examples_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof_module, "GROUPS_KEPT", 3)
    one = Submitted(150)
    one.write(replace(one.outcome(task_id, "dead"), fingerprint=f"f-{task_id}") for task_id in one.ids)
    first, *named = one.prove().dead
    assert (first.count, first.fingerprint, [group.count for group in named]) == (147, "", [1, 1, 1])
    assert "147 × one of many other errors, such as because (work)" in as_text(one.prove())


def test_outcomes_of_other_tasks_do_not_count() -> None:
    small, large = Submitted(5), Submitted(150)
    for one in (small, large):
        one.write([*(one.outcome(task_id) for task_id in one.ids), one.outcome("somebody-elses")])
        assert one.prove().complete
    assert small.prove().unknown_count == 0, "a rolling shard is shared"
    assert large.prove().unknown_count == 1, "a submission's own shard is not"


def test_the_same_task_twice_in_a_submission_is_one_task() -> None:
    clock, store = ManualClock(), MemoryObjectStore()
    topic = MemoryBroker(clock).topic("default")
    submission = Submission(lane="default", topic=topic, store=store, clock=clock, rng=random.Random(1))
    submission.add(NewTask("work", {}, "one key") for _ in range(3))
    submission.close()
    proof = prove(store, submission.submission_id)
    assert (proof.submitted_count, proof.repeated_task_count, len(proof.missing)) == (1, 2, 1)


def test_a_lost_manifest_is_a_problem_not_fewer_tasks() -> None:
    one = Submitted(300)
    one.write(one.outcome(task_id) for task_id in one.ids)
    one.store.delete(manifest_object(one.submission_id, 1))
    proof = one.prove()
    assert not proof.complete
    assert "2 manifests were found where 3 were written" in proof.problems[0]


def test_a_damaged_outcome_is_a_problem_and_hides_no_other() -> None:
    one = Submitted(150)
    odd = {**json.loads(to_line(one.outcome(one.ids[0], "dead"))), "fingerprint": ["f"], "replay_number": "1", "duration_s": None}
    late = {**json.loads(to_line(one.outcome(one.ids[0]))), "finished_at": "yesterday"}
    one.store.write(outcome_object(one.shard, 0.0, "x-0-0", 1), f"{json.dumps(odd)}\n{json.dumps(late)}\n".encode())
    one.write(one.outcome(task_id) for task_id in one.ids[1:])
    proof = one.prove()
    assert (proof.counts["succeeded"], proof.complete, proof.finishing_s) == (150, False, 0.0)
    assert "is no outcome" in proof.problems[0]
    assert "its records are damaged" in as_text(proof)


def test_a_changed_manifest_is_a_problem() -> None:
    one = Submitted(300)
    name = manifest_object(one.submission_id, 1)
    lines = one.store.read(name).splitlines(keepends=True)
    one.store.write(name, b"".join(lines[:-1]) + b"not a line\n")
    problems = " ".join(one.prove().problems)
    assert "299 tasks where 300" in problems
    assert "not a line" in problems


def test_a_line_that_is_no_outcome_is_a_problem() -> None:
    one = Submitted(120)
    one.write(one.outcome(task_id) for task_id in one.ids)
    one.store.write(outcome_object(one.shard, 0.0, writer_of("run", 1, 0), 1), b'{"task_id": "x"}\n\xff\n[]\n\n')
    proof = one.prove()
    assert len(proof.problems) == 3
    assert accounted(proof)


def test_an_empty_submission_is_complete_and_an_unknown_one_an_error() -> None:
    one = Submitted(0)
    assert one.prove().complete
    with pytest.raises(ObjectMissing, match="s-unknown"):
        prove(one.store, "s-unknown")


def test_the_shards_of_the_summary_are_read_too() -> None:
    one = Submitted(120)
    name = submission_object(one.submission_id)
    body = json.loads(one.store.read(name))
    one.store.write(name, json.dumps({**body, "shards": [*body["shards"], "another"]}).encode())
    one.write((one.outcome(task_id) for task_id in one.ids), shard="another")
    assert one.prove().complete


@given(st.lists(st.tuples(st.integers(0, 11), st.sampled_from(PRECEDENCE)), max_size=40), st.randoms(use_true_random=False))
def test_counts_always_sum_and_do_not_depend_on_the_order(found: list[tuple[int, str]], rng: random.Random) -> None:
    one, other = Submitted(12), Submitted(12)
    outcomes = [one.outcome(one.ids[number], outcome) for number, outcome in found]
    shuffled = list(outcomes)
    rng.shuffle(shuffled)
    one.write(outcomes[:5])
    one.write(outcomes[5:])
    other.write(shuffled)
    proof = one.prove()
    assert accounted(proof)
    assert (proof.counts, proof.missing) == (other.prove().counts, other.prove().missing)
    best = {number: min(PRECEDENCE.index(name) for at, name in found if at == number) for number, _ in found}
    assert proof.counts == {name: list(best.values()).count(rank) for rank, name in enumerate(PRECEDENCE)}


def test_missing_tasks_that_wait_in_the_bucket_are_told_apart() -> None:
    one = Submitted(4)
    one.write([one.outcome(one.ids[0])])
    until = one.clock.now() + 3600
    for number, task_id in enumerate(one.ids[:3]):  # the first has its outcome: its object is a leftover
        one.store.write(delayed_object("default", until + number, task_id, "m"), b"")
    one.store.write(delayed_object("default", until + 9, one.ids[1], "twin"), b"")
    one.store.write(delayed_object("damaged", until, "of-another-submission", "m"), b"")
    name = damaged_object(delayed_object("default", until, one.ids[3], "m"))
    one.store.write(name, b"")
    proof = one.prove()
    assert set(proof.missing) == set(one.ids[1:])
    assert proof.delayed == {one.ids[1]: iso(ceil(until + 9)), one.ids[2]: iso(ceil(until + 2))}
    assert proof.damaged == {one.ids[3]: name}
    assert not proof.complete
    text = as_text(proof)
    assert f"3 tasks have no outcome yet, 2 of them are delayed until {iso(ceil(until + 2))} to {iso(ceil(until + 9))}" in text
    assert f"missing {one.ids[3]}: its delayed message is damaged, see {name}" in text
    assert f"missing {one.ids[1]}: delayed until {iso(ceil(until + 9))}" in text
    assert as_object(proof)["delayed_until"] == dict(proof.delayed)


@pytest.mark.parametrize(
    ("workers", "line"),
    [
        ({("e1", 0): 9}, "by 1 worker"),
        ({("e1", 0): 5, ("e1", 1): 5}, "by 2 workers in 1 execution, 5 tasks each"),
        ({("e1", 0): 5, ("e2", 0): 1200}, "by 2 workers in 2 executions, 5 to 1,200 tasks each"),
    ],
)
def test_the_text_says_who_did_it(workers: dict[tuple[str, int], int], line: str) -> None:
    proof = Proof("s-1", closed=True, submitted_count=9, counts={}, workers=workers, first_finished_at=iso(1), last_finished_at=iso(2))
    assert line in as_text(proof).splitlines()


def test_delayed_tasks_are_looked_for_only_where_some_are_missing() -> None:
    one = Submitted(3)
    one.write(one.outcome(task_id) for task_id in one.ids)
    listed: list[str] = []
    real = one.store.list
    one.store.list = lambda prefix, start="": (listed.append(prefix), real(prefix, start))[1]  # type: ignore[method-assign, func-returns-value]
    assert one.prove().complete
    assert "delayed/" not in listed
