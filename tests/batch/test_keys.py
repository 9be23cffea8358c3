"""Idempotency keys: one key is one task, wherever and however often it is submitted; another task under it is refused."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

import pytest

from batch.client.keys import Keyed, all_settled, from_json, read_record, settled
from batch.client.proof import prove
from batch.client.submission import Submission, SubmissionInterrupted
from batch.client.submit import NewTask, single_message, submit_one
from batch.model.delivery import Outgoing
from batch.model.errors import DependencyUnavailable, MessageRefused
from batch.model.message import ROLLING_BELOW, keyed_task_id, rolling_shard, shard_in_id
from batch.model.names import key_object
from batch.testing import ManualClock, MemoryBroker, MemoryObjectStore

TASK_ID = keyed_task_id("default", "order-7")


class Client:
    """Submits to one bucket and topic in memory."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = MemoryObjectStore(clock=self.clock)
        self.topic = MemoryBroker(self.clock).topic("default")
        self._rng = random.Random(5)

    def single(self, fields: dict[str, object], key: str | None = "order-7") -> Outgoing:
        submit_one(self.topic, NewTask("work", fields, key), lane="default", clock=self.clock, rng=self._rng, store=self.store, check=None)
        return self.published[-1]

    @property
    def published(self) -> list[Outgoing]:
        return [message for _, message in self.topic.published]

    def submission(self) -> Submission:
        return Submission(lane="default", topic=self.topic, store=self.store, clock=self.clock, rng=self._rng)


@pytest.fixture
def client() -> Client:
    return Client()


def keyed(number: int, body: int | None = None) -> NewTask:
    return NewTask("work", {"number": number if body is None else body}, f"key-{number}")


def test_the_record_is_there_before_the_message(client: Client) -> None:
    publish = client.topic.publish

    def watched(messages: Sequence[Outgoing]) -> list[str]:
        assert read_record(client.store, TASK_ID) is not None
        return publish(messages)

    client.topic.publish = watched  # type: ignore[method-assign]
    message = client.single({"a": 1})
    record = json.loads(client.store.read(f"keys/{TASK_ID[:2]}/{TASK_ID}"))
    assert record["submitted_at"] == "2026-01-01T00:00:00.000000Z"
    assert (record["shard"], record["lane"]) == (message.attributes["shard"], "default")
    assert len(record["body_hash"]) == 64


def test_a_repeat_is_the_same_message(client: Client) -> None:
    first = client.single({"a": 1, "b": [1, 2]})
    client.clock.advance(5 * 3600)
    assert client.single({"b": [1, 2], "a": 1}).attributes == first.attributes
    assert json.loads(client.published[1].data) == json.loads(first.data)


def test_another_task_under_the_key_is_refused_with_when_it_was_used(client: Client) -> None:
    client.single({"a": 1})
    client.clock.advance(60)
    for new in (NewTask("work", {"a": 2}, "order-7"), NewTask("other", {"a": 1}, "order-7")):
        with pytest.raises(MessageRefused, match=r"key 'order-7' was used first at 2026-01-01T00:00:00.000000Z") as caught:
            submit_one(client.topic, new, lane="default", clock=client.clock, rng=random.Random(1), store=client.store)
        assert (caught.value.kind, caught.value.fields) == ("invalid", ("idempotency_key",))
    assert len(client.published) == 1
    client.single({"a": 2}, key="order-8")


def test_a_key_never_means_another_task_whose_output_would_be_taken_for_its_own(client: Client) -> None:
    message = client.single({"a": 1})
    client.clock.advance(30 * 86_400)
    with pytest.raises(MessageRefused, match="2026-01-01"):
        client.single({"a": 2})
    assert client.single({"a": 1}) == message, "a repeat is the same message also then"


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"body_hash": 1}'])
def test_a_damaged_record_is_named_and_refuses(client: Client, body: bytes) -> None:
    client.store.write(key_object(TASK_ID), body)
    with pytest.raises(MessageRefused, match=f"object keys/{TASK_ID[:2]}/{TASK_ID} is damaged"):
        client.single({"a": 1})
    assert client.published == []


@pytest.mark.parametrize("change", [{"shard": "../x"}, {"submitted_at": "soon"}, {"lane": None}])
def test_a_record_that_cannot_be_ours_is_damaged(client: Client, change: dict[str, object]) -> None:
    client.single({"a": 1})
    body = {**json.loads(client.store.read(key_object(TASK_ID))), **change}
    with pytest.raises(ValueError, match="not the record"):
        from_json(json.dumps(body).encode())


def test_a_lost_answer_is_met_by_our_own_record(client: Client) -> None:
    message = single_message(NewTask("work", {"a": 1}, "order-7"), lane="default", unix_s=client.clock.now(), rng=random.Random(1))
    client.store.fail_next("write", DependencyUnavailable("lost"), after_effect=True)
    with pytest.raises(DependencyUnavailable):
        settled(client.store, Keyed("order-7", message), client.clock.now())
    assert settled(client.store, Keyed("order-7", message), client.clock.now()) == message


