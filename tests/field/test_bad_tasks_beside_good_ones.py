"""Many bad tasks beside good ones: no client's input stops the lane of all, and no task dies because what its handler needs is down."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from batch.handling.registry import Backoff, Registry
from batch.model.attempts import Attempts
from batch.model.clock import iso
from batch.model.delivery import Outgoing
from batch.model.errors import DependencyUnavailable, Retry
from batch.model.exit import ExitReason
from batch.model.message import Task, encode
from batch.testing import drain
from batch.worker.admission.records import read_attempts
from batch.worker.admission.slowing import DEFAULT_LIMIT, LEAST_LIMIT
from tests.batch.worker.plant import Plant
from tests.field import handlers_in_children

KINDS = ("plain", "async", "grouped", "isolated")
BAD, GOOD = "bad", "good"


def register(registry: Registry, task_type: str, kind: str, **options: Any) -> None:
    """A handler that says `not there yet` of a task whose source is not in the bucket, in each kind of handler."""

    def wrong(task: Task) -> None:
        if task.fields.get("source") == "missing":
            raise Retry(f"source {len(task.task_id)}.csv is not in the bucket yet")

    if kind == "grouped":

        @registry.task(task_type, group=8, group_wait_s=0.01, **options)
        def grouped(tasks: list[Task], ctxs: list[Any]) -> list[Any]:
            return [Retry("source 1.csv is not in the bucket yet") if one.fields.get("source") == "missing" else "ok" for one in tasks]
    elif kind == "async":

        @registry.task(task_type, **options)
        async def waits(task: Task, ctx: Any) -> str:
            wrong(task)
            return "ok"
    elif kind == "isolated":
        registry.task(task_type, isolation="process", **options)(handlers_in_children.source_there)
    else:

        @registry.task(task_type, **options)
        def plain(task: Task, ctx: Any) -> str:
            wrong(task)
            return "ok"


def task(task_id: str, task_type: str, client: str, **fields: Any) -> Task:
    return Task(task_id, task_type, iso(1.7e9), fields, client, "lane", "s-1")


def publish(plant: Plant, tasks: Sequence[Task]) -> None:
    plant.broker.topic("lane").publish([Outgoing(*encode(one)) for one in tasks])


def attempts(plant: Plant, ids: Sequence[str]) -> list[Attempts]:
    return [read_attempts(plant.store, one)[0] for one in ids]


def mixture() -> tuple[list[Task], list[Task], list[Task]]:
    """60 tasks whose source is missing, 20 good ones of the same type, 20 of another."""
    bad = [task(f"bad-{number}", "load", "client-a", source="missing") for number in range(60)]
    good = [task(f"good-{number}", "load", "client-b", source="there") for number in range(20)]
    other = [task(f"other-{number}", "other", "client-c") for number in range(20)]
    return bad, good, other


@pytest.fixture
def plant() -> Plant:
    return Plant()


def worker(plant: Plant, kind: str, **settings: Any) -> Any:
    if kind == "isolated":
        settings |= {"HANDLERS": "tests.field.handlers_in_children", "PROCESSES": 2}
    return plant.worker(**settings)


@pytest.mark.parametrize("kind", KINDS)
def test_good_tasks_beside_many_whose_source_is_missing_succeed_at_once(plant: Plant, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    register(plant.registry, "load", kind, backoff=Backoff(first_s=60))
    register(plant.registry, "other", "plain")
    bad, good, other = mixture()
    tasks = [*bad, *good, *other]
    random.Random(5).shuffle(tasks)
    publish(plant, tasks)
    assert worker(plant, kind, MAX_MESSAGES=100).run() is ExitReason.SHARE_DONE
    final = plant.final()
    assert [final.get(one.task_id) for one in (*good, *other)] == ["succeeded"] * 40
    assert len(final) == 40, "no bad one is dead"
    assert not [record for record in caplog.records if getattr(record, "event", "") == "worker_broken"]


def test_bad_ones_that_all_come_first_hold_good_ones_of_their_type_for_seconds_and_others_not_at_all(plant: Plant) -> None:
    register(plant.registry, "load", "plain", backoff=Backoff(first_s=60))
    register(plant.registry, "other", "plain")
    bad, good, other = mixture()
    publish(plant, [*bad, *good, *other])
    assert plant.worker(MAX_MESSAGES=100).run() is ExitReason.SHARE_DONE
    final = plant.final()
    assert [final.get(one.task_id) for one in other] == ["succeeded"] * 20
    first = sum(final.get(one.task_id) == "succeeded" for one in good)
    assert first >= 19, "the first task of another client is tried at once, and ends the slowing"
    assert max(one.attempt_count for one in attempts(plant, [one.task_id for one in bad])) == 1, "each waits for its backoff"


def test_a_group_in_which_some_come_through_slows_nothing_however_many_fail(plant: Plant, caplog: pytest.LogCaptureFixture) -> None:
    @plant.registry.task("load", group=100, group_wait_s=5.0, backoff=Backoff(first_s=60))
    def load(tasks: list[Task], ctxs: Any) -> list[Any]:
        return [Retry("not there") if one.fields["source"] == "missing" else "ok" for one in tasks]

    bad = [task(f"bad-{number}", "load", "client-a", source="missing") for number in range(150)]
    good = [task(f"good-{number}", "load", "client-b", source="there") for number in range(50)]
    tasks = [*bad, *good]
    random.Random(5).shuffle(tasks)
    publish(plant, tasks)
    assert plant.worker(MAX_MESSAGES=200).run() is ExitReason.SHARE_DONE
    assert not [record for record in caplog.records if getattr(record, "event", "") == "type_slowed"]
    assert sorted(plant.final()) == sorted(one.task_id for one in good)
    assert [one.attempt_count for one in attempts(plant, [one.task_id for one in bad])] == [1] * 150


def test_a_clients_25_bad_tasks_of_25_are_nothing_to_another_clients_type(plant: Plant) -> None:
    register(plant.registry, "load", "plain", retries=0)
    register(plant.registry, "other", "plain")
    publish(plant, [task(f"bad-{number}", "load", "client-a", source="missing") for number in range(25)])
    publish(plant, [task(f"other-{number}", "other", "client-b") for number in range(25)])
    assert plant.worker(MAX_MESSAGES=50).run() is ExitReason.SHARE_DONE
    assert sum(outcome == "succeeded" for outcome in plant.final().values()) == 25


@pytest.mark.parametrize("kind", KINDS)
def test_when_every_task_fails_few_attempts_are_spent_and_the_worker_ends_as_it_should(
    plant: Plant, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    register(plant.registry, "load", kind, backoff=Backoff(first_s=60))
    ids = [f"bad-{number}" for number in range(400)]
    publish(plant, [task(one, "load", "client-a", source="missing") for one in ids])
    assert worker(plant, kind, MAX_MESSAGES=1000).run() is ExitReason.DRAINED
    counts = [one.attempt_count for one in attempts(plant, ids)]
    assert DEFAULT_LIMIT <= sum(counts) < 120, "20 alike, what ran meanwhile, and one now and then"
    assert max(counts) == 1
    assert plant.letters() == []
    assert plant.subscription.backlog == 400
    progress = plant.progress()
    assert sum(count for _, count in progress.deferred) == 400, "the controller is told when they come back"
    (slowed,) = [record for record in caplog.records if getattr(record, "event", "") == "type_slowed"]
    said = vars(slowed)
    assert said["task_type"] == "load"
    assert said["error_type"] == "Retry"
    assert said["task_count"] == DEFAULT_LIMIT
    assert "not in the bucket yet" in slowed.getMessage()


def test_five_messages_are_enough_for_a_worker_with_a_share_of_five(plant: Plant) -> None:
    register(plant.registry, "load", "plain", backoff=Backoff(first_s=60))
    publish(plant, [task(f"bad-{number}", "load", "client-a", source="missing") for number in range(5)])
    assert plant.worker(BACKLOG=5, CONCURRENCY=1).run() is ExitReason.SHARE_DONE
    assert LEAST_LIMIT == 5
    assert plant.letters() == []


def test_a_database_that_is_down_for_an_hour_costs_few_attempts_and_no_task() -> None:
    """A handler's own database: nobody but the handler knows of it. The drain launches a worker whenever something is due."""
    registry = Registry()
    back_at = 3600.0
    runs: Counter[str] = Counter()

    @registry.task("store")
    def store(task: Task, ctx: Any) -> None:
        runs[task.task_id] += 1
        if ctx.now() < began + back_at:
            raise ConnectionError("database at 10.0.0.7 refused")

    from batch.testing.clock import ManualClock

    began = ManualClock().now()
    drained = drain([{"task_type": "store"} for _ in range(100)], registry, max_executions=400)
    assert {one.outcome for one in drained.outcomes.values()} == {"succeeded"}
    assert ExitReason.BROKEN not in drained.exit_reasons
    assert sum(runs.values()) < 450, f"{sum(runs.values())} runs of 100 tasks"
    assert drained.elapsed_s < back_at + 700


