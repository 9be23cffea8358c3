"""A message that the dead-letter policy is about to take is published again, whatever it is nacked for; what cannot be is dead with the
reason, and nothing is dead because Pub/Sub was down."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from batch.handling.registry import Backoff
from batch.model.attempts import Attempts, Marker
from batch.model.clock import iso
from batch.model.delayed import DELAYED, Republication, republication_of
from batch.model.delivery import MAX_ATTRIBUTES, Outgoing
from batch.model.errors import (
    DependencyForbidden,
    DependencyMissing,
    DependencyUnavailable,
    FanoutError,
    Snooze,
)
from batch.model.exit import ExitReason
from batch.model.message import Task, encode
from batch.worker.admission.records import read_attempts, write_attempts
from batch.worker.life import Worker
from tests.batch.worker.plant import SHARD, Plant, ended, in_thread, write
from tests.batch.worker.test_poison import GONE, delivered_before, left_by, progress_of
from tests.clocks import ShiftedClock
from tests.support import wait_until

LIMIT = 5
NEAR = 3
"""The delivery from which on a message is published again."""
DOWN = DependencyUnavailable("503")


class Lane(Plant):
    """A lane whose tasks have been delivered so often that the next delivery is near the limit."""

    def __init__(self, limit: int | None = LIMIT) -> None:
        super().__init__(ShiftedClock(), max_delivery_attempts=limit)
        self.over = threading.Event()

    def submit_near(self, count: int = 1, *, deliveries: int = NEAR - 1, **fields: Any) -> list[str]:
        ids = self.submit(count, "work", **fields)
        delivered_before(self, deliveries)
        return ids

    def handler(self, function: Callable[[Any, Any], Any], **options: Any) -> None:
        self.registry.task("work", **options)(function)

    def raises(self, *errors: Exception, **options: Any) -> None:
        """A handler that raises these, one a run, and then succeeds."""
        left = list(errors)

        def work(task: Task, ctx: Any) -> None:
            if left:
                raise left.pop(0)
            ctx.write(f"out/{task.task_id}", b"done")

        self.handler(work, **options)

    def work(self, name: str = "lane-x", **settings: object) -> ExitReason:
        return self.worker(CLOUD_RUN_EXECUTION=name, **{"MAX_MESSAGES": 1, "CONCURRENCY": 1, **settings}).run()

    @property
    def again(self) -> list[Republication]:
        """What was published again, as its attribute says it."""
        found = [republication_of(message.attributes) for _, message in self.broker.topic("lane").published]
        return [one for one in found if one is not None]

    @property
    def deliveries(self) -> list[int]:
        """How often each message that waits was delivered."""
        return sorted(one.delivery_count for one in self.subscription.waiting())

    def wait_of(self, count: int = 1) -> list[float]:
        """For how long those that were published again wait."""
        assert len(self.again) == count
        return [max(0.0, one.due - self.clock.now()) for one in self.again]


@pytest.fixture
def lane() -> Iterator[Lane]:
    made = Lane()
    yield made
    made.over.set()
    progress = made.progress()
    assert progress.taken == progress.acked + progress.returned
    assert made.letters() == []
    assert made.broker.topic("dead-letters").published == []


# --- whatever it is nacked for


@pytest.mark.parametrize("wait_s", [0, 60, 600])
def test_a_snooze(lane: Lane, wait_s: float) -> None:
    lane.raises(Snooze(wait_s))
    (task_id,) = lane.submit_near()
    lane.work()
    (one,) = lane.again
    assert (one.message_id, one.count, one.has_record) == ("1", 1, False)
    assert one.due == 0 if wait_s == 0 else lane.wait_of()[0] == pytest.approx(wait_s, abs=2)
    assert (lane.deliveries, lane.store.names("attempts/")) == ([0], ())
    assert sum(count for _, count in lane.progress().deferred) == (wait_s > 0)
    lane.clock.advance(wait_s)  # type: ignore[attr-defined]
    lane.work("lane-y")
    assert (lane.final(), lane.subscription.backlog) == ({task_id: "succeeded"}, 0)


def test_the_longest_wait_needs_no_bucket_when_another_worker_gets_it_at_once(lane: Lane) -> None:
    lane.raises(Snooze(600))
    (task_id,) = lane.submit_near()
    lane.work()
    lane.work("lane-y")
    assert (lane.store.names("delayed/"), lane.deliveries, lane.subscription.free) == ((), [1], 0)
    lane.clock.advance(600)  # type: ignore[attr-defined]
    lane.work("lane-z")
    assert (lane.final(), lane.subscription.backlog) == ({task_id: "succeeded"}, 0)


def test_the_longest_wait_needs_no_bucket_by_a_clock_that_is_behind(lane: Lane) -> None:
    lane.raises()
    waits = Republication(int(lane.clock.now()) + 630, 1_767_225_600.5, "first", 1, has_record=False)
    lane.publish(b'{"task_type": "work", "task_id": "t"}', **{DELAYED: str(waits)})
    lane.work()
    assert (lane.store.names("delayed/"), lane.deliveries) == ((), [1])
    lane.clock.advance(600)  # type: ignore[attr-defined]
    lane.work("lane-y")
    assert (lane.final(), lane.deliveries) == ({}, [2])
    lane.clock.advance(30)  # type: ignore[attr-defined]
    lane.work("lane-z")
    assert lane.final() == {"t": "succeeded"}


def test_a_failed_attempt(lane: Lane) -> None:
    lane.raises(ValueError("once"), backoff=Backoff(first_s=60))
    (task_id,) = lane.submit_near()
    lane.work()
    assert lane.again[0].has_record
    assert lane.wait_of()[0] >= 59
    lane.clock.advance(70)  # type: ignore[attr-defined]
    lane.work("lane-y")
    (outcome,) = lane.outcomes()
    assert (outcome.task_id, outcome.outcome, outcome.attempt_count) == (task_id, "succeeded", 2)


def test_a_service_that_failed_under_it(lane: Lane) -> None:
    lane.raises(DOWN)
    lane.submit_near()
    lane.work(MAX_MESSAGES=5, BACKLOG=5)
    assert (lane.again[0].has_record, lane.deliveries) == (False, [1])


def test_a_fault_of_ours(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    lane.raises()
    lane.submit_near()
    worker = lane.worker(MAX_MESSAGES=1)
    monkeypatch.setattr("batch.worker.admission.admission.Admission.begin", lambda *_: 1 / 0)
    worker.run()
    assert lane.wait_of()[0] == pytest.approx(60, abs=2)
    assert lane.again[0].has_record, "its marker may be there still"


def test_one_that_comes_before_its_time(lane: Lane) -> None:
    lane.raises()
    due = int(lane.clock.now()) + 300
    data, attributes = encode(Task("t", "work", iso(lane.clock.now()), {}, "", "lane", SHARD))
    was = Republication(due, 1_767_225_600.5, "first", 7, has_record=False)
    lane.broker.topic("lane").publish([Outgoing(data, {**attributes, DELAYED: str(was)})])
    delivered_before(lane, NEAR - 1)
    lane.work()
    assert lane.again[1:] == [replace(was, count=8, has_record=True)]
    assert lane.deliveries == [0]


def test_one_that_runs_elsewhere(lane: Lane) -> None:
    lane.raises()
    (task_id,) = lane.submit_near()
    elsewhere = Marker("other-x", 0, 0, iso(lane.clock.now()))
    write_attempts(lane.store, task_id, Attempts(in_progress=elsewhere), 0)
    progress_of(lane, elsewhere)
    lane.work()
    assert lane.again[0].has_record
    assert lane.wait_of()[0] == pytest.approx(30, abs=2)


def test_one_too_many_for_the_quarantine(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batch.worker.executors.quarantine.MAX_WAITING", 0)
    lane.raises()
    (task_id,) = lane.submit_near()
    left_by(lane, task_id, GONE)
    lane.work()
    assert (lane.again[0].has_record, lane.deliveries) == (True, [0])


def stopped_with_all_waiting(lane: Lane, stop: Callable[[Worker], None], count: int = 40) -> list[ExitReason]:
    """One thread, the first task of which does not end before everything else has left it."""
    begun = threading.Event()

    def work(task: Task, ctx: Any) -> None:
        begun.set()
        assert lane.over.wait(60)

    lane.handler(work)
    lane.submit(1, "work")
    worker = lane.worker(MAX_MESSAGES=count + 1, CONCURRENCY=1, PREFETCH_S=100)
    worker.tally.mean_s = 0.01
    thread, reasons = in_thread(worker)
    assert begun.wait(60)
    lane.broker.topic("lane").publish(
        [Outgoing(*encode(Task(f"t-{number}", "work", iso(0), {}, "", "lane", SHARD))) for number in range(count)]
    )
    wait_until(lambda: worker.tally.taken == count + 1, 60, "everything to wait for the thread")
    stop(worker)
    wait_until(lambda: worker.tally.returned == count, 60, "what has not started to be nacked")
    lane.over.set()
    ended(thread)
    return reasons


@pytest.mark.parametrize("how", ["signal", "breaker"])
def test_what_has_not_started_when_its_worker_ends(lane: Lane, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if all had been delivered often: nothing here is a second delivery."""
    monkeypatch.setattr("batch.worker.committing.republishing.near_net", lambda _limit: 1)
    stop = Worker.stop if how == "signal" else lambda worker: worker._breaker.trip("down") or worker._nudge()
    assert stopped_with_all_waiting(lane, stop) == [ExitReason.STOPPED if how == "signal" else ExitReason.BROKEN]
    assert len(lane.again) == 40
    assert {(one.due, one.has_record) for one in lane.again} == {(0, False)}
    assert lane.deliveries == [0] * 40
    assert lane.progress().returned == 40


