"""Poison: a task that kills its worker is found, runs alone in a process of its own, and takes nobody along again."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from batch.handling.registry import Backoff
from batch.model.attempts import NONE, AttemptError, Attempts, Marker
from batch.model.clock import iso
from batch.model.errors import Snooze
from batch.model.exit import ExitReason
from batch.model.message import Task
from batch.model.names import progress_object
from batch.model.outcomes import Outcome, merged
from batch.model.progress import Progress, to_metadata
from batch.testing import MemoryObjectStore
from batch.worker.admission.admission import MAX_LOST
from batch.worker.admission.records import add_failure, end_marker, postpone, read_attempts, write_attempts
from tests.batch.worker.isolated import plant_with, submit, worker
from tests.batch.worker.plant import Plant, ended, in_thread
from tests.support import slow_but, wait_until

GONE = Marker("gone-x", 3, 0, "2026-01-31T12:00:00.000000Z")


def delivered_before(plant: Plant, times: int = 1) -> None:
    """All messages come to somebody who gives them back."""
    for _ in range(times):
        plant.subscription.nack([one.ack_id for one in plant.subscription.pull(1000, 0)])


def progress_of(plant: Plant, start: Marker, **facts: Any) -> None:
    now = plant.clock.now()
    progress = replace(Progress(share=10, started_at=now - 1000, updated_at=now), **facts)
    plant.store.write(progress_object(start.execution, start.index, start.retry), b"", metadata=to_metadata(progress))


def record(plant: Plant, task_id: str) -> Attempts:
    return read_attempts(plant.store, task_id)[0]


def left_by(plant: Plant, task_id: str, start: Marker = GONE, known: Attempts = NONE) -> None:
    """The record that a worker leaves which was killed while it ran this task."""
    write_attempts(plant.store, task_id, replace(known, in_progress=start), read_attempts(plant.store, task_id)[1])


def outcome_of(plant: Plant, task_id: str) -> Outcome:
    return merged(plant.outcomes())[task_id]


def watched(plant: Plant) -> list[str]:
    """What is done to the records of attempts, as it is done."""
    done: list[str] = []
    original_write, original_delete = plant.store.write, plant.store.delete

    def write(name: str, data: bytes, **options: Any) -> Any:
        if name.startswith("attempts/"):
            done.append("write")
        return original_write(name, data, **options)

    def delete(name: str, **options: Any) -> bool:
        if name.startswith("attempts/"):
            done.append("delete")
        return original_delete(name, **options)

    plant.store.write, plant.store.delete = write, delete  # type: ignore[method-assign]
    return done


# --- starts


def test_a_healthy_first_delivery_writes_nothing() -> None:
    plant = plant_with("thread-write")
    done = watched(plant)
    submit(plant, "t", "thread-write")
    assert worker(plant, BACKLOG=1).run() is ExitReason.SHARE_DONE
    assert done == []


def test_a_second_delivery_has_a_start_while_it_runs_and_none_after() -> None:
    plant = plant_with()
    during: list[Attempts] = []

    @plant.registry.task("looks")
    def looks(task: Task, ctx: Any) -> None:
        during.append(record(plant, task.task_id))

    done = watched(plant)
    submit(plant, "t", "looks")
    delivered_before(plant)
    assert worker(plant, BACKLOG=3, CLOUD_RUN_TASK_INDEX=2, CLOUD_RUN_TASK_COUNT=3, CLOUD_RUN_TASK_ATTEMPT=1).run()
    (seen,) = during
    assert seen.in_progress is not None
    assert (seen.in_progress.execution, seen.in_progress.index, seen.in_progress.retry) == ("lane-x", 2, 1)
    assert seen.attempt_count == 0
    assert done == ["write", "delete"]
    assert plant.final() == {"t": "succeeded"}


def test_a_start_is_gone_when_the_task_is_put_off() -> None:
    plant = plant_with()
    plant.deferred_count = 1

    @plant.registry.task("later")
    def later(task: Task, ctx: Any) -> None:
        raise Snooze(100)

    submit(plant, "t", "later")
    delivered_before(plant)
    assert worker(plant, BACKLOG=1).run() is ExitReason.SHARE_DONE
    assert plant.store.names("attempts/") == ()


def test_a_failure_takes_the_place_of_the_start() -> None:
    plant = plant_with()

    @plant.registry.task("fails", retries=5, backoff=Backoff(first_s=500))
    def fails(task: Task, ctx: Any) -> None:
        raise ValueError("x")

    done = watched(plant)
    submit(plant, "t", "fails")
    delivered_before(plant)
    assert worker(plant, BACKLOG=1).run() is ExitReason.SHARE_DONE
    assert done == ["write", "write"]
    known = record(plant, "t")
    assert (known.attempt_count, known.in_progress, known.lost) == (1, None, ())


def test_attempts_that_failed_explain_their_deliveries() -> None:
    """A task that fails and comes back, as failing tasks do, is written down as often as it fails."""
    plant = plant_with()

    @plant.registry.task("fails", retries=2, backoff=Backoff(first_s=0))
    def fails(task: Task, ctx: Any) -> None:
        raise ValueError("x")

    done = watched(plant)
    submit(plant, "t", "fails")
    assert worker(plant, MAX_MESSAGES=3).run() is ExitReason.SHARE_DONE
    assert done == ["write"] * 3


@pytest.mark.parametrize(("retry", "expected"), [(0, []), (1, ["write", "delete"])])
def test_where_deliveries_are_not_counted_only_a_retry_writes_starts(retry: int, expected: list[str]) -> None:
    plant = plant_with("thread-write")
    plant.subscription.max_delivery_attempts = None
    done = watched(plant)
    submit(plant, "t", "thread-write")
    assert worker(plant, BACKLOG=1, CLOUD_RUN_TASK_ATTEMPT=retry).run() is ExitReason.SHARE_DONE
    assert done == expected


def test_a_payload_that_is_refused_leaves_no_start() -> None:
    class Wanted(BaseModel):
        size: int

    plant = plant_with()

    @plant.registry.task("wants", payload=Wanted)
    def wants(task: Task, ctx: Any) -> None:
        """Never run."""

    submit(plant, "t", "wants", size="many")
    delivered_before(plant)
    assert worker(plant, BACKLOG=1).run() is ExitReason.SHARE_DONE
    assert outcome_of(plant, "t").error_type == "invalid"
    assert plant.store.names("attempts/") == ()


@pytest.mark.usefixtures("begun_late")
@pytest.mark.slow
def test_what_is_handed_back_at_the_end_leaves_no_start() -> None:
    """A worker that was stopped says nothing against the tasks that it could not finish."""
    plant = plant_with()
    started, forever = threading.Event(), threading.Event()

    @plant.registry.task("long")
    def long(task: Task, ctx: Any) -> None:
        started.set()
        forever.wait(30)

    submit(plant, "t", "long")
    delivered_before(plant)
    running = worker(plant, BACKLOG=1, TASK_TIMEOUT_S=2, PREFETCH_S="0.2")
    thread, reasons = in_thread(running)
    assert started.wait(60)
    assert record(plant, "t").in_progress is not None
    ended(thread)
    assert reasons == [ExitReason.OUT_OF_TIME]
    assert plant.store.names("attempts/") == ()
    assert plant.subscription.backlog == 1
    forever.set()


# --- whose start it is


def tried_again(plant: Plant) -> None:
    progress_of(plant, GONE)
    progress_of(plant, replace(GONE, retry=1))


def never_was(plant: Plant) -> None:
    """A worker writes its progress before it pulls."""


ENDINGS: dict[str, Callable[[Plant], None]] = {
    "it has ended": lambda plant: progress_of(plant, GONE, exit_reason="stopped"),
    "it was tried again": tried_again,
    "it is silent": lambda plant: progress_of(plant, GONE, updated_at=plant.clock.now() - 61),
    "it never was": never_was,
}


@pytest.mark.parametrize("how", ENDINGS)
def test_a_start_whose_worker_is_gone_makes_a_suspect(how: str) -> None:
    plant = plant_with("thread-write")
    ENDINGS[how](plant)
    submit(plant, "t", "thread-write")
    left_by(plant, "t")
    delivered_before(plant)
    assert worker(plant, BACKLOG=1).run() is ExitReason.SHARE_DONE
    assert outcome_of(plant, "t").result["pid"] != os.getpid()
    assert plant.store.names("attempts/") == ()


def test_the_try_before_this_one_is_gone() -> None:
    plant = plant_with("thread-write")
    before = Marker("lane-x", 0, 0, iso(0))
    progress_of(plant, before)
    submit(plant, "t", "thread-write")
    left_by(plant, "t", before)
    delivered_before(plant)
    assert worker(plant, MAX_MESSAGES=5, CLOUD_RUN_TASK_ATTEMPT=1).run() is ExitReason.DRAINED
    assert outcome_of(plant, "t").result["pid"] != os.getpid()


def test_a_task_that_may_be_running_elsewhere_waits() -> None:
    plant = plant_with("thread-write")
    plant.deferred_count = 1
    progress_of(plant, GONE)
    submit(plant, "t", "thread-write")
    left_by(plant, "t")
    delivered_before(plant)
    assert worker(plant, BACKLOG=1).run() is ExitReason.SHARE_DONE
    assert plant.final() == {}
    assert record(plant, "t") == Attempts(in_progress=GONE)
    assert plant.progress().returned == 1
    assert [count for _due, count in plant.progress().deferred] == [1]


def test_a_start_of_ours_that_was_left_behind_is_no_reason_to_wait() -> None:
    plant = plant_with("thread-write")
    submit(plant, "t", "thread-write")
    left_by(plant, "t", Marker("lane-x", 0, 0, iso(0)))
    delivered_before(plant)
    assert worker(plant, BACKLOG=1).run() is ExitReason.SHARE_DONE
    assert outcome_of(plant, "t").result["pid"] == os.getpid()
    assert plant.store.names("attempts/") == ()


def test_a_task_that_runs_here_does_not_run_here_twice() -> None:
    plant = plant_with()
    runs: list[str] = []
    may_end = threading.Event()

    @plant.registry.task("long")
    def long(task: Task, ctx: Any) -> None:
        runs.append(task.task_id)
        may_end.wait(60)

    for _ in range(2):
        submit(plant, "t", "long")
    delivered_before(plant)
    plant.deferred_count = 1
    running = worker(plant, BACKLOG=2)
    thread, _ = in_thread(running)
    wait_until(lambda: running.tally.returned == 1, 60, "the second delivery to go back")
    may_end.set()
    ended(thread)
    assert runs == ["t"]
    assert plant.final() == {"t": "succeeded"}


def test_a_record_that_changes_under_the_start_is_read_again() -> None:
    plant = plant_with("thread-write")
    plant.deferred_count = 1
    progress_of(plant, GONE)
    submit(plant, "t", "thread-write")
    delivered_before(plant)
    original = plant.store.write
    overtaken: list[str] = []

    def write(name: str, data: bytes, **options: Any) -> Any:
        if name.startswith("attempts/") and not overtaken:
            overtaken.append(name)
            write_attempts(plant.store, "t", Attempts(in_progress=GONE), 0)
        return original(name, data, **options)

    plant.store.write = write  # type: ignore[method-assign]
    assert worker(plant, BACKLOG=1).run() is ExitReason.SHARE_DONE
    assert plant.final() == {}, "the other worker runs it"
    assert record(plant, "t").in_progress == GONE


# --- quarantined tasks


@pytest.mark.parametrize("task_type", ["thread-write", "async-write", "group-write", "child-write"])
def test_a_suspect_of_any_kind_runs_alone_in_a_child(task_type: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fanout")
    plant = plant_with(task_type)
    submit(plant, "t", task_type, name="out/t")
    left_by(plant, "t")
    delivered_before(plant)
    assert worker(plant, BACKLOG=1).run() is ExitReason.SHARE_DONE
    outcome = outcome_of(plant, "t")
    assert (outcome.outcome, outcome.output) == ("succeeded", "out/t")
    assert outcome.result["pid"] != os.getpid()
    assert plant.store.names("attempts/") == ()
    assert [vars(one)["task_id"] for one in caplog.records if vars(one).get("event") == "quarantined_task_runs"] == ["t"]


def test_a_second_crash_is_the_end_with_the_evidence() -> None:
    plant = plant_with("thread-dies", "thread-write")
    submit(plant, "poison", "thread-dies")
    for number in range(3):
        submit(plant, f"good-{number}", "thread-write")
    for task_id in ("poison", "good-0", "good-1"):
        left_by(plant, task_id)
    delivered_before(plant, 2)
    assert worker(plant, BACKLOG=4).run() is ExitReason.SHARE_DONE
    assert plant.final() == {"poison": "dead", "good-0": "succeeded", "good-1": "succeeded", "good-2": "succeeded"}
    outcome = outcome_of(plant, "poison")
    assert outcome.error_type == "worker_died"
    assert "gone-x/3, try 0" in outcome.reason
    assert "alone in a process of its own, and its process ended with exit code 9" in outcome.reason
    assert "attempts/poison.json" in outcome.reason
    known = record(plant, "poison")
    assert (known.in_progress, known.lost, known.attempt_count) == (None, (GONE,), 1)
    assert known.errors[0].error_type == "ProcessDied"
    assert plant.store.names("attempts/") == ("attempts/poison.json",)
    assert plant.letters()[0]["dead_error_type"] == "worker_died"


def test_a_suspect_that_fails_stays_one() -> None:
    """All the memory there is: in its child it is refused, each time, and never again comes into the worker's own process."""
    plant = plant_with("thread-hog")
    submit(plant, "hog", "thread-hog")
    left_by(plant, "hog")
    delivered_before(plant)
    assert worker(plant, MAX_MESSAGES=2, QUARANTINE_MEMORY_MB=128).run() is ExitReason.SHARE_DONE
    outcome = outcome_of(plant, "hog")
    assert (outcome.outcome, outcome.error_type, outcome.attempt_count) == ("dead", "MemoryError", 2)
    assert "128 MB" in outcome.reason


