"""Tasks that must wait: none runs before its time, none is lost, and one that waits for hours leaves the subscription meanwhile."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from batch.handling.registry import Backoff, Handler
from batch.model.delayed import DELAYED, as_outgoing, from_object
from batch.model.delivery import MAX_EXTENSION_S, Delivery, Outgoing
from batch.model.errors import MAX_WAIT_S, DependencyForbidden, DependencyUnavailable, PreconditionFailed, Retry, Snooze
from batch.model.exit import ExitReason
from batch.model.message import Task, rolling_shard
from batch.model.names import delayed_folder, delayed_object, delayed_parts
from batch.model.outcomes import from_lines
from batch.services.leases import LeaseKeeper
from batch.testing import ManualClock, MemoryBroker, MemoryObjectStore
from batch.worker.admission.records import read_attempts, write_attempts
from batch.worker.attempt import Attempt, Delayed, Nack, later
from batch.worker.committing.delaying import WRITES_IN_FLIGHT, Delaying
from batch.worker.tally import Tally
from tests.batch.worker.plant import Plant
from tests.clocks import ShiftedClock

FOLDER = delayed_folder("lane")
DOWN = DependencyUnavailable("503")
NOW = 1_767_225_600.0


# --- which wait is for Pub/Sub and which for the bucket


def attempt(delivery: Delivery | None = None) -> Attempt:
    delivery = delivery or Delivery("ack-1", "1", b"{}", {}, NOW, 1)
    return Attempt(delivery, Task(f"id-{delivery.message_id}", "t", ""), Handler("t", print), None, 0.0, 0.0)


@pytest.mark.parametrize(("wait_s", "after_s"), [(-5.0, 0.0), (0.0, 0.0), (0.5, 0.5), (600.0, 600.0)])
def test_pubsub_holds_back_what_it_can(wait_s: float, after_s: float) -> None:
    one = attempt()
    assert later(one, NOW + wait_s, NOW) == Nack(one, after_s, not_before=NOW + wait_s)


@pytest.mark.parametrize("wait_s", [600.5, 3600.0, MAX_WAIT_S])
def test_longer_waits_are_parked(wait_s: float) -> None:
    found = later(attempt(), NOW + wait_s, NOW)
    assert isinstance(found, Delayed)
    assert (found.ack_id, found.not_before) == ("ack-1", NOW + wait_s)


def test_a_time_that_nobody_can_have_asked_for_is_looked_at_again_in_a_month() -> None:
    found = later(attempt(), 9e10, NOW)
    assert isinstance(found, Delayed)
    assert found.not_before == NOW + MAX_WAIT_S


# --- the delaying itself


class Place:
    """A lane with messages in hand, and its delaying."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = MemoryObjectStore(clock=self.clock)
        self.broker = MemoryBroker(self.clock)
        self.subscription = self.broker.subscription("lane", "lane", max_delivery_attempts=100)
        self.leases = LeaseKeeper(self.subscription, self.clock, random.Random(1), print)
        self.tally = Tally(self.clock, 10_000)
        self.beats: list[None] = []
        self.delaying = Delaying(self.store, self.subscription, self.leases, self.tally, lambda: self.beats.append(None))

    def take(self, count: int, data: bytes = b"{}", *, wait_s: float = 3600.0, on_record: bool = True) -> list[Delayed]:
        self.broker.topic("lane").publish([Outgoing(data, {"color": "red"})] * count)
        taken = self.subscription.pull(count, 1)
        self.tally.took(len(taken))
        not_before = self.clock.now() + wait_s
        return [Delayed(attempt(one), not_before, on_record) for one in taken]

    def delayed(self) -> list[tuple[int, str]]:
        return [parts for parts in map(delayed_parts, self.store.names(FOLDER)) if parts]


@pytest.fixture
def place() -> Iterator[Place]:
    made = Place()
    yield made
    assert made.store.unmet() == []
    assert made.subscription.unmet() == []


