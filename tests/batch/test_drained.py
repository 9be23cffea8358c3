"""Draining a list of tasks in memory: whole workers, retries, snoozes and dead letters, in a time that only jumps."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from batch.handling.registry import Backoff, Registry
from batch.model.delivery import Outgoing
from batch.model.errors import DependencyUnavailable, Permanent, Retry, Snooze
from batch.model.exit import ExitReason
from batch.model.message import Task
from batch.testing import ManualClock, MemoryBroker, MemoryObjectStore, NotDrained, drain
from batch.testing.drained import SoleSubscription

HOUR_S = 3600.0


@pytest.fixture
def registry() -> Registry:
    made = Registry()

    @made.task("write")
    def write(task: Task, ctx: Any) -> str:
        return str(ctx.write(str(task.fields["name"]), task.task_id.encode()).name)

    @made.task("flaky", retries=2, backoff=Backoff(first_s=30))
    def flaky(task: Task, ctx: Any) -> int:
        if ctx.attempt <= task.fields["failures"]:
            raise ValueError(f"failure {ctx.attempt}")
        return int(ctx.attempt)

    return made


def test_a_tail_of_broken_tasks_ends(registry: Registry) -> None:
    """Among good ones each of them has failed once; alone at the end they fail alike, and are dead all the same."""
    good = [{"task_type": "write", "name": f"out/{number}"} for number in range(60)]
    broken = [{"task_type": "flaky", "failures": 99} for _ in range(60)]
    drained = drain([one for pair in zip(good, broken, strict=True) for one in pair], registry, max_executions=60)
    assert sorted(one.outcome for one in drained.outcomes.values()) == ["dead"] * 60 + ["succeeded"] * 60
    assert ExitReason.BROKEN not in drained.exit_reasons


def test_retries_come_back_after_their_backoff(registry: Registry) -> None:
    drained = drain([{"task_type": "flaky", "failures": 2}], registry)
    assert drained.outcome() == "succeeded"
    assert drained.began_s() == [0.0, 30.0, 90.0]
    assert [one.attempt for one in drained.runs["task-1"]] == [1, 2, 3]
    assert drained.outcomes["task-1"].result == 3
    assert drained.elapsed_s == 90.0
    assert drained.dead_letters == []


def test_a_task_without_attempts_left_is_a_dead_letter(registry: Registry) -> None:
    drained = drain([{"task_type": "flaky", "failures": 3, "task_id": "bad"}, {"task_type": "write", "name": "a"}], registry)
    assert {one: drained.outcome(one) for one in drained.outcomes} == {"bad": "dead", "task-2": "succeeded"}
    (letter,) = drained.dead_letters
    assert (letter.task_id, letter.error_type, letter.attempt_count) == ("bad", "ValueError", 3)
    assert letter.reason == "failure 3"
    assert b'"failures":3' in letter.data
    assert drained.outputs == {"a": b"task-2"}


def test_what_is_no_task_is_dead_and_unchanged(registry: Registry) -> None:
    drained = drain([b"junk", {"task_type": "wirte"}], registry)
    assert [(one.data[:4], one.error_type, one.attempt_count) for one in drained.dead_letters] == [
        (b"junk", "not_json", 0),
        (b'{"ta', "unknown_task_type", 0),
    ]
    assert drained.runs == {}


@pytest.mark.parametrize("wait_s", [0.0, 600.0, 5 * HOUR_S])
def test_a_snooze_ends_after_its_time_however_long(registry: Registry, wait_s: float) -> None:
    @registry.task("waits")
    async def waits(task: Task, ctx: Any) -> None:
        if not await ctx.exists("ready"):
            await ctx.write("ready", b"")
            raise Snooze(wait_s)

    drained = drain([{"task_type": "waits"}], registry)
    assert drained.began_s() == [0.0, wait_s]
    assert {one.attempt for one in drained.runs["task-1"]} == {1}
    assert drained.outputs == {"ready": b""}


def test_each_kind_of_handler_is_drained(registry: Registry) -> None:
    @registry.task("isolated", isolation="process", timeout_s=30)
    def isolated(task: Task, ctx: Any) -> float:
        return float(ctx.remaining_s())

    @registry.task("later")
    async def later(task: Task, ctx: Any) -> int:
        await ctx.sleep(60)
        return 2

    @registry.task("grouped", group=3)
    def grouped(tasks: list[Task], ctxs: list[Any]) -> list[Any]:
        return [ValueError("x") if ctx.attempt == 1 and task.fields.get("bad") else "ok" for task, ctx in zip(tasks, ctxs, strict=True)]

    kinds: list[dict[str, Any]] = [{"task_type": one} for one in ("isolated", "later", "grouped", "grouped")]
    drained = drain([*kinds, {"task_type": "grouped", "bad": True}], registry, concurrency=2)
    assert {one.outcome for one in drained.outcomes.values()} == {"succeeded"}
    assert [drained.outcomes[f"task-{number}"].result for number in (1, 2, 3, 5)] == [30.0, 2, "ok", "ok"]
    assert [one.attempt for one in drained.runs["task-5"]] == [1, 2]


def test_sleeps_take_no_time_and_end_at_the_limit(registry: Registry) -> None:
    asleep: list[float] = []

    @registry.task("slow", timeout_s=60, retries=1, backoff=Backoff(first_s=20))
    def slow(task: Task, ctx: Any) -> None:
        began_s = ctx.now()
        try:
            ctx.sleep(10 * HOUR_S if ctx.attempt == 1 else 50)
        except Exception:  # noqa: BLE001 - the limit is no error that a handler could catch
            return
        finally:
            asleep.append(ctx.now() - began_s)

    drained = drain([{"task_type": "slow"}], registry)
    assert (drained.outcome(), drained.outcomes["task-1"].attempt_count) == ("succeeded", 2)
    assert drained.began_s() == [0.0, 80.0]
    assert asleep == [60.0, 50.0]


def test_many_long_sleeps_one_after_the_other_run_each_task_once(registry: Registry) -> None:
    @registry.task("sleeps")
    def sleeps(task: Task, ctx: Any) -> None:
        ctx.sleep(HOUR_S)

    drained = drain([{"task_type": "sleeps"}] * 30, registry)
    assert [len(runs) for runs in drained.runs.values()] == [1] * 30
    assert drained.elapsed_s == 30 * HOUR_S


def test_no_lease_runs_out_where_time_jumps() -> None:
    clock = ManualClock()
    broker = MemoryBroker(clock)
    held = SoleSubscription(broker, "lane", "lane", 30 * HOUR_S, None, "dead")
    broker.topic("lane").subscriptions.append(held)
    broker.topic("lane").publish([Outgoing(b"a", {})])
    (delivery,) = held.pull(1, 0.0)
    assert held.extend([delivery.ack_id, "unknown"], 10.0) == ["unknown"]
    clock.advance(HOUR_S)
    assert (held.free, held.next_free_s, held.pull(1, 0.0)) == (0, clock.now() + 29 * HOUR_S, [])


def test_messages_that_come_twice_leave_one_outcome_and_one_output_each(registry: Registry) -> None:
    tasks = [{"task_type": "write", "name": f"out/{number}"} for number in range(5)]
    drained = drain(tasks, registry, deliver_twice=True)
    assert sum(len(runs) for runs in drained.runs.values()) == 10
    assert drained.outputs == {f"out/{number}": f"task-{number + 1}".encode() for number in range(5)}
    infos = [drained.store.info(name) for name in drained.outputs]
    assert len({info.generation for info in infos if info}) == 5


def test_of_two_tasks_for_one_output_the_newer_wins(registry: Registry) -> None:
    newer = {"task_type": "write", "name": "a", "task_id": "newer", "submitted_at": "2026-01-02T00:00:00.000000Z"}
    older = {"task_type": "write", "name": "a", "task_id": "older", "submitted_at": "2026-01-01T00:00:00.000000Z"}
    drained = drain([newer, older], registry)
    assert (drained.outcome("newer"), drained.outcome("older")) == ("succeeded", "superseded")
    assert drained.outputs == {"a": b"newer"}


def test_a_bucket_that_fails_once_spends_no_attempt(registry: Registry) -> None:
    store = MemoryObjectStore()

    @registry.task("reads")
    def reads(task: Task, ctx: Any) -> int:
        if not began.is_set():
            began.set()
            raise DependencyUnavailable("the bucket is down")
        return len(ctx.read("input/a"))

    began = threading.Event()
    drained = drain([{"task_type": "reads"}], registry, store=store, objects={"input/a": b"abc"})
    assert (drained.outcomes["task-1"].result, drained.outcomes["task-1"].attempt_count) == (3, 1)
    assert drained.exit_reasons[0] is ExitReason.BROKEN
    assert drained.outputs == {}


def test_an_error_of_all_tasks_breaks_no_worker_and_loses_nothing(registry: Registry) -> None:
    drained = drain([{"task_type": "flaky", "failures": 1}] * 25, registry)
    assert ExitReason.BROKEN not in drained.exit_reasons
    assert {one.outcome for one in drained.outcomes.values()} == {"succeeded"}


def test_what_never_ends_is_told_by_name(registry: Registry) -> None:
    @registry.task("never", retries=10**6)
    def never(task: Task, ctx: Any) -> None:
        raise Retry("again", after_s=2 * HOUR_S if task.task_id == "task-2" else 1.0)

    with pytest.raises(NotDrained, match=r"2 tasks are left after 5 executions.*task-1 \(ran \d times\), task-2 \(ran \d times\)"):
        drain([{"task_type": "never"}, {"task_type": "never"}], registry, max_executions=5)


def test_the_clock_is_the_authors(registry: Registry) -> None:
    clock = ManualClock(1_800_000_000.0)
    drained = drain([{"task_type": "flaky", "failures": 1}], registry, clock=clock)
    assert clock.now() == 1_800_000_030.0
    assert drained.outcomes["task-1"].finished_at.startswith("2027-01-15T08:00:30")


def test_nothing_to_drain_and_no_task(registry: Registry) -> None:
    assert drain([], registry).outcomes == {}
    with pytest.raises(ValueError, match=r'a task needs a task_type, got \{"name"'):
        drain([{"name": "a"}], registry)


def test_a_permanent_failure_is_not_repeated(registry: Registry) -> None:
    @registry.task("refuses")
    def refuses(task: Task, ctx: Any) -> None:
        raise Permanent("no such page")

    drained = drain([{"task_type": "refuses"}], registry)
    assert drained.began_s() == [0.0]
    assert [one.reason for one in drained.dead_letters] == ["no such page"]
