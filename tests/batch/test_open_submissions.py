"""Open submissions: parts of several requests, a closing that races with them, and keyed submissions that are killed at each request."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from pydantic import BaseModel

from batch.client.closing import close_opened, read_opened, read_summary
from batch.client.proof import prove
from batch.client.submission import Identity, Submission, SubmissionClosed
from batch.client.submit import NewTask, check_by, submit_one
from batch.ends import marks
from batch.ends.options import ends_of
from batch.handling.registry import Registry
from batch.model.errors import MessageRefused
from batch.model.names import mark_object, submission_object
from batch.testing import ManualClock, MemoryBroker, MemoryObjectStore

METHODS = ("write", "read", "info", "list", "delete", "read_with_info")
OPEN = Identity("s-1", 1_767_225_600.0)
KEYED = Identity("k-1", 1_767_225_600.0, keyed=True)
ENDS = ends_of({"on_complete": {"task_type": "told"}})


class Killed(BaseException):
    """The process is gone."""


class Bucket(MemoryObjectStore):
    """Something may happen before the number-th request, and before the number-th publish."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        super().__init__(clock=self.clock)
        self.topic = MemoryBroker(self.clock).topic("default")
        self.publish, self.topic.publish = self.topic.publish, self._publish  # type: ignore[method-assign]
        self._count, self._at = 0, 0
        self._event: Callable[[], object] = kill
        self.elsewhere: Callable[[], object] = lambda: None
        """Called before each request of another thread."""
        for method in METHODS:
            setattr(self, method, self._counted(getattr(self, method)))

    def at(self, number: int, event: Callable[[], object]) -> None:
        self._count, self._at, self._event = 0, number, event

    @property
    def happened(self) -> bool:
        return self._count >= self._at

    def _step(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            self.elsewhere()
            return
        self._count += 1
        if self._count == self._at:
            event, count = self._event, self._count
            event()
            self._count = count

    def _counted(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **options: Any) -> Any:
            self._step()
            return method(*arguments, **options)

        return called

    def _publish(self, messages: Any) -> list[str]:
        self._step()
        return self.publish(messages)

    def submission(self, identity: Identity = OPEN, **options: Any) -> Submission:
        options = {"stays_open": True, **options}
        return Submission(
            lane="default", topic=self.topic, store=self, clock=self.clock, rng=random.Random(1), identity=identity, **options
        )

    def opened(self) -> None:
        one = self.submission()
        one.add([NewTask("work", {"number": 0})])
        report = one.close()
        assert (report.accepted_count, report.closed) == (1, False)

    def added(self, digits: str, count: int = 3) -> bool:
        """Whether the part was taken; none of it is otherwise."""
        one = self.submission(Identity("s-1", self.clock.now(), keyed=True, added=digits))
        try:
            one.add(NewTask("work", {"part": digits}) for _ in range(count))
            one.close()
        except SubmissionClosed as error:
            return error.report.accepted_count + error.report.uncertain_count > 0
        return True

    def close(self) -> dict[str, Any]:
        opened = read_opened(self, "s-1")
        assert opened is not None
        return close_opened(self, opened, self.clock.now())

    def published(self) -> list[str]:
        return [message.attributes["task_id"] for _, message in self.topic.published]

    def check(self, taken: dict[str, bool], count: int = 3) -> None:
        """What was taken is published and counted, nothing else is."""
        summary = self.close()
        assert summary["parts"] == [name.rpartition("/")[2] for name in self.names("submissions/s-1/manifest-")]
        parts = [json.loads(message.data).get("part") for _, message in self.topic.published]
        for digits, was_taken in taken.items():
            assert parts.count(digits) == (count if was_taken else 0)
        assert summary["task_count"] == len(set(self.published())) == 1 + count * sum(taken.values())
        proof = prove(self, "s-1")
        assert (proof.submitted_count, proof.problems, set(proof.missing)) == (summary["task_count"], (), set(self.published()))


A, B = "a" * 16, "b" * 16


def test_a_closing_at_any_moment_of_an_add_counts_it_or_it_is_refused() -> None:
    """Also one that is killed at each of its requests, and gone on with afterwards."""
    seen = set()
    for at in range(1, 30):
        for killed_at in range(1, 30):
            bucket = Bucket()
            bucket.opened()
            met: list[bool] = []
            bucket.at(at, partial(closing, bucket, killed_at, met))
            taken = bucket.added(A)
            seen.add(taken)
            bucket.at(0, kill)
            bucket.check({A: taken})
            if not met or not met[0]:
                break
        if not met:
            assert seen == {True, False}
            return
    pytest.fail("it has more requests than that")


def test_a_closing_that_pauses_while_an_add_goes_on_counts_what_was_written_first() -> None:
    for at in range(1, 30):
        for pauses_at in range(1, 30):
            bucket = Bucket()
            bucket.opened()
            paused = Paused(bucket, pauses_at)
            bucket.at(at, paused.begin)
            taken = bucket.added(A)
            bucket.at(0, kill)
            pauses = paused.end()
            bucket.check({A: taken})
            assert paused.answer in (None, read_summary(bucket, "s-1"))
            if not pauses:
                break
        if paused.answer is None:
            return
    pytest.fail("it has more requests than that")


class Paused:
    """A closing, in a thread of its own, that waits before its number-th request until it is to end."""

    def __init__(self, bucket: Bucket, number: int) -> None:
        self.answer: dict[str, Any] | None = None
        self._bucket, self._left = bucket, number
        self._waits, self._go_on = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._close, daemon=True)
        bucket.elsewhere = self._step

    def begin(self) -> None:
        """Returns when it waits, or has ended."""
        self._thread.start()
        assert self._waits.wait(30)

    def end(self) -> bool:
        """Whether it had waited."""
        waited = self._left <= 0
        self._go_on.set()
        if self._thread.ident is not None:
            self._thread.join(30)
        return waited

    def _close(self) -> None:
        self.answer = self._bucket.close()
        self._waits.set()

    def _step(self) -> None:
        self._left -= 1
        if self._left == 0:
            self._waits.set()
            assert self._go_on.wait(30)