@pytest.mark.parametrize("data", [b"", bytes(range(256)), b"x" * 9_000_000], ids=["empty", "binary", "9 MB"])
def test_the_message_stands_in_the_bucket_unchanged_before_it_is_acknowledged(
    place: Place, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one,) = place.take(1, data)
    ack = place.subscription.ack

    def ack_after_writing(ack_ids: Sequence[str]) -> list[str]:
        (name,) = place.store.names(FOLDER)
        message = from_object(place.store.read(name))
        assert (message.data, dict(message.attributes)) == (data, dict(one.attempt.delivery.attributes))
        return ack(ack_ids)

    monkeypatch.setattr(place.subscription, "ack", ack_after_writing)
    assert place.delaying.delay([one]) == {}
    assert place.subscription.backlog == 0
    assert place.delayed() == [(int(one.not_before), one.attempt.task.task_id)]
    progress = place.tally.progress()
    assert (progress.taken, progress.acked, progress.delayed, progress.returned, progress.deferred) == (1, 1, 1, 0, ())


def test_a_lost_answer_counts_as_parked(place: Place) -> None:
    (one,) = place.take(1)
    place.store.fail_next("write", PreconditionFailed("the client's own retry met its object", 0), after_effect=True)
    assert place.delaying.delay([one]) == {}
    (before,) = place.store.list(FOLDER)
    assert place.delaying.delay([one]) == {}  # the same message once more: a redelivery
    assert list(place.store.list(FOLDER)) == [before], "a controller may be about to delete this very generation"
    assert place.subscription.backlog == 0


def test_what_stands_in_the_way_is_replaced(place: Place) -> None:
    (one,) = place.take(1)
    name = delayed_object("lane", one.not_before, one.attempt.task.task_id, one.attempt.delivery.message_id)
    place.store.write(name, b"rubbish")
    assert place.delaying.delay([one]) == {}
    assert from_object(place.store.read(name)).data == b"{}"


