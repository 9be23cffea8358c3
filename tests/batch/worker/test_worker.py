"""A whole worker on the in-memory twins, with real threads: what it takes, what it leaves, and how it ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from batch.handling.registry import Backoff
from batch.model.errors import DependencyForbidden, DependencyMissing, DependencyUnavailable, Permanent, Snooze
from batch.model.exit import ExitReason
from batch.model.message import Task
from batch.model.names import claim_object
from tests.batch.worker.plant import SHARD, Leases, Plant, ended, in_thread, write
from tests.clocks import JumpingClock


@pytest.fixture
def plant() -> Iterator[Plant]:
    made = Plant()
    made.registry.task("write")(write)
    yield made
    assert made.store.unmet() == []
    assert made.subscription.unmet() == []
    assert made.subscription.leased == made.deferred_count, "a worker that has ended must hold nothing"


def test_takes_its_share_and_ends(plant: Plant) -> None:
    ids = plant.submit(40)
    assert plant.worker(BACKLOG=40).run() is ExitReason.SHARE_DONE
    assert plant.final() == dict.fromkeys(ids, "succeeded")
    assert plant.subscription.backlog == 0
    assert len(plant.store.names("out/")) == 40
    progress = plant.progress()
    assert (progress.share, progress.taken, progress.acked, progress.returned, progress.exit_reason) == (40, 40, 40, 0, "share_done")


def test_shares_of_an_execution_sum_to_what_was_assigned(plant: Plant) -> None:
    plant.submit(50)
    running = [in_thread(plant.worker(BACKLOG=50, CLOUD_RUN_TASK_COUNT=4, CLOUD_RUN_TASK_INDEX=index)) for index in range(4)]
    for thread, _ in running:
        ended(thread)
    shares = [plant.progress(index) for index in range(4)]
    assert [one.taken for one in shares] == [13, 13, 12, 12] == [one.share for one in shares]
    assert plant.subscription.backlog == 0


def test_a_manual_worker_takes_at_most_max_messages(plant: Plant) -> None:
    plant.submit(30)
    assert plant.worker(MAX_MESSAGES=10).run() is ExitReason.SHARE_DONE
    assert plant.progress().taken == 10
    assert plant.subscription.backlog == 20


def test_an_empty_subscription_is_drained(plant: Plant) -> None:
    assert plant.worker().run() is ExitReason.DRAINED
    assert plant.progress().exit_reason == "drained"


def test_drained_after_work_leaves_nothing(plant: Plant) -> None:
    plant.submit(5)
    assert plant.worker(MAX_MESSAGES=1000).run() is ExitReason.DRAINED
    assert plant.subscription.backlog == 0
    assert len(plant.final()) == 5


def test_the_same_message_twice_gives_one_output_and_one_outcome_in_the_proof(plant: Plant) -> None:
    plant.subscription.duplicate_next(10)
    ids = plant.submit(10)
    assert plant.worker(MAX_MESSAGES=20).run() is ExitReason.SHARE_DONE
    assert len(plant.outcomes()) == 20
    assert plant.final() == dict.fromkeys(ids, "succeeded")
    assert len(plant.store.names("out/")) == 10


@pytest.mark.parametrize(
    ("data", "kind", "task_id"),
    [
        (b"not json", "not_json", "message-1"),
        (b"[1]", "not_an_object", "message-1"),
        (b"", "not_json", "message-1"),
        (b'{"task_id":"t-9","filename":"a"}', "no_task_type", "t-9"),
        (b'{"task_id":"t-9","task_type":"writ"}', "unknown_task_type", "t-9"),
        (b"\xff\xfe", "not_json", "message-1"),
    ],
)
def test_a_message_that_is_no_task_is_dead_with_its_bytes_unchanged(plant: Plant, data: bytes, kind: str, task_id: str) -> None:
    plant.publish(data, colour="red")
    ids = plant.submit(3)
    assert plant.worker(BACKLOG=4).run() is ExitReason.SHARE_DONE
    (letter,) = plant.broker.topic("dead-letters").published
    assert letter[1].data == data
    assert letter[1].attributes["colour"] == "red"
    assert letter[1].attributes["dead_error_type"] == kind
    assert letter[1].attributes["task_id"] == task_id
    assert letter[1].attributes["dead_reason"]
    assert plant.final() == {**dict.fromkeys(ids, "succeeded"), task_id: "dead"}
    assert plant.subscription.backlog == 0


def test_a_failing_task_is_tried_again_by_its_backoff_and_then_dead(plant: Plant) -> None:
    @plant.registry.task("fails", retries=2, backoff=Backoff(first_s=0))
    def fails(task: Task, ctx: Any) -> None:
        raise ValueError(f"attempt {ctx.attempt} of {task.task_id}")

    plant.submit(1, "fails")
    assert plant.worker(MAX_MESSAGES=3).run() is ExitReason.SHARE_DONE
    (outcome,) = plant.outcomes()
    assert (outcome.outcome, outcome.attempt_count, outcome.error_type) == ("dead", 3, "ValueError")
    assert "attempt 3 of task-0" in outcome.reason
    (letter,) = plant.letters()
    assert letter["dead_attempt_count"] == "3"
    progress = plant.progress()
    assert (progress.taken, progress.acked, progress.returned) == (3, 1, 2)


def test_a_permanent_failure_is_dead_at_once(plant: Plant) -> None:
    @plant.registry.task("never")
    def never(task: Task, ctx: Any) -> None:
        raise Permanent("the customer is gone")

    plant.submit(1, "never")
    assert plant.worker(BACKLOG=1).run() is ExitReason.SHARE_DONE
    (letter,) = plant.letters()
    assert (letter["dead_error_type"], letter["dead_reason"], letter["dead_attempt_count"]) == ("permanent", "the customer is gone", "1")
    assert plant.store.names("attempts/") == ()


def test_snooze_spends_no_attempt(plant: Plant) -> None:
    seen: list[int] = []

    @plant.registry.task("later", retries=0)
    def later(task: Task, ctx: Any) -> None:
        seen.append(ctx.attempt)
        if len(seen) < 4:
            raise Snooze(0)

    ids = plant.submit(1, "later")
    assert plant.worker(MAX_MESSAGES=4).run() is ExitReason.SHARE_DONE
    assert seen == [1, 1, 1, 1]
    assert plant.final() == dict.fromkeys(ids, "succeeded")


def test_a_handler_that_exits_or_recurses_does_not_stop_the_worker(plant: Plant) -> None:
    @plant.registry.task("wild", retries=0)
    def wild(task: Task, ctx: Any) -> None:
        if task.task_id == "task-0":
            raise SystemExit(3)
        wild(task, ctx)

    plant.submit(2, "wild")
    assert plant.worker(BACKLOG=2).run() is ExitReason.SHARE_DONE
    assert sorted(one.error_type for one in plant.outcomes()) == ["RecursionError", "SystemExit"]


def test_the_second_execution_of_a_decision_is_fenced(plant: Plant) -> None:
    plant.submit(4)
    first = plant.worker(BACKLOG=4, CLOUD_RUN_TASK_COUNT=2, DECISION_ID="d-1.0")
    assert first.run() is ExitReason.SHARE_DONE
    other = plant.worker(BACKLOG=4, CLOUD_RUN_TASK_COUNT=2, DECISION_ID="d-1.0", CLOUD_RUN_EXECUTION="lane-y")
    assert other.run() is ExitReason.NOT_CLAIMED
    second = plant.worker(BACKLOG=4, CLOUD_RUN_TASK_COUNT=2, CLOUD_RUN_TASK_INDEX=1, DECISION_ID="d-1.0")
    assert second.run() is ExitReason.SHARE_DONE
    assert b"lane-x" in plant.store.read(claim_object("d-1.0"))
    assert plant.subscription.backlog == 0


def test_a_retry_takes_what_its_first_try_left_of_the_share(plant: Plant) -> None:
    plant.submit(10)
    assert plant.worker(MAX_MESSAGES=4).run() is ExitReason.SHARE_DONE
    assert plant.worker(MAX_MESSAGES=7, CLOUD_RUN_TASK_ATTEMPT=1).run() is ExitReason.SHARE_DONE
    assert plant.progress(retry=1).taken == 3
    assert plant.subscription.backlog == 3


def test_a_missing_subscription_is_broken_and_says_so(plant: Plant) -> None:
    plant.subscription.fail_next("pull", DependencyMissing("subscription lane does not exist"))
    assert plant.worker().run() is ExitReason.BROKEN
    assert plant.progress().exit_reason == "broken"


def test_a_retry_of_a_broken_worker_ends_at_once(plant: Plant) -> None:
    plant.subscription.fail_next("pull", DependencyMissing("subscription lane does not exist"))
    plant.worker().run()
    plant.submit(3)
    assert plant.worker(CLOUD_RUN_TASK_ATTEMPT=1).run() is ExitReason.BROKEN
    assert plant.progress(retry=1).taken == 0


def test_a_bucket_that_may_not_be_written_takes_no_message(plant: Plant) -> None:
    plant.submit(3)
    plant.store.fail_next("write", DependencyForbidden("no"))
    assert plant.worker().run() is ExitReason.BROKEN
    assert plant.subscription.backlog == 3


def test_a_pull_that_fails_for_a_moment_is_tried_again(plant: Plant) -> None:
    ids = plant.submit(3)
    plant.subscription.fail_next("pull", DependencyUnavailable("busy"))
    assert plant.worker(BACKLOG=3).run() is ExitReason.SHARE_DONE
    assert set(plant.final()) == set(ids)


def test_a_dependency_that_is_down_for_all_ends_broken_and_spends_no_attempt(plant: Plant) -> None:
    @plant.registry.task("denied", retries=0)
    def denied(task: Task, ctx: Any) -> None:
        raise DependencyForbidden("the bucket is closed")

    plant.submit(100, "denied")
    assert plant.worker(MAX_MESSAGES=1000).run() is ExitReason.BROKEN
    plant.deferred_count = sum(count for _, count in plant.progress().deferred)
    assert plant.deferred_count >= 20
    assert plant.outcomes() == []
    assert plant.letters() == []
    assert plant.store.names("attempts/") == ()
    assert plant.subscription.backlog == 100


def test_stop_finishes_what_runs_and_hands_back_what_has_not_started(plant: Plant) -> None:
    started, may_end = threading.Semaphore(0), threading.Event()

    @plant.registry.task("slow")
    def slow(task: Task, ctx: Any) -> None:
        started.release()
        assert may_end.wait(60)

    plant.submit(20, "slow")
    worker = plant.worker(MAX_MESSAGES=100, CONCURRENCY=2)
    thread, reasons = in_thread(worker)
    assert started.acquire(timeout=60)
    assert started.acquire(timeout=60)
    worker.stop()
    may_end.set()
    ended(thread)
    assert reasons == [ExitReason.STOPPED]
    assert len(plant.final()) == 2
    assert plant.subscription.backlog == 18
    assert plant.subscription.leased == 0


def test_out_of_time_hands_back_and_flushes(plant: Plant) -> None:
    @plant.registry.task("steady")
    def steady(task: Task, ctx: Any) -> None:
        ctx.sleep(0.1)

    plant.submit(500, "steady")
    assert plant.worker(MAX_MESSAGES=1000, CONCURRENCY=2, TASK_TIMEOUT_S=2, PREFETCH_S="0.2").run() is ExitReason.OUT_OF_TIME
    done = len(plant.final())
    assert 0 < done < 500
    assert plant.subscription.backlog == 500 - done


@pytest.mark.usefixtures("begun_late")
def test_a_stuck_handler_cannot_hold_the_worker(plant: Plant) -> None:
    forever = threading.Event()

    @plant.registry.task("stuck")
    def stuck(task: Task, ctx: Any) -> None:
        forever.wait()

    plant.submit(1, "stuck")
    assert plant.worker(BACKLOG=1, TASK_TIMEOUT_S=2, PREFETCH_S="0.2").run() is ExitReason.OUT_OF_TIME
    assert plant.outcomes() == []
    assert plant.subscription.backlog == 1
    forever.set()


def test_a_flush_that_fails_is_repeated_before_anything_is_acknowledged(plant: Plant) -> None:
    ids = plant.submit(4)

    failures = ["first", "second"]
    original = plant.store.write

    def failing_write(name: str, data: bytes, **options: Any) -> Any:
        if name.startswith("outcomes/") and failures:
            failures.pop()
            assert plant.subscription.backlog == 4, "acknowledged before the outcome was durable"
            raise DependencyUnavailable("busy")
        return original(name, data, **options)

    plant.store.write = failing_write  # type: ignore[method-assign]
    assert plant.worker(BACKLOG=4).run() is ExitReason.SHARE_DONE
    assert failures == []
    assert plant.final() == dict.fromkeys(ids, "succeeded")


def test_a_lost_answer_to_an_outcome_write_gives_no_second_object(plant: Plant) -> None:
    plant.submit(1)
    original = plant.store.write
    lost: list[str] = []

    def lossy_write(name: str, data: bytes, **options: Any) -> Any:
        info = original(name, data, **options)
        if name.startswith("outcomes/") and not lost:
            lost.append(name)
            return original(name, data, **options)
        return info

    plant.store.write = lossy_write  # type: ignore[method-assign]
    assert plant.worker(BACKLOG=1).run() is ExitReason.SHARE_DONE
    assert plant.store.names("outcomes/") == tuple(lost)
    assert plant.store.names(f"outcomes/{SHARD}/") == tuple(lost)


def test_a_newer_task_keeps_its_output_and_the_older_one_is_superseded(plant: Plant) -> None:
    plant.store.write("out/task-0", b"newer", metadata={"task_id": "z", "submitted_at": "2999-01-01T00:00:00.000000Z"})
    ids = plant.submit(1)
    assert plant.worker(BACKLOG=1).run() is ExitReason.SHARE_DONE
    assert plant.final() == dict.fromkeys(ids, "superseded")
    assert plant.store.read("out/task-0") == b"newer"


def test_leases_outlive_the_deadline_while_a_handler_runs() -> None:
    clock = JumpingClock()
    plant = Plant(clock, ack_deadline_s=20.0)
    leases = Leases(plant, clock)
    runs: list[str] = []

    @plant.registry.task("long")
    def long(task: Task, ctx: Any) -> None:
        runs.append(task.task_id)
        leases.outlive(3)

    plant.submit(1, "long")
    assert plant.worker(MAX_MESSAGES=10, CONCURRENCY=2).run() is ExitReason.DRAINED
    assert runs == ["task-0"], "a lease ran out, and the message was delivered again"