@pytest.mark.parametrize("retries", [0, 2])
def test_a_bug_in_the_handler_kills_nobody_who_was_not_tried_as_often_as_promised(retries: int) -> None:
    registry = Registry()

    @registry.task("buggy", retries=retries)
    def buggy(task: Task, ctx: Any) -> None:
        raise TypeError("'NoneType' object is not subscriptable")

    drained = drain([{"task_type": "buggy"} for _ in range(60)], registry, max_executions=400)
    assert {letter.attempt_count for letter in drained.dead_letters} == {retries + 1}
    assert {len(runs) for runs in drained.runs.values()} == {retries + 1}
    assert len(drained.dead_letters) == 60


def test_one_that_comes_through_ends_the_slowing_and_the_log_says_so(plant: Plant, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="fanout")

    @plant.registry.task("load", backoff=Backoff(first_s=60))
    def load(task: Task, ctx: Any) -> str:
        if task.fields.get("source") == "missing":
            raise Retry("not there yet")
        return "ok"

    publish(plant, [task(f"bad-{number}", "load", "client-a", source="missing") for number in range(40)])
    publish(plant, [task(f"good-{number}", "load", "client-b", source="there") for number in range(40)])
    assert plant.worker(MAX_MESSAGES=80, CONCURRENCY=1).run() is ExitReason.SHARE_DONE
    (resumed,) = [vars(record) for record in caplog.records if getattr(record, "event", "") == "type_resumed"]
    assert resumed["task_type"] == "load"
    assert resumed["tried_count"] + resumed["unrun_count"] >= 20
    assert sum(outcome == "succeeded" for outcome in plant.final().values()) == 40