def test_what_cannot_be_written_is_not_acknowledged_and_no_more_are_begun(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = place.take(100)
    writes: list[str] = []

    def down(name: str, *_: Any, **__: Any) -> None:
        writes.append(name)
        raise DOWN

    monkeypatch.setattr(place.store, "write", down)
    assert place.delaying.delay(taken) == {one.ack_id: "503" for one in taken}
    assert (place.subscription.backlog, place.tally.outstanding) == (100, 100)
    assert len(writes) <= WRITES_IN_FLIGHT


def test_one_that_was_written_stays_written_when_others_fail(place: Place) -> None:
    taken = place.take(3)
    place.store.fail_next("write", DOWN)
    failed = place.delaying.delay(taken)
    assert 1 <= len(failed) <= 3
    assert place.subscription.backlog == len(failed) == 3 - len(place.delayed())


def test_many_are_written_at_a_time(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(WRITES_IN_FLIGHT)
    write = place.store.write

    def meeting(*arguments: Any, **more: Any) -> Any:
        together.wait(timeout=60)
        return write(*arguments, **more)

    monkeypatch.setattr(place.store, "write", meeting)
    taken = place.take(WRITES_IN_FLIGHT * 3)
    assert place.delaying.delay(taken) == {}
    assert len(place.delayed()) == len(place.beats) == len(taken)


@pytest.mark.parametrize("lost", ["refused", "no answer"])
@pytest.mark.parametrize("on_record", [True, False])
def test_a_lost_acknowledgement_leaves_a_note_where_nothing_else_tells_the_time(
    place: Place, lost: str, on_record: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one,) = place.take(1, on_record=on_record)
    if lost == "refused":
        monkeypatch.setattr(place.subscription, "ack", list)
    else:
        place.subscription.fail_next("ack", DOWN)
    assert place.delaying.delay([one]) == {}
    assert read_attempts(place.store, one.attempt.task.task_id)[0].not_before == (0.0 if on_record else one.not_before)
    progress = place.tally.progress()
    assert (progress.acked, progress.delayed, progress.returned) == (0, 0, 1)


# --- a worker


@pytest.fixture
def plant() -> Iterator[Plant]:
    made = Plant(clock=ShiftedClock())
    yield made
    assert made.subscription.leased == made.deferred_count, "a worker that has ended must hold nothing"


def clock_of(plant: Plant) -> ShiftedClock:
    assert isinstance(plant.clock, ShiftedClock)
    return plant.clock


class Seen:
    """A handler that raises `error` at first, and notes each of its runs: (attempt, seconds since the first)."""

    def __init__(self, plant: Plant, *errors: Exception, retries: int = 5, backoff: Backoff | None = None) -> None:
        self.runs: list[tuple[int, float]] = []
        self.ids: set[str] = set()
        left = list(errors)
        began = plant.clock.now()

        @plant.registry.task("wait", retries=retries, backoff=backoff)
        def wait(task: Task, ctx: Any) -> None:
            self.runs.append((ctx.attempt, ctx.now() - began))
            self.ids.add(task.task_id)
            if left:
                raise left.pop(0)


def work(plant: Plant, name: str = "lane-x", **settings: object) -> ExitReason:
    return plant.worker(MAX_MESSAGES=100, CLOUD_RUN_EXECUTION=name, DRAIN_AFTER_S=0, **settings).run()


def republish(plant: Plant) -> int:
    """What the controller's tick does."""
    due = [name for name in plant.store.names(FOLDER) if (delayed_parts(name) or (0, ""))[0] <= plant.clock.now()]
    for name in due:
        parts = delayed_parts(name)
        assert parts is not None
        plant.broker.topic("lane").publish([as_outgoing(from_object(plant.store.read(name)), parts[0])])
        plant.store.delete(name)
    return len(due)


@pytest.mark.parametrize(
    ("error", "backoff", "attempts"),
    [
        (Retry("later", 3600), None, 2),
        (ValueError("once"), Backoff(first_s=3600, max_s=7200), 2),
        (Snooze(3600), None, 1),
    ],
    ids=["retry", "backoff", "snooze"],
)
def test_a_long_wait_is_spent_in_the_bucket(plant: Plant, error: Exception, backoff: Backoff | None, attempts: int) -> None:
    seen = Seen(plant, error, backoff=backoff)
    ids = plant.submit(1, "wait")
    assert work(plant) is ExitReason.DRAINED
    assert (plant.subscription.backlog, plant.final(), len(plant.store.names(FOLDER))) == (0, {}, 1)
    progress = plant.progress()
    assert (progress.acked, progress.delayed, progress.returned, progress.deferred) == (1, 1, 0, ())
    assert len(plant.store.names("attempts/")) == attempts - 1
    clock_of(plant).advance(3500)
    assert republish(plant) == 0
    clock_of(plant).advance(600)
    assert republish(plant) == 1
    work(plant, "lane-y")
    assert [number for number, _ in seen.runs] == [1, attempts]
    assert seen.runs[1][1] >= 3600
    assert plant.final() == dict.fromkeys(ids, "succeeded")


def test_a_task_without_an_id_or_a_shard_is_the_same_task_afterwards(plant: Plant) -> None:
    seen = Seen(plant, Retry("a", 3600), Retry("b", 3600))
    plant.publish(json.dumps({"task_type": "wait"}).encode("utf-16"), color="red")
    for number in range(3):
        work(plant, f"lane-{number}")
        clock_of(plant).advance(3700)
        republish(plant)
    assert ([number for number, _ in seen.runs], seen.ids) == ([1, 2, 3], {"message-1"})
    (shard,) = {name.split("/")[1] for name in plant.store.names("outcomes/")}
    first_published = [message for _, message in plant.broker.topic("lane").published][-1].attributes[DELAYED].split()[1]
    (outcome,) = [one for name in plant.store.names("outcomes/") for one in from_lines(plant.store.read(name))]
    assert (outcome.message_id, outcome.attempt_count) == ("1", 3)
    assert shard == rolling_shard("lane", float(first_published))


@pytest.mark.parametrize("error", [Retry("later", 3600), Snooze(3600)], ids=["retry", "snooze"])
def test_a_worker_whose_acknowledgement_was_lost_does_not_make_the_task_run_early(
    plant: Plant, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Seen(plant, error)
    plant.submit(1, "wait")
    with monkeypatch.context() as patch:
        patch.setattr(plant.subscription, "ack", list)
        work(plant)
    assert plant.subscription.backlog == 1
    clock_of(plant).advance(61)
    work(plant, "lane-y")
    assert len(seen.runs) == 1
    assert (plant.subscription.backlog, len(plant.store.names(FOLDER))) == (0, 1)
    assert plant.progress(execution="lane-y").delayed == 1


@pytest.mark.parametrize("error", [Retry("later", 300), Snooze(300)], ids=["retry", "snooze"])
@pytest.mark.parametrize("how", ["refused", "no answer"])
def test_a_failed_hand_back_does_not_make_the_task_run_early(
    plant: Plant, error: Exception, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Seen(plant, error)
    plant.submit(1, "wait")
    with monkeypatch.context() as patch:
        if how == "refused":
            patch.setattr(plant.subscription, "nack", lambda ack_ids, _after_s=0.0: list(ack_ids))
        else:
            plant.subscription.fail_next("nack", DOWN)
        work(plant)
    assert sum(count for _, count in plant.progress().deferred) == (how == "no answer")
    clock_of(plant).advance(61)  # its lease has ended
    work(plant, "lane-y")
    assert len(seen.runs) == 1
    assert sum(count for _, count in plant.progress(execution="lane-y").deferred) == 1
    clock_of(plant).advance(240)
    work(plant, "lane-z")
    assert [at >= 299 for _, at in seen.runs] == [False, True]
    assert plant.subscription.backlog == 0


def test_a_healthy_snooze_writes_nothing(plant: Plant) -> None:
    Seen(plant, Snooze(300))
    plant.submit(1, "wait")
    work(plant)
    assert [name for name in plant.store.names() if not name.startswith("workers/")] == []
    plant.deferred_count = 1


def test_a_bucket_that_takes_no_parked_task_hands_them_back_and_loses_none(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Seen(plant, *[Retry(f"later than {name}", 3600) for name in ("one", "two", "three", "four", "five")])
    plant.submit(5, "wait")
    write = plant.store.write

    def refuse(name: str, data: bytes, **more: Any) -> Any:
        if name.startswith("delayed/"):
            raise DependencyForbidden("objects.create is refused")
        return write(name, data, **more)

    with monkeypatch.context() as patch:
        patch.setattr(plant.store, "write", refuse)
        work(plant, BACKLOG=5)
    progress = plant.progress()
    assert (plant.subscription.backlog, progress.delayed, progress.returned) == (5, 0, 5)
    assert sum(count for _, count in progress.deferred) == 5
    clock_of(plant).advance(MAX_EXTENSION_S + 1)
    work(plant, "lane-y")
    assert (len(seen.runs), len(plant.store.names(FOLDER)), plant.subscription.backlog) == (5, 5, 0)


def test_a_message_that_comes_too_early_from_the_bucket_waits(plant: Plant) -> None:
    """A controller whose clock is ahead."""
    seen = Seen(plant, Snooze(3600))
    plant.submit(1, "wait")
    work(plant)
    clock_of(plant).advance(3100)
    (name,) = plant.store.names(FOLDER)
    parts = delayed_parts(name)
    assert parts is not None
    plant.broker.topic("lane").publish([as_outgoing(from_object(plant.store.read(name)), parts[0])])
    plant.store.delete(name)
    work(plant, "lane-y")
    assert (len(seen.runs), plant.subscription.backlog) == (1, 1)
    clock_of(plant).advance(601)
    work(plant, "lane-z")
    assert len(seen.runs) == 2


@pytest.mark.parametrize("value", ["soon", "9999999999 1.0", "0000000001 1.000000 ../../x", "\x00"])
def test_what_a_client_writes_into_our_attribute_does_no_harm(plant: Plant, value: str) -> None:
    seen = Seen(plant)
    plant.publish(b'{"task_type": "wait"}', **{DELAYED: value})
    work(plant)
    assert (len(seen.runs), seen.ids, plant.subscription.backlog) == (1, {"message-1"}, 0)


def test_a_damaged_record_does_not_park_a_task_for_ever(plant: Plant) -> None:
    Seen(plant)
    (task_id,) = plant.submit(1, "wait")
    known, generation = read_attempts(plant.store, task_id)
    write_attempts(plant.store, task_id, replace(known, not_before=9e10), generation)
    plant.subscription.nack([plant.subscription.pull(1, 1)[0].ack_id])
    now = plant.clock.now()
    work(plant)
    ((due, _),) = [parts for parts in map(delayed_parts, plant.store.names(FOLDER)) if parts]
    assert due <= now + MAX_WAIT_S + 60