def closing(bucket: Bucket, killed_at: int, met: list[bool]) -> None:
    """Notes whether it was killed."""
    bucket.at(killed_at, kill)
    with suppress(Killed):
        bucket.close()
    met.append(bucket.happened)
    bucket.at(0, kill)


def kill() -> None:
    raise Killed


def test_adds_at_any_moment_of_a_closing_are_counted_or_refused() -> None:
    seen = set()
    for at in range(1, 30):
        bucket = Bucket()
        bucket.opened()
        taken: dict[str, bool] = {}
        bucket.at(at, lambda bucket=bucket, taken=taken: taken.update({A: bucket.added(A), B: bucket.added(B)}))  # type: ignore[misc]
        assert bucket.close() == read_summary(bucket, "s-1")
        seen.add(taken.get(A))
        bucket.check(taken)
        if not taken:
            break
    assert seen == {True, False, None}


def test_an_add_that_was_killed_is_completed_by_its_repeat_also_after_the_closing() -> None:
    for at in range(1, 30):
        bucket = Bucket()
        bucket.opened()
        bucket.at(at, kill)
        with suppress(Killed):
            bucket.added(A)
        killed = bucket.happened
        bucket.at(0, kill)
        counted = bucket.close()["task_count"] == 4
        taken = bucket.added(A)
        assert taken == counted
        assert len(set(bucket.published())) == (4 if taken else 1)
        assert prove(bucket, "s-1").problems == ()
        assert prove(bucket, "s-1").submitted_count == len(set(bucket.published()))
        if not killed:
            return
    pytest.fail("it has more requests than that")


def test_a_part_that_no_closing_counted_does_not_put_the_proof_in_doubt() -> None:
    bucket = Bucket()
    bucket.opened()
    bucket.close()
    bucket.write("submissions/s-1/manifest-cccccccccccccccc-000000.jsonl", b'{"task_id":"x","task_type":"a","shard":"s-1"}\n')
    assert (prove(bucket, "s-1").submitted_count, prove(bucket, "s-1").problems) == (1, ())
    bucket.delete("submissions/s-1/manifest-000000.jsonl")
    assert prove(bucket, "s-1").problems