def test_a_suspect_has_a_time_limit() -> None:
    plant = plant_with("thread-write")
    submit(plant, "t", "thread-write", seconds=60)
    left_by(plant, "t")
    delivered_before(plant)
    plant.deferred_count = 1
    assert worker(plant, MAX_MESSAGES=1, QUARANTINE_TIMEOUT_S=1).run() is ExitReason.SHARE_DONE
    known = record(plant, "t")
    assert known.errors[0].error_type == "TimeoutError"
    assert known.lost


@pytest.mark.usefixtures("begun_late")
@pytest.mark.parametrize("task_type", slow_but(["thread-write"], ["thread-write", "async-write", "group-write", "child-write"]))
@pytest.mark.slow
def test_a_suspect_that_still_runs_at_the_end_goes_back_a_suspect(task_type: str) -> None:
    plant = plant_with(task_type)
    submit(plant, "t", task_type, name="out/t", seconds=60)
    left_by(plant, "t")
    delivered_before(plant)
    assert worker(plant, BACKLOG=1, TASK_TIMEOUT_S=2, PREFETCH_S="0.2").run() is ExitReason.OUT_OF_TIME
    assert plant.subscription.leased == 0
    assert plant.subscription.backlog == 1
    assert record(plant, "t") == Attempts(lost=(GONE,))


