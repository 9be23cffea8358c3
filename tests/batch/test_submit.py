"""Submitting in memory: what is recorded, published, refused, and what is certain after a failure."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.client.parts import MAX_PART_BYTES, choose_shard, part_is_full
from batch.client.submission import Submission, SubmissionInterrupted
from batch.client.submit import NewTask, Refusal, check_by, single_message, submit_one, task_from_line
from batch.handlers.file_processing import FileProcessing
from batch.handling.registry import Registry
from batch.model.delivery import Outgoing
from batch.model.errors import DependencyUnavailable, FanoutError, MessageRefused
from batch.model.message import MAX_MESSAGE_BYTES, ROLLING_BELOW, decode, rolling_shard
from batch.model.names import manifest_object, submission_object
from batch.testing import ManualClock, MemoryBroker, MemoryObjectStore


class Fixture:
    """A client with everything in memory."""

    def __init__(self, tasks_per_part: int = 1000, seed: int = 7) -> None:
        self.clock = ManualClock()
        self.store = MemoryObjectStore(clock=self.clock)
        self.topic = MemoryBroker(self.clock).topic("default")
        self.submission = Submission(
            lane="default",
            topic=self.topic,
            store=self.store,
            clock=self.clock,
            rng=random.Random(seed),
            tasks_per_part=tasks_per_part,
        )

    @property
    def published(self) -> list[Outgoing]:
        return [message for _, message in self.topic.published]

    def manifest(self) -> list[dict[str, str]]:
        names = self.store.names(f"submissions/{self.submission.submission_id}/manifest-")
        return [json.loads(line) for name in names for line in self.store.read(name).splitlines()]

    def summary(self) -> dict[str, object]:
        body: dict[str, object] = json.loads(self.store.read(submission_object(self.submission.submission_id)))
        return body


def tasks(count: int) -> Iterator[NewTask]:
    return (NewTask("work", {"number": number}) for number in range(count))


@pytest.mark.parametrize("count", [0, 1, ROLLING_BELOW - 1, ROLLING_BELOW, 1000, 1001, 2500])
def test_every_task_is_in_a_manifest_and_published_once(count: int) -> None:
    one = Fixture()
    one.submission.add(tasks(count))
    report = one.submission.close()
    assert (report.accepted_count, report.refused_count, report.closed) == (count, 0, True)
    ids = [line["task_id"] for line in one.manifest()]
    assert len(set(ids)) == count
    assert [message.attributes["task_id"] for message in one.published] == ids
    assert sorted(json.loads(message.data)["number"] for message in one.published) == list(range(count))
    summary = one.summary()
    assert (summary["task_count"], summary["part_count"]) == (count, report.part_count)
    assert (summary["lane"], summary["topic"]) == ("default", "default")


@pytest.mark.parametrize("count", [1, ROLLING_BELOW - 1, ROLLING_BELOW, 1500])
def test_the_shard_is_the_same_in_manifest_message_and_summary(count: int) -> None:
    one = Fixture()
    one.submission.add(tasks(count))
    one.submission.close()
    own = one.submission.submission_id
    expected = own if count >= ROLLING_BELOW else rolling_shard("default", one.clock.now())
    assert one.summary()["shards"] == [expected]
    assert {line["shard"] for line in one.manifest()} == {expected}
    read = [decode(m.data, m.attributes, message_id="1", published_s=0.0, lane="other") for m in one.published]
    assert {(task.shard, task.submission_id, task.lane) for task in read} == {(expected, own, "default")}


def test_small_additions_are_counted_together() -> None:
    one = Fixture()
    for _ in range(ROLLING_BELOW):
        one.submission.add(tasks(1))
    assert one.published == []
    one.submission.close()
    assert one.summary()["shards"] == [one.submission.submission_id]


def test_a_manifest_is_durable_before_its_part_is_published() -> None:
    one = Fixture(tasks_per_part=100)
    seen: list[set[str]] = []
    publish = one.topic.publish

    def watched(messages: Sequence[Outgoing]) -> list[str]:
        known = {line["task_id"] for line in one.manifest()}
        seen.append({message.attributes["task_id"] for message in messages} - known)
        return publish(messages)

    one.topic.publish = watched  # type: ignore[method-assign]
    one.submission.add(tasks(350))
    one.submission.close()
    assert seen == [set(), set(), set(), set()]


def test_parts_are_published_while_tasks_still_come() -> None:
    one = Fixture(tasks_per_part=100)
    counts: list[int] = []

    def source() -> Iterator[NewTask]:
        for task in tasks(1000):
            counts.append(len(one.published))
            yield task

    one.submission.add(source())
    assert counts[-1] >= 800, "a million tasks must not be held in memory"


def test_refused_tasks_are_reported_by_position_and_the_others_go_on() -> None:
    one = Fixture()
    lines: list[NewTask | Refusal] = [
        NewTask("work", {"number": 1}),
        NewTask("", {}),
        NewTask("work", {"bad": float("nan")}),
        NewTask("work", {"bad": {1, 2}}),
        NewTask("work", {"task_id": "mine"}),
        NewTask("work", {"large": "x" * MAX_MESSAGE_BYTES}),
        NewTask("t" * 129, {}),
        Refusal(7, "the line is not JSON"),
        NewTask("work", {}, idempotency_key=""),
        NewTask("work", {"number": 2}),
    ]
    told: list[Refusal] = []
    one.submission._on_refusal = told.append
    one.submission.add(lines)
    report = one.submission.close()
    assert (report.accepted_count, report.refused_count) == (2, 8)
    assert [refusal.position for refusal in report.refusals] == [2, 3, 4, 5, 6, 7, 7, 8]
    assert list(report.refusals) == told
    assert [json.loads(message.data)["number"] for message in one.published] == [1, 2]


def test_a_client_does_not_change_the_envelope() -> None:
    for field in ("task_id", "submitted_at"):
        with pytest.raises(MessageRefused, match=field):
            single_message(NewTask("work", {field: "mine"}), lane="a", unix_s=0.0, rng=random.Random(1))


@pytest.mark.parametrize(
    "line", [b"", b"nonsense", b"[]", b'"text"', b"{}", b'{"task_type": 7}', b'{"task_type": "a", "idempotency_key": 3}']
)
def test_a_line_that_is_no_task_is_refused(line: bytes) -> None:
    one = Fixture()
    one.submission.add([task_from_line(line, 3)])
    (refused,) = one.submission.report.refusals
    assert refused.position == 3
    assert refused.reason


def test_the_same_key_is_the_same_task() -> None:
    first, second = Fixture(seed=1), Fixture(seed=2)
    for one in (first, second):
        one.submission.add([NewTask("work", {}, "key"), NewTask("work", {})])
        one.submission.close()
    assert first.submission.submission_id != second.submission.submission_id
    (keyed, free), (keyed_again, free_again) = ([line["task_id"] for line in one.manifest()] for one in (first, second))
    assert keyed == keyed_again
    assert free != free_again


def test_a_failed_publish_says_what_is_certain_and_goes_on_with_the_same_ids() -> None:
    one = Fixture(tasks_per_part=100)
    source = tasks(250)
    one.submission.add(NewTask("work", {"number": -1}) for _ in range(100))
    one.submission.add(NewTask("work", {"number": -2}) for _ in range(1))
    assert one.submission.report.accepted_count == 100
    one.topic.fail_next("publish", DependencyUnavailable("no answer"), after_effect=True)
    with pytest.raises(SubmissionInterrupted, match=r"100 tasks are published, 100 \(positions 101 to 200\) may be") as caught:
        one.submission.add(source)
    report = caught.value.report
    assert (report.accepted_count, report.uncertain_count, report.uncertain, report.closed) == (100, 100, (101, 200), False)
    one.submission.add(source)
    assert one.submission.close().accepted_count == 351
    ids = [message.attributes["task_id"] for message in one.published]
    assert len(ids) == 451
    assert set(ids) == {line["task_id"] for line in one.manifest()}
    assert len(set(ids)) == 351
    assert one.summary()["task_count"] == 351


def test_a_failed_manifest_publishes_nothing() -> None:
    one = Fixture(tasks_per_part=100)
    one.store.fail_next("write", DependencyUnavailable("bucket away"))
    with pytest.raises(SubmissionInterrupted, match="nothing of the rest is published"):
        one.submission.add(tasks(300))
    assert one.published == []
    assert one.submission.report.uncertain_count == 0


@pytest.mark.parametrize("count", [0, 150])
def test_a_lost_response_is_met_by_the_same_content(count: int) -> None:
    one = Fixture()
    one.submission.add(tasks(count))
    one.store.fail_next("write", DependencyUnavailable("lost"), after_effect=True)
    with pytest.raises(SubmissionInterrupted):
        one.submission.close()
    one.clock.advance(60)
    assert one.submission.close().accepted_count == count
    assert len(one.published) == one.summary()["task_count"] == count
    assert one.store.unmet() == []


def test_another_submissions_manifest_is_never_mixed_in() -> None:
    one = Fixture()
    one.store.write(manifest_object(one.submission.submission_id, 0), b"foreign")
    one.submission.add(tasks(5))
    with pytest.raises(FanoutError, match="two submissions share an id"):
        one.submission.close()
    assert one.published == []


def test_a_closed_submission_takes_nothing_more() -> None:
    one = Fixture()
    first = one.submission.close()
    assert one.submission.close() == first
    with pytest.raises(ValueError, match="is closed"):
        one.submission.add(tasks(1))


def test_a_single_task_has_no_submission_and_the_rolling_shard() -> None:
    clock = ManualClock()
    topic = MemoryBroker(clock).topic("default")
    task_id, message_id = submit_one(topic, NewTask("work", {"a": 1}), lane="default", clock=clock, rng=random.Random(1))
    ((published_id, message),) = topic.published
    assert published_id == message_id
    assert message.attributes["shard"] == rolling_shard("default", clock.now())
    assert "submission_id" not in message.attributes
    assert json.loads(message.data) == {"task_id": task_id, "task_type": "work", "submitted_at": "2026-01-01T00:00:00.000000Z", "a": 1}


@pytest.mark.parametrize("lane", ["Prod lane", "a/b", "größe", "x" * 93])
def test_a_lane_that_no_id_can_name_is_refused(lane: str) -> None:
    clock, rng = ManualClock(), random.Random(1)
    topic = MemoryBroker(clock).topic("default")
    with pytest.raises(MessageRefused, match="cannot stand in task ids"):
        Submission(lane=lane, topic=topic, store=MemoryObjectStore(), clock=clock, rng=rng)
    with pytest.raises(MessageRefused, match="cannot stand in task ids"):
        submit_one(topic, NewTask("work"), lane=lane, clock=clock, rng=rng)
    longest = "x" * 92
    submit_one(topic, NewTask("work"), lane=longest, clock=clock, rng=rng)
    ((_, message),) = topic.published
    task = decode(message.data, message.attributes, message_id="m", published_s=clock.now(), lane=longest)
    assert (task.task_id, task.shard) == (message.attributes["task_id"], message.attributes["shard"])


def test_types_are_checked_by_the_handlers() -> None:
    registry = Registry()
    registry.task("file_processing", payload=FileProcessing)(lambda _task, _ctx: None)
    check = check_by(registry)
    check(NewTask("file_processing", {"filename": "a.csv"}))
    with pytest.raises(MessageRefused, match="did you mean 'file_processing'"):
        check(NewTask("file_procesing", {"filename": "a.csv"}))
    with pytest.raises(MessageRefused, match="filename"):
        check(NewTask("file_processing", {"filename": "../../etc/passwd"}))
    check_by(registry, unknown_types=True)(NewTask("own", {}))


@given(st.integers(0, 3000), st.booleans())
def test_only_small_ended_submissions_roll(count: int, ended: bool) -> None:
    shard = choose_shard("s-1", "default", count, 0.0, ended=ended)
    assert (shard == "s-1") == (count >= ROLLING_BELOW or not ended)


@given(st.lists(st.integers(1, MAX_MESSAGE_BYTES), max_size=60), st.integers(1, 20))
def test_parts_stay_within_both_bounds(sizes: list[int], tasks_per_part: int) -> None:
    parts: list[list[int]] = [[]]
    for size in sizes:
        if part_is_full(len(parts[-1]), sum(parts[-1]), size, tasks_per_part):
            parts.append([])
        parts[-1].append(size)
    assert all(len(part) <= tasks_per_part and sum(part) <= MAX_PART_BYTES for part in parts)