def test_a_keyed_submission_that_is_killed_at_any_request_is_completed_by_its_repeat() -> None:
    plain = Bucket()
    keyed_run(plain)
    for at in range(1, 40):
        bucket = Bucket()
        bucket.at(at, kill)
        with suppress(Killed):
            keyed_run(bucket)
        killed = bucket.happened
        bucket.at(0, kill)
        bucket.clock.advance(7200)
        keyed_run(bucket)
        assert {(m.data, m.attributes["task_id"]) for _, m in bucket.topic.published} == {
            (m.data, m.attributes["task_id"]) for _, m in plain.topic.published
        }
        manifests = [name for name in plain.names("submissions/") if "manifest" in name]
        assert [bucket.read(name) for name in manifests] == [plain.read(name) for name in manifests]
        proof = prove(bucket, "k-1")
        assert (proof.submitted_count, proof.repeated_task_count, proof.problems) == (250, 0, ())
        assert bucket.info(mark_object("default", "k-1")) is not None
        if not killed:
            return
    pytest.fail("it has more requests than that")


def keyed_run(bucket: Bucket) -> None:
    one = bucket.submission(KEYED, stays_open=False, tasks_per_part=100, ends=ENDS)
    tasks = [NewTask("work", {"number": number}, "own" if number == 7 else None) for number in range(250)]
    assert one.examine(tasks).accepted_count == 250
    one.add(tasks)
    assert one.close().accepted_count == 250


def test_later_lines_are_newer() -> None:
    bucket = Bucket()
    keyed_run(bucket)
    times = [json.loads(message.data)["submitted_at"] for _, message in bucket.topic.published]
    assert times == sorted(set(times))


def test_a_mark_whose_end_was_fired_is_not_written_again() -> None:
    bucket = Bucket()
    keyed_run(bucket)
    bucket.delete(mark_object("default", "k-1"))
    keyed_run(bucket)
    assert bucket.info(mark_object("default", "k-1")) is None


def test_the_ends_of_an_open_submission_stand_in_its_summary() -> None:
    bucket = Bucket()
    bucket.submission(ends=ENDS).close()
    assert [mark.submission_id for mark in marks.listed(bucket)] == ["s-1"]
    assert bucket.info(submission_object("s-1")) is None
    assert bucket.added(A)
    assert bucket.close()["ends"] == {"on_complete": {"task_type": "told"}}
    summary = read_summary(bucket, "s-1")
    assert summary is not None
    assert (summary["task_count"], summary["part_count"], summary["lane"], summary["topic"]) == (3, 1, "default", "default")


@pytest.mark.parametrize(
    ("task", "field"),
    [
        ({"task_type": "fanout.finish"}, "task_type"),
        ({"task_type": "a", "task_id": "x"}, "task_id"),
        ({"task_type": ""}, ""),
        ({"webhook": "https://a", "task_id": "x"}, "task_id"),
        ({"webhook": "https://a", "lane": "a b"}, "lane"),
        ({"webhook": "https://a", "text": "x" * 9_000_000}, "can travel"),
        ({"task_type": "a", "text": "x" * (9_000_000 - 250)}, "can travel"),
    ],
)
def test_ends_whose_tasks_cannot_travel_are_refused(task: dict[str, Any], field: str) -> None:
    with pytest.raises(MessageRefused, match=f"on_failure: .*{field}"):
        Bucket().submission(ends=ends_of({"on_failure": task}))


def test_the_handler_of_an_end_is_asked_for_what_it_will_be_given() -> None:
    class Report(BaseModel, extra="forbid"):
        to: str
        submission: dict[str, Any]

    class Strict(BaseModel, extra="forbid"):
        to: str

    registry = Registry()
    registry.task("report", payload=Report)(lambda _task, _ctx: None)
    registry.task("strict", payload=Strict)(lambda _task, _ctx: None)
    Bucket().submission(ends=ends_of({"on_complete": {"task_type": "report", "to": "ops"}}), check=check_by(registry))
    with pytest.raises(MessageRefused, match=r"on_complete: .*submission") as caught:
        Bucket().submission(ends=ends_of({"on_complete": {"task_type": "strict", "to": "ops"}}), check=check_by(registry))
    assert list(caught.value.fields) == ["on_complete.submission"]


def test_a_closing_names_the_shards_of_a_part_that_has_too_many_for_its_metadata() -> None:
    """Tasks under keys that were first submitted in many hours."""
    bucket = Bucket()
    for number in range(200):
        bucket.clock.advance(3600)
        submit_one(
            bucket.topic, NewTask("work", {}, f"key-{number}"), lane="default", clock=bucket.clock, rng=random.Random(1), store=bucket
        )
    one = bucket.submission(ends=ENDS)
    one.add(NewTask("work", {}, f"key-{number}") for number in range(200))
    one.close()
    assert len(bucket.close()["shards"]) == 200