def test_a_task_that_was_running_in_many_workers_that_ended_does_not_run_again() -> None:
    plant = plant_with("thread-write")
    submit(plant, "t", "thread-write")
    lost = tuple(replace(GONE, execution=f"gone-{number}") for number in range(MAX_LOST - 1))
    left_by(plant, "t", known=Attempts(lost=lost))
    delivered_before(plant)
    assert worker(plant, BACKLOG=1).run() is ExitReason.SHARE_DONE
    outcome = outcome_of(plant, "t")
    assert (outcome.outcome, outcome.error_type) == ("dead", "worker_died")
    assert f"each of {MAX_LOST} workers" in outcome.reason
    assert plant.store.names("out/") == ()


# --- the record


STARTS = st.builds(Marker, st.text(min_size=1), st.integers(0, 9), st.integers(0, 3), st.text())
ERRORS = st.builds(AttemptError, st.text(), st.text(), st.text(), st.text(), st.integers(0, 9), st.text(), st.text())
RECORDS = st.builds(
    Attempts,
    st.integers(0, 100),
    st.floats(0, 4e9),
    st.lists(ERRORS, max_size=3).map(tuple),
    st.none() | STARTS,
    st.lists(STARTS, max_size=3).map(tuple),
)


@given(RECORDS)
def test_a_record_is_read_as_it_was_written(attempts: Attempts) -> None:
    store = MemoryObjectStore()
    generation = write_attempts(store, "t", attempts, 0)
    assert read_attempts(store, "t") == (attempts, generation)


