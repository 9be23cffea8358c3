"""What the in-memory twins can do beyond the seams: scripted faults, moved clocks, dead letters, duplicates, one handler run."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pydantic
import pytest

from batch.handling.context import Context
from batch.handling.registry import Registry
from batch.model.delivery import Outgoing
from batch.model.errors import DependencyUnavailable, MessageRefused, ObjectMissing, Permanent
from batch.model.message import Task
from batch.testing import ManualClock, MemoryBroker, MemoryObjectStore, run_handler


def test_scripted_faults_meet_files(tmp_path: Path) -> None:
    store = MemoryObjectStore()
    (tmp_path / "up").write_bytes(b"x")
    store.fail_next("upload", DependencyUnavailable("lost"), after_effect=True)
    store.fail_next("download", DependencyUnavailable("down"))
    with pytest.raises(DependencyUnavailable, match="lost"):
        store.upload("one", tmp_path / "up")
    with pytest.raises(DependencyUnavailable, match="down"):
        store.download("one", tmp_path / "down")
    assert not (tmp_path / "down").exists()
    store.download("one", tmp_path / "down")
    assert ((tmp_path / "down").read_bytes(), store.unmet()) == (b"x", [])


def test_a_waiting_clock_moves_itself() -> None:
    clock = ManualClock(100.0)
    begun = clock.monotonic()
    assert clock.wait(threading.Event(), 5.0) is False
    assert (clock.now(), clock.monotonic() - begun) == (105.0, 5.0)
    rung = threading.Event()
    rung.set()
    assert clock.wait(rung, 5.0) is True
    assert clock.now() == 105.0
    with pytest.raises(ValueError, match="only moves forward"):
        clock.advance(-1.0)


def test_a_clock_that_is_moved_by_others_wakes_who_waits() -> None:
    clock = ManualClock(waits_move=False)
    never, ended = threading.Event(), threading.Event()
    results: list[bool] = []

    def wait() -> None:
        results.append(clock.wait(never, 60.0))
        ended.set()

    thread = threading.Thread(target=wait)
    thread.start()
    clock.advance(59.0)
    assert not ended.wait(0.02)
    while not ended.wait(0.001):
        clock.advance(1.0)  # the thread may have begun to wait after the first step
    thread.join()
    assert results == [False]


def test_faults_are_met_in_order_and_accounted_for() -> None:
    store = MemoryObjectStore()
    store.fail_next("write", DependencyUnavailable("first"))
    store.fail_next("write", DependencyUnavailable("second"), after_effect=True)
    store.fail_next("read", ObjectMissing("never met"))
    with pytest.raises(DependencyUnavailable, match="first"):
        store.write("a", b"1")
    assert store.names() == ()
    with pytest.raises(DependencyUnavailable, match="second"):
        store.write("a", b"2")
    assert store.read_with_info("a")[0] == b"2"
    store.write("a", b"3")
    assert [one.split(":")[0] for one in store.unmet()] == ["read"]
    with pytest.raises(AttributeError):
        store.fail_next("wirte", DependencyUnavailable("misspelt"))


def test_a_fault_of_a_listing_is_met_when_it_is_read() -> None:
    store = MemoryObjectStore()
    store.fail_next("list", DependencyUnavailable("down"))
    with pytest.raises(DependencyUnavailable):
        list(store.list(""))
    assert store.unmet() == []


def test_a_message_delivered_too_often_is_a_dead_letter() -> None:
    clock = ManualClock()
    broker = MemoryBroker(clock, project="p")
    worker = broker.subscription("worker", "tasks", 10.0, max_delivery_attempts=2)
    dead = broker.subscription("dead", "dead-letters")
    broker.topic("tasks").publish([Outgoing(b"x", {"task_id": "1"})])
    assert [one.delivery_attempt for one in worker.pull(1, 0.0)] == [1]
    clock.advance(10.0)
    assert [one.delivery_attempt for one in worker.pull(1, 0.0)] == [2]
    assert dead.pull(1, 0.0) == []
    clock.advance(10.0)
    [letter] = dead.pull(1, 0.0)
    assert letter.data == b"x"
    assert letter.attributes["task_id"] == "1"
    assert letter.attributes["CloudPubSubDeadLetterSourceDeliveryCount"] == "2"
    assert letter.attributes["CloudPubSubDeadLetterSourceSubscription"] == "worker"
    assert worker.backlog == 0


def test_duplicates_come_on_request_each_with_an_id_of_its_own() -> None:
    broker = MemoryBroker()
    worker = broker.subscription("worker", "tasks")
    broker.topic("tasks").publish([Outgoing(b"a", {}), Outgoing(b"b", {})])
    worker.duplicate_next()
    deliveries = worker.pull(10, 0.0)
    assert sorted(one.data for one in deliveries) == [b"a", b"a", b"b"]
    assert len({one.ack_id for one in deliveries}) == 3
    assert len({one.message_id for one in deliveries}) == 2
    worker.ack([one.ack_id for one in deliveries])
    assert worker.backlog == 0


def test_a_lost_answer_to_a_pull_hides_the_messages_until_their_lease_ends() -> None:
    clock = ManualClock()
    broker = MemoryBroker(clock)
    worker = broker.subscription("worker", "tasks", 10.0)
    broker.topic("tasks").publish([Outgoing(b"a", {})])
    worker.fail_next("pull", DependencyUnavailable("lost"), after_effect=True)
    with pytest.raises(DependencyUnavailable):
        worker.pull(1, 0.0)
    assert (worker.leased, worker.pull(1, 0.0)) == (1, [])
    assert [one.data for one in worker.pull(1, 20.0)] == [b"a"]


def test_a_pull_waits_no_longer_than_until_the_next_message_is_free() -> None:
    clock = ManualClock(0.0)
    broker = MemoryBroker(clock)
    worker = broker.subscription("worker", "tasks", 10.0)
    broker.topic("tasks").publish([Outgoing(b"a", {})])
    worker.pull(1, 0.0)
    assert worker.pull(1, 600.0)
    assert clock.now() == 10.0


def test_a_pull_in_another_thread_wakes_on_a_publish() -> None:
    broker = MemoryBroker(ManualClock(waits_move=False))
    worker = broker.subscription("worker", "tasks")
    found: list[bytes] = []
    puller = threading.Thread(target=lambda: found.extend(one.data for one in worker.pull(1, 60.0)))
    puller.start()
    broker.topic("tasks").publish([Outgoing(b"a", {})])
    puller.join(60)
    assert found == [b"a"]


class Payload(pydantic.BaseModel):
    count: int


def registry() -> Registry:
    made = Registry()

    @made.task("double", timeout_s=30, payload=Payload)
    def double(task: Task, ctx: Context) -> int:
        assert ctx.remaining_s() == 30.0
        ctx.write(f"results/{task.task_id}.json", b"{}", "application/json")
        return int(ctx.payload.count) * 2

    @made.task("later")
    async def later(task: Task, ctx: Context) -> Any:
        return task.fields["x"]

    return made


def test_a_handler_runs_by_its_type() -> None:
    run = run_handler("double", {"count": 4}, registry=registry(), task_id="t1")
    assert run.result == 8
    assert [one.name for one in run.outputs] == ["results/t1.json"]
    assert run.store.read("results/t1.json") == b"{}"


def test_a_handler_is_validated_and_an_unknown_type_refused() -> None:
    with pytest.raises(MessageRefused, match="count"):
        run_handler("double", {"count": "many"}, registry=registry())
    with pytest.raises(MessageRefused, match="did you mean 'double'"):
        run_handler("doubel", {}, registry=registry())


def test_an_async_handler_and_a_plain_function_run_too() -> None:
    assert run_handler("later", {"x": [1]}, registry=registry()).result == [1]

    def refuse(task: Task, ctx: Context) -> None:
        raise Permanent(f"attempt {ctx.attempt} of {task.task_type}")

    with pytest.raises(Permanent, match="attempt 3 of refuse"):
        run_handler(refuse, {}, attempt=3, registry=registry())