def test_one_that_still_runs_when_its_worker_must_end(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batch.worker.shutdown.after_signal_s", lambda signal_s: signal_s + 0.1)
    begun = threading.Event()

    def work(task: Task, ctx: Any) -> None:
        begun.set()
        lane.over.wait(60)

    lane.handler(work)
    lane.submit_near()
    worker = lane.worker(MAX_MESSAGES=1)
    thread, reasons = in_thread(worker)
    assert begun.wait(60)
    worker.stop()
    ended(thread)
    assert (reasons, len(lane.again), lane.deliveries) == ([ExitReason.STOPPED], 1, [0])


def test_one_whose_outcome_cannot_be_written(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    lane.raises()
    lane.submit_near()
    put = lane.store.write

    def refuse(name: str, data: bytes, **more: Any) -> Any:
        if name.startswith("outcomes/"):
            raise DependencyForbidden("objects.create is refused")
        return put(name, data, **more)

    with monkeypatch.context() as patch:
        patch.setattr(lane.store, "write", refuse)
        assert lane.work() is ExitReason.BROKEN
    assert (len(lane.again), lane.deliveries) == (1, [0])
    lane.work("lane-y")
    assert (set(lane.final().values()), lane.subscription.backlog) == ({"succeeded"}, 0)


def test_one_that_the_bucket_does_not_take_for_its_wait(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    lane.raises(Snooze(3600))
    lane.submit_near()
    put = lane.store.write

    def refuse(name: str, data: bytes, **more: Any) -> Any:
        if name.startswith("delayed/"):
            raise DependencyForbidden("objects.create is refused")
        return put(name, data, **more)

    monkeypatch.setattr(lane.store, "write", refuse)
    lane.work(MAX_MESSAGES=5, BACKLOG=5)
    assert lane.wait_of()[0] == pytest.approx(600, abs=2)
    assert lane.deliveries == [1], "the same worker had it once more, too early"


def test_below_the_limit_nothing_is_published_again(lane: Lane) -> None:
    lane.raises(Snooze(60))
    lane.submit_near(deliveries=NEAR - 2)
    lane.work()
    assert (lane.again, lane.deliveries) == ([], [NEAR - 1])


def test_without_a_dead_letter_policy_nothing_is_published_again() -> None:
    lane = Lane(None)
    lane.raises(*[Snooze(0)] * 20)
    lane.submit(1, "work")
    lane.work(MAX_MESSAGES=100)
    assert (lane.again, set(lane.final().values())) == ([], {"succeeded"})


# --- what was published again


def test_one_that_comes_too_early_is_nacked_until_then_and_the_bucket_is_not_asked(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    lane.raises(Snooze(60))
    lane.submit_near()
    lane.work()
    asked: list[str] = []
    monkeypatch.setattr("batch.worker.admission.admission.read_attempts", lambda _store, task_id: asked.append(task_id))
    lane.work("lane-y")
    assert (asked, lane.final()) == ([], {}), "it came too early, and was nacked"
    early = lane.progress(execution="lane-y")
    assert (early.taken, early.returned, early.deferred) == (1, 1, ()), "who published it has reported that it waits"
    (waiting,) = lane.subscription.waiting()
    assert waiting.free_s == pytest.approx(lane.again[0].due, abs=1)


def test_without_a_record_its_run_asks_the_bucket_for_nothing(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    lane.raises(Snooze(0))
    (task_id,) = lane.submit_near()
    lane.work()
    asked: list[str] = []
    monkeypatch.setattr("batch.worker.admission.admission.read_attempts", lambda _store, task_id: asked.append(task_id))
    lane.work("lane-y")
    assert (asked, lane.final()) == ([], {task_id: "succeeded"})


def test_with_a_record_it_is_admitted_as_one_that_was_delivered_before(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    lane.raises(ValueError("once"), backoff=Backoff(first_s=0))
    (task_id,) = lane.submit_near()
    lane.work()
    asked: list[str] = []

    def read(store: Any, task_id: str) -> Any:
        asked.append(task_id)
        return read_attempts(store, task_id)

    monkeypatch.setattr("batch.worker.admission.admission.read_attempts", read)
    lane.work("lane-y")
    assert (asked, lane.final()) == ([task_id], {task_id: "succeeded"})


@pytest.mark.parametrize("published_by", ["a worker", "the tick of 0.1"])
def test_one_that_kills_workers_is_found_as_soon_as_any_other(lane: Lane, published_by: str) -> None:
    """The broker counts anew: failed attempts from before explain no delivery of what was published again."""
    marked: list[Attempts] = []
    now = lane.clock.now()
    lane.handler(lambda task, _ctx: marked.append(read_attempts(lane.store, task.task_id)[0]))
    data, attributes = encode(Task("t", "work", iso(now), {}, "", "lane", SHARD))
    said = f"{int(now):010d} {now:.6f} first" + (" 3 1" if published_by == "a worker" else "")
    lane.broker.topic("lane").publish([Outgoing(data, {**attributes, DELAYED: said})])
    write_attempts(lane.store, "t", Attempts(3), 0)
    delivered_before(lane)
    lane.work()
    assert lane.final() == {"t": "succeeded"}
    assert marked[0].in_progress is not None, "it may have killed the worker that had it before"


def test_a_task_without_an_id_stays_the_same_task(lane: Lane) -> None:
    seen: list[str] = []

    def work(task: Task, ctx: Any) -> None:
        seen.append(task.task_id)
        if len(seen) < 20:
            raise Snooze(0)

    lane.handler(work)
    lane.publish(b'{"task_type": "work"}')
    lane.work(MAX_MESSAGES=100)
    assert set(seen) == {"message-1"}
    assert lane.final() == {"message-1": "succeeded"}
    assert [one.count for one in lane.again] == list(range(1, len(lane.again) + 1))
    assert {(one.message_id, one.published_s) for one in lane.again} == {("1", lane.again[0].published_s)}


def test_a_worker_that_is_killed_before_it_acknowledges_leaves_two_messages_and_one_effect(lane: Lane) -> None:
    lane.raises(Snooze(60))
    (task_id,) = lane.submit_near()
    ack = lane.subscription.ack
    lane.subscription.ack = lambda ack_ids: list(ack_ids)  # type: ignore[method-assign]
    lane.work()
    lane.subscription.ack = ack  # type: ignore[method-assign]
    assert (len(lane.again), lane.subscription.backlog) == (1, 2)
    lane.clock.advance(61)  # type: ignore[attr-defined]
    lane.work("lane-y", MAX_MESSAGES=10)
    assert (lane.subscription.backlog, lane.final()) == (0, {task_id: "succeeded"})
    assert [info.generation for info in lane.store.list("out/")] == [next(iter(lane.store.list("out/"))).generation]
    assert lane.store.names("out/") == (f"out/{task_id}",)


def test_one_whose_acknowledgement_is_lost_does_not_run_early(lane: Lane) -> None:
    lane.raises(Snooze(300))
    (task_id,) = lane.submit_near()
    lane.subscription.fail_next("ack", DOWN)
    lane.work()
    assert read_attempts(lane.store, task_id)[0].not_before == pytest.approx(lane.clock.now() + 300, abs=5)


# --- what cannot be published again


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (DependencyForbidden("refused (PERMISSION_DENIED): grant this identity roles/pubsub.publisher"), "roles/pubsub.publisher"),
        (DependencyMissing("topic projects/p/topics/lane does not exist"), "does not exist"),
        (FanoutError("Pub/Sub refused the request (INVALID_ARGUMENT)"), "INVALID_ARGUMENT"),
        (None, "set TOPIC_NAME"),
    ],
    ids=["forbidden", "missing", "refused", "unknown"],
)
def test_one_that_can_never_be_is_dead_with_the_reason_before_the_policy_takes_it(
    error: Exception | None, said: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lane = Lane()
    lane.raises(*[Snooze(0)] * 50)
    if error is None:
        lane.subscription.topic = ""
    (task_id,) = lane.submit(1, "work")
    if error is not None:
        for _ in range(10):
            lane.broker.topic("lane").fail_next("publish", error)
    with caplog.at_level(logging.WARNING, logger="fanout"):
        lane.work(MAX_MESSAGES=100)
    (outcome,) = lane.outcomes()
    assert (outcome.task_id, outcome.outcome, outcome.error_type) == (task_id, "dead", "undeliverable")
    assert "the dead-letter policy of subscription lane is near" in outcome.reason
    assert said in outcome.reason
    (letter,) = lane.letters()
    assert letter["dead_reason"] == outcome.reason
    assert (lane.subscription.backlog, lane.again) == (0, [])
    assert "republish failed" in caplog.text
    progress = lane.progress()
    assert (progress.taken, progress.acked, progress.dead) == (LIMIT - 1, 1, 1)


def test_one_without_room_for_the_attribute_is_dead_with_that_reason_and_the_others_go_on() -> None:
    lane = Lane()
    lane.raises(*[Snooze(0)] * 20)
    full = {f"a{number}": "x" for number in range(MAX_ATTRIBUTES)}
    lane.publish(b'{"task_type": "work", "task_id": "full"}', **full)
    lane.publish(b'{"task_type": "work", "task_id": "other"}')
    lane.work(MAX_MESSAGES=100)
    assert lane.final() == {"full": "dead", "other": "succeeded"}
    (letter,) = lane.letters()
    assert "it has 100 attributes, which leaves no room for 'delayed'" in letter["dead_reason"]


def test_a_filter_that_would_lose_it_counts_as_one_that_can_never_be(monkeypatch: pytest.MonkeyPatch) -> None:
    lane = Lane()
    lane.raises(*[Snooze(0)] * 20)
    info = replace(lane.subscription.info, message_filter="NOT attributes:delayed")
    monkeypatch.setattr(type(lane.subscription), "info", info)
    lane.submit(1, "work")
    lane.work(MAX_MESSAGES=100)
    assert "filter of subscription lane names the attribute 'delayed'" in lane.letters()[0]["dead_reason"]


def test_while_pub_sub_does_not_take_it_the_message_is_nacked_and_it_is_said(lane: Lane, caplog: pytest.LogCaptureFixture) -> None:
    lane.raises(Snooze(0))
    (task_id,) = lane.submit_near(deliveries=LIMIT - 2)
    lane.broker.topic("lane").fail_next("publish", DOWN)
    with caplog.at_level(logging.WARNING, logger="fanout"):
        lane.work()
    assert "could not be published again: 503" in caplog.text
    assert (lane.again, lane.deliveries, lane.final()) == ([], [LIMIT - 1], {})
    assert lane.subscription.free == 0, "each delivery counts: it waits until it is worth another try"
    lane.clock.advance(31)  # type: ignore[attr-defined]
    lane.work("lane-y")
    assert lane.final() == {task_id: "succeeded"}


def test_one_whose_last_delivery_pub_sub_does_not_take_is_dead_with_the_reason_not_without() -> None:
    lane = Lane()
    lane.raises(*[Snooze(0)] * 20)
    (task_id,) = lane.submit_near(deliveries=LIMIT - 1)
    lane.broker.topic("lane").fail_next("publish", DOWN)
    lane.work()
    assert lane.final() == {task_id: "dead"}
    (letter,) = lane.letters()
    assert "could not be published again: 503" in letter["dead_reason"]
    assert (lane.progress().dead, lane.subscription.backlog) == (1, 0)


def test_one_refused_message_keeps_back_no_other(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[str] = set()

    def snoozes_once(task: Task, ctx: Any) -> None:
        if task.task_id not in seen:
            seen.add(task.task_id)
            raise Snooze(60)

    lane.handler(snoozes_once)
    lane.submit_near(20)
    topic = lane.broker.topic("lane")
    publish = topic.publish

    def refuse(messages: Sequence[Outgoing]) -> list[str]:
        if any(one.attributes["task_id"] == "task-7" for one in messages):
            raise FanoutError("INVALID_ARGUMENT")
        return publish(messages)

    monkeypatch.setattr(topic, "publish", refuse)
    lane.work(MAX_MESSAGES=20, CONCURRENCY=20)
    assert len(lane.again) == 19
    assert lane.deliveries == [0] * 19 + [NEAR]


def test_messages_are_published_in_batches(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batch.worker.committing.republishing.near_net", lambda _limit: 1)
    calls: list[int] = []
    topic = lane.broker.topic("lane")
    publish = topic.publish

    def counted(messages: Sequence[Outgoing]) -> list[str]:
        calls.append(len(messages))
        return publish(messages)

    monkeypatch.setattr(topic, "publish", counted)
    stopped_with_all_waiting(lane, Worker.stop, 1500)
    assert sum(calls) == 1 + 1500 + 1500
    assert len(calls) <= 6


def test_a_topic_that_does_not_answer_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client gives up after PUBLISH_WITHIN_S; then nothing more is tried while the worker ends."""
    monkeypatch.setattr("batch.worker.committing.republishing.near_net", lambda _limit: 1)
    lane = Lane()
    calls: list[int] = []
    topic = lane.broker.topic("lane")
    publish = topic.publish

    def down(messages: Sequence[Outgoing]) -> list[str]:
        if DELAYED not in messages[0].attributes:
            return publish(messages)
        calls.append(len(messages))
        raise DOWN

    monkeypatch.setattr(topic, "publish", down)
    assert stopped_with_all_waiting(lane, Worker.stop, 100) == [ExitReason.STOPPED]
    assert len(calls) == 1
    assert lane.deliveries == [1] * 100
    assert sum(count for _, count in lane.progress().deferred) == 100


def test_the_topic_s_client_is_made_when_it_is_needed_first() -> None:
    lane = Lane()
    made: list[str] = []

    def topics(name: str) -> Any:
        made.append(name)
        return lane.broker.topic(name)

    lane.registry.task("write")(write)
    lane.submit(5)
    worker = lane.worker(MAX_MESSAGES=5)
    worker._topics = topics
    worker.run()
    assert made == []