def test_a_record_of_failures_alone_says_no_more_than_that() -> None:
    store = MemoryObjectStore()
    write_attempts(store, "t", Attempts(1, 0.0, ()), 0)
    assert set(json.loads(store.read("attempts/t.json"))) == {"task_id", "attempt_count", "not_before", "not_before_time", "errors"}


@pytest.mark.parametrize("damage", [{"in_progress": {"execution": 1}}, {"in_progress": "x"}, {"lost": [1]}, {"lost": 7}])
def test_a_damaged_start_counts_as_none(damage: dict[str, Any]) -> None:
    store = MemoryObjectStore()
    store.write("attempts/t.json", json.dumps({"attempt_count": 0, "not_before": 0, "errors": [], **damage}).encode())
    assert read_attempts(store, "t")[0] == NONE


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("lost", [(), (GONE,)])
@pytest.mark.parametrize("count", [0, 2])
def test_what_the_end_of_a_start_leaves(done: bool, lost: tuple[Marker, ...], count: int) -> None:
    store = MemoryObjectStore()
    ours = replace(GONE, execution="ours")
    known = Attempts(count, 0.0, (), ours, lost)
    generation = write_attempts(store, "t", known, 0)
    end_marker(store, "t", replace(known, in_progress=replace(ours, retry=1)), 0, done=done)
    assert read_attempts(store, "t")[0] == known, "another's start stays"
    end_marker(store, "t", known, generation, done=done)
    left = replace(known, in_progress=None, lost=() if done else lost)
    assert read_attempts(store, "t")[0] == left
    assert bool(store.names("attempts/")) is (left != NONE)


def test_a_task_that_waited_and_is_done_leaves_nothing() -> None:
    store = MemoryObjectStore()
    waited = Attempts(0, 1e9, (), GONE)
    end_marker(store, "t", waited, write_attempts(store, "t", waited, 0), done=True)
    assert store.names("attempts/") == ()


def test_the_end_of_a_start_sees_what_was_written_meanwhile() -> None:
    store = MemoryObjectStore()
    begun = Attempts(0, 0.0, (), GONE)
    generation = write_attempts(store, "t", begun, 0)
    postpone(store, "t", 1e9)
    end_marker(store, "t", begun, generation, done=False)
    assert read_attempts(store, "t")[0] == Attempts(0, 1e9)


def test_a_failure_ends_the_start_of_who_tells_it_and_nobody_elses() -> None:
    store = MemoryObjectStore()
    error = AttemptError(iso(0), "ValueError", "x", GONE.execution, GONE.index)
    write_attempts(store, "mine", Attempts(in_progress=GONE), 0)
    assert add_failure(store, "mine", error, 0, 0).in_progress is None
    write_attempts(store, "other", Attempts(in_progress=replace(GONE, index=4)), 0)
    assert add_failure(store, "other", error, 0, 0).in_progress == replace(GONE, index=4)