def test_a_service_that_a_handler_names_still_stops_the_worker_and_spends_no_attempt(plant: Plant) -> None:
    @plant.registry.task("load")
    def load(task: Task, ctx: Any) -> None:
        raise DependencyUnavailable("the index does not answer")

    publish(plant, [task(f"task-{number}", "load", "client-a") for number in range(100)])
    assert plant.worker(MAX_MESSAGES=100).run() is ExitReason.BROKEN
    assert plant.letters() == []
    assert plant.subscription.backlog == 100


@pytest.mark.parametrize("kind", ["plain", "grouped"])
def test_one_client_whose_tasks_name_a_service_does_not_stop_anothers(plant: Plant, kind: str) -> None:
    @plant.registry.task("search")
    def search(task: Task, ctx: Any) -> None:
        raise DependencyUnavailable("the index does not answer")

    register(plant.registry, "load", kind)
    tasks = [task(f"search-{number}", "search", "client-a") for number in range(40)]
    tasks += [task(f"load-{number}", "load", "client-b") for number in range(80)]
    random.Random(7).shuffle(tasks)
    publish(plant, tasks)
    assert plant.worker(MAX_MESSAGES=120).run() is not ExitReason.STUCK
    final = plant.final()
    assert {final[one.task_id] for one in tasks if one.task_type == "load" and one.task_id in final} == {"succeeded"}
    assert plant.letters() == []
