"""How far a submission is: counts by metadata, which never say more than was submitted, and never that it is complete."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from batch.client.counting import Requests
from batch.client.proof import proved
from batch.client.reading.progress import Known, SubmissionProgress, SubmissionState, progress
from batch.client.stored_proof import proof_of
from batch.dead.lanes import LaneFacts, read_lanes, write_lanes
from batch.dead.rules import NO_RULES
from batch.ends.marks import Mark, after_finish, write
from batch.ends.options import NO_ENDS
from batch.model.attempts import AttemptError, Attempts, to_json
from batch.model.errors import ObjectMissing
from batch.model.message import ROLLING_BELOW
from batch.model.names import attempts_object, delayed_object, mark_object, outcome_folder, progress_object, submission_object
from batch.model.progress import Progress, RunningTask, to_metadata
from batch.prices import GIB_SECOND_USD, MESSAGE_BYTE_USD, VCPU_SECOND_USD, WRITE_USD
from tests.batch.submitted import Submitted

LANES = {"default": LaneFacts("default", "default-sub", "default", NO_RULES, 2.0, 4.0)}


def look(one: Submitted, known: Known | None = None) -> SubmissionProgress:
    return progress(one.store, one.submission_id, LANES, one.clock.now(), known)


@pytest.mark.parametrize("count", [ROLLING_BELOW - 1, 150])
def test_from_running_over_finishing_to_complete(count: int) -> None:
    """In a shared shard and in its own."""
    one = Submitted(count)
    assert (look(one).state, look(one).pending_count, look(one).task_count) == (SubmissionState.RUNNING, count, count)
    one.write(one.outcome(task_id) for task_id in one.ids[1:])
    assert (look(one).state, look(one).counts["succeeded"], look(one).pending_count) == (SubmissionState.RUNNING, count - 1, 1)
    one.write([one.outcome(one.ids[0])])
    told = look(one)
    assert (told.state, told.is_approximate, told.pending_count) == (SubmissionState.FINISHING, True, 0)
    proof_of(one.store, one.submission_id)
    told = look(one)
    assert (told.state, told.is_approximate, told.proved_at) == (SubmissionState.COMPLETE, False, one.clock.now())


def test_repeated_lines_never_make_more_than_was_submitted_nor_an_end() -> None:
    one = Submitted(150)
    one.write(one.outcome(task_id) for task_id in one.ids[:100])
    one.write(one.outcome(task_id) for task_id in one.ids[:100])
    told = look(one)
    assert (told.state, told.counts["succeeded"], told.pending_count) == (SubmissionState.FINISHING, 150, 0)
    assert not proof_of(one.store, one.submission_id).proof.complete
    assert look(one).state is SubmissionState.FINISHING


def test_the_dead_make_it_fail_unless_they_are_tolerated() -> None:
    one = Submitted(150)
    one.write(one.outcome(task_id, "dead") for task_id in one.ids[:2])
    one.write(one.outcome(task_id) for task_id in one.ids[2:])
    proof_of(one.store, one.submission_id)
    assert look(one).state is SubmissionState.FAILED
    name = submission_object(one.submission_id)
    summary = json.loads(one.store.read(name))
    one.store.write(name, json.dumps({**summary, "ends": {"on_complete": {"task_type": "x"}, "tolerate": {"count": 2}}}).encode())
    told = look(one)
    assert (told.state, told.end) == (SubmissionState.COMPLETE, "fired")
    one.store.write(mark_object("default", one.submission_id), b"{}")
    assert (look(one).end, look(one).end_error) == ("waiting", "")


def test_a_finish_that_failed_is_told_while_the_end_waits() -> None:
    one = Submitted(150)
    name = submission_object(one.submission_id)
    summary = json.loads(one.store.read(name))
    one.store.write(name, json.dumps({**summary, "ends": {"on_complete": {"task_type": "x"}}}).encode())
    mark = after_finish(Mark(one.submission_id, "default"), 150, one.clock.now(), "finish-1")
    write(one.store, mark, NO_ENDS)
    assert (look(one).end, look(one).end_error) == ("waiting", "")
    attempts = Attempts().after(AttemptError("2026-01-01T00:00:00Z", "Permanent", "there is no lane 'x'", "e", 0), 0.0)
    one.store.write(attempts_object("finish-1"), to_json(attempts, "finish-1"))
    assert look(one).end_error == "task finish-1 failed 1 times, last with Permanent: there is no lane 'x'"
    assert look(one).as_object()["end_error"] == look(one).end_error


def test_a_replay_makes_it_run_again_whatever_is_stored() -> None:
    one = Submitted(150)
    one.write(one.outcome(task_id, "dead") for task_id in one.ids)
    proof_of(one.store, one.submission_id)
    one.write([replace(one.outcome(one.ids[0], "replayed"), replay_number=1)])
    told = look(one)
    assert (told.state, told.counts["dead"], told.pending_count, told.is_approximate) == (SubmissionState.RUNNING, 149, 1, True)


def test_an_open_submission_tells_what_was_accepted_so_far() -> None:
    one = Submitted(250, close=False)  # the last part is published when it is closed
    one.write(map(one.outcome, one.ids))
    told = look(one)
    assert (told.state, told.task_count, told.accepted_count) == (SubmissionState.OPEN, None, 200)
    assert (told.counts["succeeded"], told.expected_end_at) == (200, 0.0)
    one.store.write(
        f"submissions/{one.submission_id}/manifest-0123456789abcdef-000000.jsonl",
        b"not read",
        metadata={"tasks": "7", "shards": one.submission_id},
    )
    one.store.write(f"submissions/{one.submission_id}/opened.json", b'{"lane": "default", "submitted_at": "2026-01-01T00:00:00Z"}')
    assert (look(one).accepted_count, look(one).lane) == (207, "default")


def test_nothing_of_it_is_no_submission() -> None:
    with pytest.raises(ObjectMissing):
        progress(Submitted(0, close=False).store, "s-none", LANES, 0.0)


def test_rate_and_expected_end_come_from_the_last_minutes() -> None:
    one = Submitted(1000)
    one.write(one.outcome(task_id) for task_id in one.ids[:100])
    one.clock.advance(10_000)
    at = one.clock.now()
    one.write([replace(one.outcome(task_id)) for task_id in one.ids[100:400]])
    told = look(one)
    assert 300 / 361 < told.tasks_per_s <= 300 / 300, "the first hundred ended long before"
    assert told.expected_end_at == pytest.approx(one.clock.now() + 600 / told.tasks_per_s)
    assert at < one.clock.now()


def test_a_poller_reads_on_from_the_last_settled_minute() -> None:
    one, known = Submitted(20_000), Known()
    for at in range(0, 15_000, 5):
        one.write(map(one.outcome, one.ids[at : at + 5]))
        one.clock.advance(0.1)
    one.clock.advance(600)
    first = Requests(one.store)
    progress(first.store, one.submission_id, LANES, one.clock.now(), known)
    one.write(map(one.outcome, one.ids[15_000:15_005]))
    again = Requests(one.store)
    told = progress(again.store, one.submission_id, LANES, one.clock.now(), known)
    assert (told.counts["succeeded"], told.pending_count) == (15_005, 4995)
    assert again.count <= first.count - 2, "3,000 objects are three pages"


def test_delayed_tasks_are_counted_by_the_names_of_their_objects() -> None:
    one, small = Submitted(150), Submitted(3)
    for number, task_id in enumerate([*one.ids[:4], f"{0:016x}-s-other"]):
        one.store.write(delayed_object("default-sub", 2e9, task_id, str(number)), b"")
    small.store.write(delayed_object("default-sub", 2e9, small.ids[0], "1"), b"")
    assert (look(one).delayed_count, look(small).delayed_count) == (4, 1)
    assert progress(one.store, one.submission_id, {}, one.clock.now()).delayed_count is None, "the subscription is not known"


def worker(one: Submitted, index: int, seconds: float, succeeded: int, exit_reason: str = "drained") -> None:
    at = one.clock.now()
    told = Progress(100, at, at + seconds, succeeded, succeeded, succeeded=succeeded, exit_reason=exit_reason)
    one.store.write(progress_object("run", index, 0), b"", metadata=to_metadata(told))


def test_cost_is_the_time_of_its_workers_by_its_share_and_what_was_sent_and_written() -> None:
    one = Submitted(150)
    one.write(map(one.outcome, one.ids))
    worker(one, 0, 100.0, 200)
    worker(one, 1, 5.0, 100)
    cost = look(one).cost
    worker_s = (100.0 + 60.0) / 2
    assert (cost.worker_s, cost.vcpu_s, cost.gib_s) == (worker_s, 2 * worker_s, 4 * worker_s)
    assert (cost.message_count, cost.write_count, cost.execution_count, cost.unknown_count) == (150, 4, 1, 0)
    expected = worker_s * (2 * VCPU_SECOND_USD + 4 * GIB_SECOND_USD) + 150 * 2000 * MESSAGE_BYTE_USD + 4 * WRITE_USD
    assert cost.usd == pytest.approx(expected)
    unknown = progress(one.store, one.submission_id, {}, one.clock.now()).cost
    assert (unknown.usd, unknown.worker_s) == (None, worker_s)
    write_lanes(one.store, {"default": replace(LANES["default"], price_percent=50.0)})
    halved = progress(one.store, one.submission_id, read_lanes(one.store), one.clock.now()).cost
    assert halved.usd == pytest.approx(expected - worker_s * (VCPU_SECOND_USD + 2 * GIB_SECOND_USD))
    assert (halved.as_object()["price_percent"], cost.as_object()["price_percent"]) == (50.0, 100.0)


def test_the_workers_of_an_execution_that_has_ended_are_looked_at_once() -> None:
    one, known = Submitted(150), Known()
    one.write(map(one.outcome, one.ids))
    worker(one, 0, 100.0, 100)
    worker(one, 1, 100.0, 50, exit_reason="")
    look(one, known)
    worker(one, 1, 200.0, 50)
    assert look(one, known).cost.worker_s == 300.0, "one of them still ran"
    worker(one, 1, 900.0, 50)
    assert look(one, known).cost.worker_s == 300.0


def test_without_progress_of_its_workers_the_cost_is_a_lower_bound_that_says_so() -> None:
    one = Submitted(150)
    one.write(map(one.outcome, one.ids))
    cost = look(one).cost
    assert (cost.worker_s, cost.unknown_count) == (0.0, 1)


def test_what_is_stored_no_longer_holds_once_there_are_more_objects() -> None:
    one = Submitted(150)
    one.write(map(one.outcome, one.ids))
    proof, basis = proved(one.store, one.submission_id)
    assert basis.outcome_count == len(one.store.names(outcome_folder(one.submission_id)))
    proof_of(one.store, one.submission_id)
    one.write([one.outcome(one.ids[0])])
    assert look(one).state is SubmissionState.FINISHING
    assert proof.complete


@pytest.mark.parametrize("count", [ROLLING_BELOW - 1, 150])
def test_tasks_that_live_workers_name_are_running(count: int) -> None:
    one = Submitted(count)
    one.write(one.outcome(task_id) for task_id in one.ids[3:])
    now = one.clock.now()

    def says(index: int, told_at: float, names: list[str], exit_reason: str = "") -> None:
        running = tuple(RunningTask(name, "work", int(told_at)) for name in names)
        told = Progress(100, now - 500, told_at, 1, 1, succeeded=1, exit_reason=exit_reason, running=running)
        one.store.write(progress_object("run", index, 0), b"", metadata=to_metadata(told))

    says(0, now - 20, [one.ids[0], "another-task"])
    says(1, now - 20, [one.ids[1]], exit_reason="stopped")
    says(2, now - 600, [one.ids[2]])
    assert (look(one).pending_count, look(one).running_count) == (3, 1)
    one.write(one.outcome(task_id) for task_id in one.ids[:3])
    assert look(one).running_count == 0
