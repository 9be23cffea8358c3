"""The life of one task: every state it can be in, found by its id alone or by what a person knows of it, and never guessed."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace

import pytest

from batch.client.counting import Requests
from batch.client.keys import Keyed, settled
from batch.client.life import HOUR_S, RETENTION_S, Running, State
from batch.client.submission import Submission
from batch.client.submit import NewTask, single_message
from batch.handling.cancels import Cancel, to_json
from batch.model.attempts import Marker
from batch.model.delivery import Outgoing
from batch.model.errors import SettingsError
from batch.model.message import rolling_shard
from batch.model.names import (
    attempts_object,
    cancel_object,
    damaged_object,
    outcome_object,
    processed_object,
    result_data_object,
    result_object,
    submission_object,
)
from batch.testing import MemoryBroker, MemoryObjectStore
from tests.batch.traces import ERROR, Bucket

ODD = b'{"task_id":"%s","task_type":"work","outcome":"dead","finished_at":"","replay_number":"1"}'


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


@pytest.mark.parametrize("outcome", ["succeeded", "superseded", "cancelled", "dead"])
def test_an_ended_task_is_what_its_outcome_says(bucket: Bucket, outcome: str) -> None:
    task_id = bucket.new_id()
    bucket.flush([bucket.line(bucket.new_id(), "succeeded"), bucket.line(task_id, outcome, result={"a": 1})])
    life = bucket.life(task_id)
    assert (life.state, life.state.value) == (State(outcome), outcome)
    assert life.outcome is not None
    assert (life.outcome.result, life.outcome.index, life.where.lane) == ({"a": 1}, 3, "default")


def test_of_two_outcomes_the_precedence_decides_whichever_was_written_last(bucket: Bucket) -> None:
    early, late = bucket.new_id(), bucket.new_id()
    bucket.flush([bucket.line(early, "succeeded"), bucket.line(late, "dead")])
    bucket.clock.advance(300)
    bucket.flush([bucket.line(early, "dead"), bucket.line(late, "succeeded")])
    assert [bucket.life(one).state for one in (early, late)] == [State.SUCCEEDED, State.SUCCEEDED]
    assert [len(bucket.life(one).outcomes) for one in (early, late)] == [2, 1], (
        "the newest is read first, and what has succeeded is settled"
    )


def test_reading_ends_with_the_line_that_decides(bucket: Bucket) -> None:
    task_id = bucket.new_id()
    for _ in range(200):
        bucket.flush([bucket.line(bucket.new_id(), "succeeded")])
        bucket.clock.advance(60)
    bucket.ended(task_id, "succeeded")
    requests = Requests(bucket.store)
    bucket.store = requests.store
    assert bucket.life(task_id).state is State.SUCCEEDED
    assert requests.count < 40
    assert bucket.asked == [201]


@pytest.mark.parametrize("counted", [True, False])
def test_a_replay_counts_also_where_the_first_run_succeeded_later(bucket: Bucket, counted: bool) -> None:
    """The replay was written down, then a redelivery of the first message succeeded: the task is pending under the higher number."""
    task_id = bucket.new_id()
    bucket.ended(task_id, "dead")
    bucket.flush([bucket.line(task_id, "replayed", replay_number=1)], counted=counted)
    bucket.clock.advance(120)
    bucket.ended(task_id, "succeeded")
    life = bucket.life(task_id)
    assert (life.state, life.replay_number) == (State.PENDING_AGAIN, 1)
    bucket.ended(task_id, "succeeded", replay_number=1)
    bucket.clock.advance(120)
    bucket.ended(task_id, "succeeded")
    assert (bucket.life(task_id).state, bucket.life(task_id).replay_number) == (State.SUCCEEDED, 1)


def test_without_counts_in_their_metadata_all_objects_are_read_before_one_decides(bucket: Bucket) -> None:
    """As those of a bucket that was copied without it."""
    task_id = bucket.new_id()
    bucket.flush([bucket.line(task_id, "replayed", replay_number=1)], counted=False)
    bucket.clock.advance(120)
    bucket.flush([bucket.line(task_id, "succeeded")], counted=False)
    assert bucket.life(task_id).state is State.PENDING_AGAIN


def test_a_task_that_died_again_is_dead_under_its_replay(bucket: Bucket) -> None:
    task_id = bucket.new_id()
    bucket.ended(task_id, "dead")
    bucket.flush([bucket.line(task_id, "replayed", replay_number=1)])
    bucket.ended(task_id, "dead", replay_number=1)
    assert (bucket.life(task_id).state, bucket.life(task_id).replay_number) == (State.DEAD, 1)


def test_a_running_task_is_told_by_its_worker(bucket: Bucket) -> None:
    bucket.running = Running("default-x", 3, 0, 5.0, 20.0)
    life = bucket.life(bucket.new_id())
    assert (life.state, life.running) == (State.RUNNING, bucket.running)
    ended = bucket.new_id()
    bucket.ended(ended, "succeeded")
    assert bucket.life(ended).state is State.SUCCEEDED, "what has ended does not run"


@pytest.mark.parametrize("on_record", [True, False])
@pytest.mark.parametrize("lane", ["default", "unknown"])
def test_a_delayed_task_is_found_with_its_payload(bucket: Bucket, on_record: bool, lane: str) -> None:
    task_id, due = bucket.new_id(rolling_shard(lane, bucket.clock.now())), bucket.clock.now() + 4000.25
    for number in range(5):
        bucket.delay(bucket.new_id(), due + number)
    bucket.delay(task_id, due)
    if on_record:
        bucket.attempts(task_id, attempt_count=2, not_before=due, errors=(ERROR, ERROR))
    life = bucket.life(task_id)
    assert (life.state, life.due, life.attempts.attempt_count) == (State.DELAYED, due + 0.75, 2 if on_record else 0)
    assert life.delayed is not None
    assert life.delayed.data == b'{"n":1}'


def test_a_delayed_task_on_record_costs_one_list(bucket: Bucket) -> None:
    task_id, due = bucket.new_id(), bucket.clock.now() + 5000
    bucket.delay(task_id, due)
    bucket.attempts(task_id, attempt_count=1, not_before=due)
    listed: list[str] = []
    of_store = bucket.store.list
    bucket.store.list = lambda prefix, start="": listed.append(prefix) or of_store(prefix, start)  # type: ignore[method-assign,func-returns-value]
    assert bucket.life(task_id).state is State.DELAYED
    assert [one for one in listed if one.startswith("delayed/")] == [f"delayed/tasks-sub/{int(due)}-{task_id}"]


def test_a_damaged_delayed_task_is_a_problem_and_named(bucket: Bucket) -> None:
    task_id = bucket.new_id()
    name = bucket.delay(task_id, bucket.clock.now() + 4000)
    bucket.store.write(name, b"{")
    life = bucket.life(task_id)
    assert (life.state, life.delayed, life.problems[0].split(":")[0]) == (State.DELAYED, None, f"{name} is damaged")
    bucket.store.delete(name)
    bucket.store.write(damaged_object(name), b"{")
    life = bucket.life(task_id)
    assert life.problems == (f"its delayed message cannot be published: look at {damaged_object(name)}",)
    assert life.state is State.WAITING


def test_a_snoozed_task_is_delayed_without_a_failure(bucket: Bucket) -> None:
    task_id = bucket.new_id()
    bucket.attempts(task_id, not_before=bucket.clock.now() + 60)
    assert (bucket.life(task_id).state, bucket.life(task_id).due) == (State.DELAYED, bucket.clock.now() + 60)
    bucket.clock.advance(61)
    assert bucket.life(task_id).state is State.WAITING


def test_a_failed_task_is_retrying(bucket: Bucket) -> None:
    task_id = bucket.new_id()
    bucket.attempts(task_id, attempt_count=2, not_before=bucket.clock.now() + 30, errors=(ERROR, ERROR))
    life = bucket.life(task_id)
    assert (life.state, life.due, life.attempts.errors) == (State.RETRYING, bucket.clock.now() + 30, (ERROR, ERROR))


def test_a_replay_begins_its_attempts_anew_and_keeps_their_errors(bucket: Bucket) -> None:
    task_id = bucket.new_id()
    bucket.ended(task_id, "dead")
    bucket.attempts(task_id, attempt_count=5, not_before=bucket.clock.now(), errors=(ERROR,))
    bucket.flush([bucket.line(task_id, "replayed", replay_number=1)])
    life = bucket.life(task_id)
    assert (life.state, life.attempts.attempt_count, life.attempts.errors) == (State.PENDING_AGAIN, 0, (ERROR,))
    bucket.attempts(task_id, attempt_count=1, errors=(ERROR, ERROR), replay_number=1)
    assert bucket.life(task_id).state is State.RETRYING


def test_a_quarantined_task_that_has_not_failed_is_known(bucket: Bucket) -> None:
    task_id = bucket.new_id(rolling_shard("default", bucket.clock.now() - 2 * RETENTION_S))
    assert bucket.life(task_id).state is State.NOT_KNOWN
    bucket.attempts(task_id, in_progress=Marker("default-x", 1, 0, ERROR.at))
    assert bucket.life(task_id).state is State.WAITING


def test_a_damaged_record_of_attempts_is_a_problem(bucket: Bucket) -> None:
    task_id = bucket.new_id()
    bucket.store.write(attempts_object(task_id), b"{")
    life = bucket.life(task_id)
    assert (life.state, life.problems[0].split(":")[0]) == (State.WAITING, f"attempts/{task_id}.json is damaged")


@pytest.mark.parametrize("fingerprint", ["f00d", ""])
def test_the_letter_of_a_dead_task_is_found_in_the_log(bucket: Bucket, fingerprint: str) -> None:
    task_id = bucket.new_id()
    bucket.letters(bucket.letter(task_id, fingerprint="cafe"))
    bucket.clock.advance(86_400)
    bucket.ended(task_id, "dead", error_type="KeyError", fingerprint=fingerprint)
    other = bucket.letters(bucket.letter(bucket.new_id(), fingerprint="cafe"))
    bucket.clock.advance(7200)
    bucket.letters(bucket.letter(task_id, replay_number=1), bucket.letter(task_id), bucket.letter(bucket.new_id()))
    read: list[str] = []
    of_store = bucket.store.read
    bucket.store.read = lambda name: read.append(name) or of_store(name)  # type: ignore[method-assign,func-returns-value]
    life = bucket.life(task_id)
    assert life.letter is not None
    assert (life.letter.replay_number, life.letter.data, life.letter.fingerprint) == (0, b"\xff raw", "f00d")
    assert (other in read) == (fingerprint == ""), "metadata tells which group a segment holds"


def test_a_replayed_task_shows_the_letter_that_it_came_from(bucket: Bucket) -> None:
    task_id = bucket.new_id()
    bucket.ended(task_id, "dead", replay_number=1)
    bucket.letters(bucket.letter(task_id), bucket.letter(task_id, replay_number=1))
    bucket.flush([bucket.line(task_id, "replayed", replay_number=2)])
    life = bucket.life(task_id)
    assert life.letter is not None
    assert (life.state, life.letter.replay_number) == (State.PENDING_AGAIN, 1)


def test_outputs_are_those_of_the_task(bucket: Bucket) -> None:
    task_id = "7"
    mine = {"task_id": task_id}
    bucket.store.write(processed_object("a.csv"), b"abc", metadata={"task_id": "another"})
    bucket.store.write(result_object(task_id), b"{}", metadata=mine)
    bucket.store.write(result_data_object(task_id, 1, "csv"), b"a", metadata=mine)
    bucket.store.write(result_object("7-1"), b"{}", metadata={"task_id": "7-1"})
    bucket.store.write(result_object("71"), b"{}")
    bucket.ended(task_id, "succeeded", output="processed/a.csv")
    bucket.ended(task_id, "dead", output="results/7.json")
    life = bucket.life(task_id, shard=bucket.shard)
    assert [(one.name, one.metadata["task_id"]) for one in life.outputs] == [
        ("processed/a.csv", "another"),
        ("results/7.json", "7"),
        ("results/7-1.csv", "7"),
    ]
    bucket.store.delete("processed/a.csv")
    assert bucket.life(task_id, shard=bucket.shard).problems == ("its output processed/a.csv is not there any longer",)


def submitted(bucket: Bucket, new: Iterable[NewTask]) -> list[Outgoing]:
    topic = MemoryBroker(bucket.clock).topic("default")
    submission = Submission(lane="bulk", topic=topic, store=bucket.store, clock=bucket.clock, rng=random.Random(9), tasks_per_part=70)
    submission.add(new)
    submission.close()
    return [message for _, message in topic.published]


def test_an_id_of_a_submission_is_waiting_if_a_manifest_names_it(bucket: Bucket) -> None:
    ids = [one.attributes["task_id"] for one in submitted(bucket, (NewTask("work") for _ in range(150)))]
    assert {bucket.life(one).state for one in ids[::30]} == {State.WAITING}
    assert bucket.life("0123456789abcdef" + ids[0][16:]).state is State.NOT_KNOWN
    bucket.delay(ids[0], bucket.clock.now() + 900, "bulk-sub")
    bucket.lanes_asked.clear()
    assert bucket.life(ids[0]).state is State.DELAYED
    assert bucket.lanes_asked == ["bulk"], "the lane stands in submission.json"


def test_of_a_single_task_only_its_hour_tells_that_it_may_wait(bucket: Bucket) -> None:
    now = bucket.clock.now()
    hours = {0.0: State.WAITING, -24 * HOUR_S: State.WAITING, -RETENTION_S - HOUR_S: State.NOT_KNOWN, 3 * HOUR_S: State.NOT_KNOWN}
    assert {after: bucket.life(bucket.new_id(rolling_shard("default", now + after))).state for after in hours} == hours


def test_a_keyed_task_is_found_by_its_record(bucket: Bucket) -> None:
    message = single_message(NewTask("work", {}, "k"), lane="bulk", unix_s=bucket.clock.now(), rng=random.Random(1))
    message = settled(bucket.store, Keyed("k", message), bucket.clock.now())
    task_id, shard = message.attributes["task_id"], message.attributes["shard"]
    bucket.clock.advance(5 * HOUR_S)
    life = bucket.life(task_id)
    assert (life.state, life.where.lane, life.where.shards) == (State.WAITING, "bulk", (shard,))
    bucket.ended(task_id, "succeeded", shard)
    assert bucket.life(task_id).state is State.SUCCEEDED


def test_a_keyed_task_of_a_submission_is_found_by_its_record(bucket: Bucket) -> None:
    (task_id,) = [
        one.attributes["task_id"]
        for one in submitted(bucket, (NewTask("work", {}, "k" if number == 120 else None) for number in range(150)))
        if len(one.attributes["task_id"]) == 36
    ]
    life = bucket.life(task_id)
    assert (life.state, life.where.lane, life.where.shards[0][:2]) == (State.WAITING, "bulk", "s-")


def test_a_keyed_task_without_a_record_needs_lane_and_time(bucket: Bucket) -> None:
    message = single_message(NewTask("work", {}, "k"), lane="bulk", unix_s=bucket.clock.now(), rng=random.Random(1))
    task_id, published_at = message.attributes["task_id"], bucket.clock.now()
    bucket.clock.advance(1800)
    bucket.ended(task_id, "succeeded", message.attributes["shard"])
    with pytest.raises(SettingsError, match=r"give --lane and --at .* front door without a bucket"):
        bucket.life(task_id)
    with pytest.raises(SettingsError, match=r"give --lane and --at"):
        bucket.life(task_id, lane="bulk")
    for hours in (-1, 0, 1):
        assert bucket.life(task_id, lane="bulk", at=published_at + hours * HOUR_S).state is State.SUCCEEDED
    assert bucket.life(task_id, lane="bulk", at=published_at + 2 * HOUR_S).state is State.NOT_KNOWN
    assert bucket.life(task_id, lane="default", at=published_at).state is State.NOT_KNOWN


def test_a_damaged_record_of_a_key_asks_for_more(bucket: Bucket) -> None:
    task_id = "0aa11bb2-0000-5000-8000-000000000000"
    bucket.store.write(f"keys/0a/{task_id}", b"{")
    with pytest.raises(SettingsError, match=r"is damaged .* give --shard, or --lane and --at"):
        bucket.life(task_id)
    assert bucket.life(task_id, shard="s-1").state is State.NOT_KNOWN
    bucket.ended(task_id, "dead")
    assert bucket.life(task_id, lane="default", at=bucket.clock.now()).state is State.DEAD


@pytest.mark.parametrize("known", [{"shard": "a/b"}, {"lane": "../x", "at": 1e9}, {"shard": "\ud800"}])
def test_what_can_be_no_shard_is_refused(bucket: Bucket, known: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match="can be no outcome shard"):
        bucket.life("theirs", **known)


def test_a_foreign_id_that_looks_like_ours_is_found_with_lane_and_time(bucket: Bucket) -> None:
    task_id = "0123456789abcdef-orders"
    bucket.ended(task_id, "dead", rolling_shard("default", bucket.clock.now()))
    assert bucket.life(task_id).state is State.NOT_KNOWN
    life = bucket.life(task_id, lane="default", at=bucket.clock.now())
    assert (life.state, life.where.shards[0]) == (State.DEAD, "orders")


def test_a_shard_that_is_given_is_the_only_one_that_is_read(bucket: Bucket) -> None:
    task_id = bucket.new_id()
    bucket.ended(task_id, "succeeded", "theirs")
    assert bucket.life(task_id).state is State.WAITING
    assert bucket.life(task_id, shard="theirs").state is State.SUCCEEDED
    assert bucket.life("theirs-17", shard=bucket.shard).state is State.NOT_KNOWN


def test_a_time_narrows_the_shard(bucket: Bucket) -> None:
    first, second = bucket.new_id("s-1"), bucket.new_id("s-1")
    began_at = bucket.clock.now()
    bucket.ended(first, "succeeded", "s-1")
    bucket.clock.advance(3000)
    bucket.ended(second, "dead", "s-1")
    assert bucket.life(second, at=began_at + 2900).state is State.DEAD
    assert bucket.asked == [1]
    assert bucket.life(first, at=began_at + 200).state is State.SUCCEEDED, "the time need not be exact"


@pytest.mark.parametrize("line", [b'{"task_id":"%s","outcome":"dead"', b'{"task_id":"%s","outcome":"odd"}', b'"%s"', ODD])
def test_a_damaged_line_of_the_task_is_told(bucket: Bucket, line: bytes) -> None:
    task_id = bucket.new_id()
    bucket.store.write(outcome_object(bucket.shard, bucket.clock.now(), "x-0-0", 1), line % task_id.encode() + b"\n\xff\xfe\n")
    assert bucket.life(task_id).state is State.WAITING
    assert "holds a damaged line that names this task" in bucket.life(task_id).problems[0]
    bucket.ended(task_id, "succeeded")
    assert bucket.life(task_id).state is State.SUCCEEDED


def test_an_output_that_can_be_none_is_told(bucket: Bucket) -> None:
    task_id = bucket.new_id()
    bucket.ended(task_id, "succeeded", output="processed/a\nb")
    life = bucket.life(task_id)
    assert (life.state, life.outputs) == (State.SUCCEEDED, ())
    assert "names an output that cannot be one" in life.problems[0]


def test_segments_of_dead_letters_are_asked_for_too(bucket: Bucket) -> None:
    task_id = bucket.new_id()
    bucket.ended(task_id, "dead", fingerprint="f00d")
    for _ in range(3):
        bucket.letters(bucket.letter("another"))
    bucket.life(task_id)
    assert bucket.asked == [1, 3]


def test_an_id_within_another_line_is_not_the_task(bucket: Bucket) -> None:
    task_id = bucket.new_id()
    bucket.ended(f"{task_id}0", "dead", reason=f"after {task_id}")
    assert (bucket.life(task_id).state, bucket.life(task_id).problems) == (State.WAITING, ())
    bucket.store.write(outcome_object(bucket.shard, bucket.clock.now(), "x-0-0", 1), b'{"damaged":"%s0"' % task_id.encode())
    assert bucket.life(task_id).problems == ()


def test_a_death_at_no_time_is_looked_for_in_the_whole_log(bucket: Bucket) -> None:
    task_id = bucket.new_id()
    bucket.letters(bucket.letter(task_id))
    bucket.clock.advance(86_400)
    bucket.flush([replace(bucket.line(task_id, "dead"), finished_at="soon")])
    assert bucket.life(task_id).letter is not None


@pytest.mark.parametrize("task_id", ["", "a/b", "-x", "a b", "x" * 129, "message-\r", "message-\ud800"])
def test_what_is_no_task_id_is_refused(bucket: Bucket, task_id: str) -> None:
    with pytest.raises(SettingsError, match="is no task id"):
        bucket.life(task_id, shard="s")


@pytest.mark.parametrize("at", [-1e12, 0.0, 1e15])
def test_a_time_at_which_nothing_was_published_is_refused(bucket: Bucket, at: float) -> None:
    with pytest.raises(SettingsError, match="--at: no task was published"):
        bucket.life(bucket.new_id(), lane="default", at=at)


def test_a_message_without_an_id_is_found_by_its_message_id(bucket: Bucket) -> None:
    bucket.ended("message-8811", "dead")
    assert bucket.life("message-8811", lane="default", at=bucket.clock.now()).state is State.DEAD


def test_requests_are_counted_by_pages() -> None:
    store = MemoryObjectStore()
    for number in range(2001):
        store.write(f"a/{number:05d}", b"")
    requests = Requests(store)
    assert len(list(requests.store.list("a/"))) == 2001
    assert requests.count == 3
    requests.store.read("a/00000")
    assert (requests.count, requests.store.bucket_name) == (4, "memory")


@pytest.mark.parametrize("by_submission", [False, True])
def test_one_that_is_cancelled_and_has_not_ended_says_so(bucket: Bucket, by_submission: bool) -> None:
    shard = "s-20260101-000000-0a1b2c3d" if by_submission else bucket.shard
    task_id = bucket.new_id(shard)
    bucket.store.write(submission_object("s-20260101-000000-0a1b2c3d"), b'{"lane": "default"}')
    bucket.delay(task_id, bucket.clock.now() + 3600)
    assert bucket.life(task_id).cancelled_by == ""
    now = bucket.clock.now()
    bucket.store.write(cancel_object("default"), to_json([Cancel(now, now + 600, "ada", "", shard if by_submission else task_id)]))
    life = bucket.life(task_id)
    assert (life.state, life.cancelled_by[:16]) == (State.DELAYED, "cancelled by ada")
    bucket.clock.advance(60)
    bucket.ended(task_id, "replayed", shard, replay_number=1)
    assert bucket.life(task_id).cancelled_by == "", "a replay after it runs"