@pytest.mark.parametrize("count", [5, ROLLING_BELOW, 1200])
def test_in_a_submission_repeats_keep_the_shard_that_their_outcome_goes_to(client: Client, count: int) -> None:
    first = client.single({"number": 3}, key="key-3")
    client.clock.advance(7200)
    submission = client.submission()
    submission.add(keyed(number) for number in range(count))
    report = submission.close()
    assert (report.accepted_count, report.refused_count) == (count, 0)
    own = submission.submission_id if count >= ROLLING_BELOW else rolling_shard("default", client.clock.now())
    by_number = {json.loads(one.data)["number"]: one for one in client.published[1:]}
    assert json.loads(by_number[3].data) == json.loads(first.data)
    assert {number: one.attributes["shard"] for number, one in by_number.items()} == {
        number: first.attributes["shard"] if number == 3 else own for number in range(count)
    }
    shards = {line["task_id"]: line["shard"] for line in manifest(client, submission)}
    assert shards == {one.attributes["task_id"]: one.attributes["shard"] for one in client.published[1:]}
    assert set(prove(client.store, submission.submission_id).missing) == set(shards)


def manifest(client: Client, submission: Submission) -> list[dict[str, str]]:
    names = client.store.names(f"submissions/{submission.submission_id}/manifest-")
    return [json.loads(line) for name in names for line in client.store.read(name).splitlines()]


def test_lines_that_another_task_has_the_key_of_are_refused_by_position(client: Client) -> None:
    client.single({"number": 1}, key="key-1")
    submission = client.submission()
    submission.add([keyed(0), keyed(1, 100), NewTask("work", {"number": 2}), keyed(0), keyed(0, 100)])
    report = submission.close()
    assert [one.position for one in report.refusals] == [2, 5]
    assert all("was used first at" in one.reason for one in report.refusals)
    assert [json.loads(one.data)["number"] for one in client.published[1:]] == [0, 2, 0]
    assert len(manifest(client, submission)) == 3


def test_a_part_that_is_refused_as_a_whole_leaves_no_manifest(client: Client) -> None:
    client.single({"number": 1}, key="key-1")
    submission = client.submission()
    submission.add([keyed(1, 100)])
    report = submission.close()
    assert (report.accepted_count, report.refused_count, report.part_count) == (0, 1, 0)
    assert prove(client.store, submission.submission_id).complete


def test_an_interrupted_submission_goes_on_with_the_records_that_it_has_made(client: Client) -> None:
    client.single({"number": 9}, key="key-1")
    submission = client.submission()
    submission.add(keyed(number) for number in range(40))
    client.store.fail_next("write", DependencyUnavailable("away"), after_effect=True)
    with pytest.raises(SubmissionInterrupted):
        submission.close()
    client.clock.advance(10)
    report = submission.close()
    assert (report.accepted_count, report.refused_count) == (39, 1)


def test_tasks_without_a_key_cost_no_request(client: Client) -> None:
    submission = client.submission()
    submission.add(NewTask("work", {}) for _ in range(300))
    submission.close()
    assert client.store.names("keys/") == ()


def test_records_are_made_side_by_side(client: Client) -> None:
    """Two writes are under way at a time: each waits for the other."""
    import threading

    both, write = threading.Barrier(2), client.store.write

    def meeting(name: str, data: bytes, **options: object) -> object:
        both.wait(timeout=30)
        return write(name, data, **options)  # type: ignore[arg-type]

    client.store.write = meeting  # type: ignore[method-assign,assignment]
    messages = [
        Keyed(f"k{n}", single_message(NewTask("work", {}, f"k{n}"), lane="default", unix_s=0.0, rng=random.Random(n))) for n in range(2)
    ]
    assert len(all_settled(client.store, messages, 0.0)) == 2


@pytest.mark.parametrize("count", [1, ROLLING_BELOW - 1, ROLLING_BELOW, 1000, 1001])
def test_ids_of_every_part_lead_to_the_shard_of_message_and_manifest(client: Client, count: int) -> None:
    submission = client.submission()
    submission.add(NewTask("work", {"task": number}) for number in range(count))
    client.clock.advance(3600)
    submission.close()
    lines = manifest(client, submission)
    assert [shard_in_id(line["task_id"]) for line in lines] == [line["shard"] for line in lines]
    assert [one.attributes["shard"] for one in client.published] == [line["shard"] for line in lines]
    assert [json.loads(one.data)["task_id"] for one in client.published] == [line["task_id"] for line in lines]
    assert len({line["shard"] for line in lines}) == 1
