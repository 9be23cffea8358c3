"""Handlers, messages and services at their worst: one bad task never stops a worker, and nothing in hand is left behind."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from batch.handling.registry import Backoff
from batch.model.delivery import Outgoing
from batch.model.errors import (
    DependencyForbidden,
    DependencyMissing,
    DependencyUnavailable,
    FanoutError,
    Permanent,
    Retry,
    SettingsError,
    Snooze,
)
from batch.model.exit import ExitReason
from batch.model.message import Task
from batch.model.names import outcome_object, writer_of
from batch.services.leases import LeaseKeeper
from batch.testing import ManualClock
from tests.batch.worker.plant import Leases, Plant, ended, in_thread, write
from tests.clocks import JumpingClock
from tests.support import wait_until


@pytest.fixture
def plant() -> Iterator[Plant]:
    made = Plant()
    made.registry.task("write")(write)
    yield made
    assert made.subscription.leased == made.deferred_count, "a worker that has ended must hold nothing"


class Panic(BaseException):
    pass


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Detached:
    def __repr__(self) -> str:
        raise AttributeError("detached")


def deep() -> list[Any]:
    nested: list[Any] = []
    for _ in range(200_000):
        nested = [nested]
    return nested


def raising(make: Callable[[], BaseException]) -> Callable[[], Any]:
    def call() -> Any:
        raise make()

    return call


WILD: dict[str, tuple[Callable[[], Any], str]] = {
    "an own BaseException": (raising(lambda: Panic("rust")), "dead"),
    "KeyboardInterrupt": (raising(KeyboardInterrupt), "dead"),
    "GeneratorExit": (raising(GeneratorExit), "dead"),
    "CancelledError": (raising(asyncio.CancelledError), "dead"),
    "an error without text": (raising(Unprintable), "dead"),
    "an endless retry": (raising(lambda: Retry("x", float("inf"))), "dead"),
    "a retry after a text": (raising(lambda: Retry("x", "5")), "dead"),  # type: ignore[arg-type]
    "a snooze of nothing": (raising(lambda: Snooze(None)), "dead"),  # type: ignore[arg-type]
    "a result without repr": (lambda: {"a": Detached()}, "dead"),
    "a result too deep": (deep, "dead"),
    "a number too long": (lambda: {"n": 10**6000}, "dead"),
    "a result of 10 MB": (lambda: "x" * 10_000_000, "succeeded"),
}


@pytest.mark.parametrize("name", WILD)
def test_one_wild_task_harms_nobody(plant: Plant, name: str) -> None:
    call, outcome = WILD[name]

    @plant.registry.task("wild", retries=0)
    def wild(task: Task, ctx: Any) -> Any:
        return call() if task.task_id == "task-1" else None

    plant.submit(3, "wild")
    assert plant.worker(BACKLOG=3).run() is ExitReason.SHARE_DONE
    assert plant.final() == {"task-0": "succeeded", "task-1": outcome, "task-2": "succeeded"}


def test_an_async_handler_runs(plant: Plant) -> None:
    @plant.registry.task("later")
    async def later(task: Task, ctx: Any) -> str:
        await asyncio.sleep(0)
        written = await ctx.write("out/later", b"1")
        return str(written.name)

    plant.submit(1, "later")
    assert plant.worker(BACKLOG=1).run() is ExitReason.SHARE_DONE
    assert plant.outcomes()[0].result == "out/later"


def test_a_generator_is_no_handler(plant: Plant) -> None:
    with pytest.raises(SettingsError, match="generator"):

        @plant.registry.task("lazy")
        def lazy(task: Task, ctx: Any) -> Iterator[int]:
            yield 1


def test_a_record_of_attempts_that_cannot_be_read_counts_as_none(plant: Plant) -> None:
    plant.store.write("attempts/task-0.json", b"{}")
    plant.subscription.max_delivery_attempts = None
    plant.submit(2)
    assert plant.worker(BACKLOG=2).run() is ExitReason.SHARE_DONE
    assert set(plant.final().values()) == {"succeeded"}


def test_a_lost_answer_to_a_failure_record_spends_one_attempt(plant: Plant) -> None:
    runs: list[int] = []

    @plant.registry.task("fails", retries=1, backoff=Backoff(first_s=0))
    def fails(task: Task, ctx: Any) -> None:
        runs.append(ctx.attempt)
        raise ValueError("x")

    original = plant.store.write
    lost: list[str] = []

    def lossy_write(name: str, data: bytes, **options: Any) -> Any:
        info = original(name, data, **options)
        if name.startswith("attempts/") and not lost:
            lost.append(name)
            return original(name, data, **options)
        return info

    plant.store.write = lossy_write  # type: ignore[method-assign]
    plant.submit(1, "fails")
    assert plant.worker(MAX_MESSAGES=2).run() is ExitReason.SHARE_DONE
    assert runs == [1, 2]
    assert plant.outcomes()[0].attempt_count == 2


def test_a_task_whose_last_attempt_is_on_record_does_not_run_again(plant: Plant) -> None:
    runs: list[int] = []

    @plant.registry.task("fails", retries=0)
    def fails(task: Task, ctx: Any) -> None:
        runs.append(1)
        raise ValueError("the only one")

    plant.submit(1, "fails")
    dead_letters = plant.broker.topic("dead-letters")
    for _ in range(2):  # when it is due, and at the end
        dead_letters.fail_next("publish", DependencyMissing("gone"))
    assert plant.worker(BACKLOG=1).run() is ExitReason.BROKEN
    assert plant.worker(BACKLOG=1, CLOUD_RUN_EXECUTION="lane-y").run() is ExitReason.SHARE_DONE
    assert runs == [1]
    (outcome,) = plant.outcomes()
    assert outcome.reason == "the only one"


def test_an_early_message_goes_back_without_a_run(plant: Plant) -> None:
    runs: list[int] = []

    @plant.registry.task("fails", backoff=Backoff(first_s=300))
    def fails(task: Task, ctx: Any) -> None:
        runs.append(1)
        raise ValueError("x")

    plant.submit(1, "fails")
    plant.worker(BACKLOG=1).run()
    assert plant.progress().deferred[0][1] == 1
    plant.subscription.nack([one.ack_id for one in plant.subscription._waiting.values()])
    plant.worker(BACKLOG=1, CLOUD_RUN_EXECUTION="lane-y").run()
    assert runs == [1]
    assert plant.progress(execution="lane-y").returned == 1
    plant.deferred_count = 1


def test_a_permanent_failure_always_has_a_reason(plant: Plant) -> None:
    @plant.registry.task("never")
    def never(task: Task, ctx: Any) -> None:
        raise Permanent

    plant.submit(1, "never")
    plant.worker(BACKLOG=1).run()
    assert plant.letters()[0]["dead_reason"] == "the handler gave no reason"


@pytest.mark.parametrize("refused", ["outcomes/", "dead-letters"])
def test_a_worker_that_cannot_keep_its_outcomes_ends_soon_and_gives_all_back(plant: Plant, refused: str) -> None:
    plant.submit(3)
    plant.publish(b"junk")
    original = plant.store.write

    def write_unless(name: str, data: bytes, **options: Any) -> Any:
        if name.startswith(refused):
            raise DependencyForbidden("no")
        return original(name, data, **options)

    plant.store.write = write_unless  # type: ignore[method-assign]
    if refused == "dead-letters":
        for _ in range(3):
            plant.broker.topic("dead-letters").fail_next("publish", DependencyMissing("no topic"))
    thread, reasons = in_thread(plant.worker(BACKLOG=4, TASK_TIMEOUT_S=600))
    ended(thread)
    assert reasons == [ExitReason.BROKEN]
    good = 0 if refused == "outcomes/" else 3
    assert len(plant.final()) == good
    assert plant.subscription.backlog == 4 - good


def test_a_dead_letter_that_cannot_travel_holds_up_nobody(plant: Plant) -> None:
    topic = plant.broker.topic("dead-letters")
    original = topic.publish

    def picky(messages: Any) -> list[str]:
        if any(message.data.startswith(b"junk") for message in messages):
            raise FanoutError("INVALID_ARGUMENT")
        return original(messages)

    topic.publish = picky  # type: ignore[method-assign]
    plant.publish(b"junk", googclient_schema="x")
    plant.publish(b"other")
    plant.submit(5)
    assert plant.worker(BACKLOG=7).run() is ExitReason.SHARE_DONE
    assert sorted(plant.final().values()) == ["dead", "dead", *["succeeded"] * 5]
    (raw,) = plant.store.names("dead/raw/")
    assert plant.store.read(raw) == b"junk"
    assert [message.data for _, message in topic.published] == [b"other"]


def test_data_too_large_for_a_letter_lies_in_the_bucket(plant: Plant) -> None:
    data = b"x" * 9_000_000
    plant.broker.topic("lane").publish([Outgoing(data, {f"k{number}": "v" for number in range(100)})])
    assert plant.worker(BACKLOG=1).run() is ExitReason.SHARE_DONE
    ((_, letter),) = plant.broker.topic("dead-letters").published
    assert letter.data == b""
    assert plant.store.read(letter.attributes["dead_raw"]) == data
    assert letter.attributes["dead_error_type"] == "not_json"
    assert len(letter.attributes) <= 100


def test_a_refused_letter_whose_data_is_in_the_bucket_leaves_it_there_whole(plant: Plant) -> None:
    plant.broker.topic("lane").publish([Outgoing(b"x" * 9_000_000, {})])
    plant.broker.topic("dead-letters").fail_next("publish", FanoutError("INVALID_ARGUMENT"))
    assert plant.worker(BACKLOG=1).run() is ExitReason.SHARE_DONE
    (raw,) = plant.store.names("dead/raw/")
    assert len(plant.store.read(raw)) == 9_000_000
    assert plant.broker.topic("dead-letters").unmet() == []


def test_a_worker_holds_no_more_than_it_can_start(plant: Plant) -> None:
    may_end = threading.Event()

    @plant.registry.task("long")
    def long(task: Task, ctx: Any) -> None:
        may_end.wait(60)

    plant.submit(8, "long")
    worker = plant.worker(MAX_MESSAGES=100, CONCURRENCY=4, PREFETCH_S="0.1")
    thread, _ = in_thread(worker)
    wait_until(lambda: worker._executors.busy_count == 4, 60, "four busy slots")
    held = plant.subscription.leased
    worker.stop()
    may_end.set()
    ended(thread)
    assert held == 4


def test_nothing_waits_behind_a_slow_task(plant: Plant) -> None:
    """Quick tasks are taken in lists; one slow one among them keeps neither the rest of its list nor what is finished."""
    may_end = threading.Event()

    @plant.registry.task("mixed")
    def mixed(task: Task, ctx: Any) -> None:
        if task.task_id == "task-150":
            may_end.wait(60)

    plant.submit(400, "mixed")
    worker = plant.worker(BACKLOG=400, CONCURRENCY=2)
    thread, reasons = in_thread(worker)
    wait_until(lambda: worker.tally.acked == 399, 60, "all but the slow one acknowledged")
    may_end.set()
    ended(thread)
    assert reasons == [ExitReason.SHARE_DONE]


@pytest.mark.usefixtures("begun_late")
@pytest.mark.slow
def test_the_end_gives_back_a_list_behind_a_stuck_task(plant: Plant) -> None:
    forever = threading.Event()

    @plant.registry.task("mixed")
    def mixed(task: Task, ctx: Any) -> None:
        if int(task.task_id.split("-")[1]) % 50 == 30:
            forever.wait(20)

    plant.submit(200, "mixed")
    assert plant.worker(BACKLOG=200, CONCURRENCY=2, TASK_TIMEOUT_S=2, PREFETCH_S="0.2").run() is ExitReason.OUT_OF_TIME
    forever.set()
    progress = plant.progress()
    assert progress.taken == progress.acked + progress.returned


def test_a_stop_while_out_of_time_is_heard(plant: Plant) -> None:
    may_end = threading.Event()

    @plant.registry.task("slow")
    def slow(task: Task, ctx: Any) -> None:
        may_end.wait(30)

    plant.submit(1, "slow")
    worker = plant.worker(MAX_MESSAGES=5, TASK_TIMEOUT_S=100)
    worker.tally.longest_s = 1e6  # nothing would be in time any more: pulling ends halfway, which the next line makes now
    worker._bounds = worker.shutdown.bounds = replace(worker._bounds, started_s=worker._bounds.started_s - 45.0)
    thread, reasons = in_thread(worker)
    wait_until(lambda: worker._runner.stopping.is_set(), 60, "the end of pulling")
    worker.stop()
    until_s = worker.shutdown.until_s(ExitReason.OUT_OF_TIME)()
    may_end.set()
    ended(thread)
    assert reasons == [ExitReason.OUT_OF_TIME]
    assert worker.shutdown.asked_s is not None
    assert until_s == pytest.approx(worker.shutdown.asked_s + 7.0)


def test_failures_of_one_round_go_back_in_few_calls(plant: Plant) -> None:
    has_failed = threading.Semaphore(0)

    @plant.registry.task("fails", backoff=Backoff(first_s=10))
    def fails(task: Task, ctx: Any) -> None:
        has_failed.release()
        raise ValueError("x" * int(task.task_id.removeprefix("task-")))  # no common error

    calls: list[int] = []
    original = plant.subscription.nack

    def counting(ack_ids: Any, after_s: float = 0.0) -> list[str]:
        if not calls:
            assert all(has_failed.acquire(timeout=60) for _ in range(200)), "while one call is under way all others fail"
        calls.append(len(ack_ids))
        return original(ack_ids, after_s)

    plant.subscription.nack = counting  # type: ignore[method-assign]
    plant.submit(200, "fails")
    plant.worker(BACKLOG=200).run()
    assert sum(calls) == 200
    assert len(calls) < 50
    plant.deferred_count = 200


def test_a_small_share_can_show_that_a_service_is_down(plant: Plant) -> None:
    @plant.registry.task("down")
    def down(task: Task, ctx: Any) -> None:
        raise DependencyUnavailable("the database is down")

    plant.submit(5, "down")
    assert plant.worker(BACKLOG=5).run() is ExitReason.BROKEN
    plant.deferred_count = 5


def test_services_that_recover_do_not_open_the_breaker(plant: Plant) -> None:
    @plant.registry.task("sometimes")
    def sometimes(task: Task, ctx: Any) -> None:
        if int(task.task_id.split("-")[1]) % 2:
            raise DependencyUnavailable("once in a while")

    plant.submit(80, "sometimes")
    assert plant.worker(BACKLOG=80, CONCURRENCY=1).run() is ExitReason.SHARE_DONE
    plant.deferred_count = 40


def test_a_fault_while_pulling_gives_back_what_is_in_hand(plant: Plant) -> None:
    may_end = threading.Event()

    @plant.registry.task("long")
    def long(task: Task, ctx: Any) -> None:
        may_end.wait(1)

    plant.submit(10, "long")
    original = plant.subscription.pull
    pulls: list[int] = []

    def faulty(max_messages: int, timeout_s: float) -> Any:
        pulls.append(max_messages)
        if len(pulls) == 2:
            may_end.set()
            raise RuntimeError("a fault of ours")
        return original(max_messages, timeout_s)

    plant.subscription.pull = faulty  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="a fault of ours"):
        plant.worker(MAX_MESSAGES=20).run()
    assert plant.progress().exit_reason == "broken"


def test_an_extension_that_is_refused_does_not_end_the_keeping_of_leases() -> None:
    clock = JumpingClock()
    plant = Plant(clock, ack_deadline_s=20.0)
    leases = Leases(plant, clock)
    runs: list[str] = []

    @plant.registry.task("long")
    def long(task: Task, ctx: Any) -> None:
        runs.append(task.task_id)
        leases.outlive(2)

    plant.subscription.fail_next("extend", FanoutError("FAILED_PRECONDITION"))
    plant.submit(1, "long")
    plant.worker(MAX_MESSAGES=10).run()
    assert runs == ["task-0"]


def test_an_extension_under_way_does_not_take_back_what_was_handed_back() -> None:
    clock = ManualClock()
    plant = Plant(clock=clock)
    plant.submit(1)
    (delivery,) = plant.subscription.pull(1, 0)
    keeper = LeaseKeeper(plant.subscription, clock, random.Random(1), lambda _error: None)
    keeper.hold([delivery.ack_id], clock.monotonic())
    clock.advance(40)
    original = plant.subscription.extend

    def overtaken(ack_ids: Any, deadline_s: float) -> list[str]:
        keeper.forget(ack_ids, 0.0)
        plant.subscription.nack(ack_ids)
        return original(ack_ids, deadline_s)

    plant.subscription.extend = overtaken  # type: ignore[method-assign]
    keeper.extend_due()
    assert [one.message_id for one in plant.subscription.pull(1, 0)] == [delivery.message_id]


def test_acks_that_are_lost_count_as_given_back(plant: Plant) -> None:
    plant.submit(4)
    original = plant.subscription.ack
    calls: list[int] = []

    def lossy(ack_ids: Any) -> list[str]:
        calls.append(len(ack_ids))
        if len(calls) > 1:
            return original(ack_ids)
        plant.subscription.nack(ack_ids)
        return list(ack_ids)

    plant.subscription.ack = lossy  # type: ignore[method-assign]
    assert plant.worker(MAX_MESSAGES=8).run() is not ExitReason.BROKEN
    progress = plant.progress()
    assert progress.acked == 4
    assert progress.returned == calls[0]
    assert plant.subscription.backlog == 0


def test_an_outcome_object_of_somebody_else_is_not_taken_for_ours(plant: Plant) -> None:
    writer, now = writer_of("lane-x", 0, 0), plant.clock.now()
    theirs = [outcome_object("s-1", at, writer, 0) for at in (now, now + 60)]
    for name in theirs:
        plant.store.write(name, b"of another\n")
    ids = plant.submit(2)
    assert plant.worker(BACKLOG=2).run() is ExitReason.SHARE_DONE
    lines = b"".join(plant.store.read(name) for name in plant.store.names("outcomes/s-1/") if name not in theirs)
    assert all(one.encode() in lines for one in ids)
