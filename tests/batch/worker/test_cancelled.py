"""Cancelled tasks: what has not started ends cancelled, what runs hears of it, and what is not on the list costs nothing."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest

from batch.handling.cancels import cancel
from batch.handling.context import AsyncContext
from batch.model.attempts import Attempts, Marker
from batch.model.deadletters import REPLAY, Replay
from batch.model.delayed import published_again
from batch.model.delivery import Outgoing
from batch.model.errors import Cancelled, DependencyUnavailable, Permanent, Retry, Snooze
from batch.model.exit import ExitReason
from batch.model.message import Task
from batch.model.names import cancel_object
from batch.model.outcomes import Outcome, merged
from batch.testing import MemoryObjectStore
from batch.worker.admission.markers import Markers
from batch.worker.admission.records import write_attempts
from batch.worker.life import Worker
from batch.worker.progress_writer import ProgressWriter
from tests.batch.worker.isolated import plant_with, submit
from tests.batch.worker.isolated import worker as isolating_worker
from tests.batch.worker.plant import Plant, ended, in_thread
from tests.clocks import ShiftedClock
from tests.support import wait_until

GONE = Marker("gone-x", 3, 0, "2026-01-31T12:00:00.000000Z")


@pytest.fixture
def plant() -> Plant:
    """Its handlers count the tasks that they were called for."""
    made = Plant()
    made.called = Counter()  # type: ignore[attr-defined]

    @made.registry.task("count")
    def count(task: Task, ctx: Any) -> None:
        made.called[task.task_id] += 1  # type: ignore[attr-defined]

    return made


def called(plant: Plant) -> list[str]:
    return sorted(plant.called)  # type: ignore[attr-defined]


def cancelled(plant: Plant, *ids: str) -> None:
    cancel(plant.store, "lane", ids, who="ada", why="wrong input", now=plant.clock.now())


def informed(plant: Plant, **environment: object) -> Worker:
    """A worker that has read the list before its first message comes."""
    worker = plant.worker(LANE="lane", **environment)
    worker._look_at_cancels()
    return worker


def one(plant: Plant, task_id: str) -> Outcome:
    return merged(plant.outcomes())[task_id]


def test_what_has_not_started_ends_cancelled_by_task_and_by_submission(plant: Plant) -> None:
    plant.submit(3, "count")
    cancelled(plant, "task-1")
    assert informed(plant).run() is ExitReason.DRAINED
    assert (plant.final()["task-1"], called(plant)) == ("cancelled", ["task-0", "task-2"])
    outcome = one(plant, "task-1")
    assert (outcome.attempt_count, outcome.reason.split(" at ")[0], outcome.reason.endswith(": wrong input")) == (
        0,
        "cancelled by ada",
        True,
    )
    assert (plant.progress().cancelled, plant.progress().acked, plant.letters()) == (1, 3, [])

    plant.submit(3, "count")
    cancelled(plant, "s-1")
    before = called(plant)
    informed(plant, CLOUD_RUN_EXECUTION="lane-y").run()
    assert (plant.progress(execution="lane-y").cancelled, called(plant)) == (3, before)


def test_the_list_is_read_beside_the_first_pull_and_with_each_write(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    info, pull, patch = plant.store.info, plant.subscription.pull, plant.store.patch_metadata
    looked = threading.Event()

    def noted_info(name: str) -> Any:
        if name == cancel_object("lane"):
            order.append("list")
            looked.set()
        return info(name)

    def noted_pull(*arguments: Any) -> Any:
        order.append("pull")
        assert looked.wait(60)  # or it would have come back before
        return pull(*arguments)

    monkeypatch.setattr(plant.store, "info", noted_info)
    monkeypatch.setattr(plant.subscription, "pull", noted_pull)
    monkeypatch.setattr(plant.store, "patch_metadata", lambda *given: order.append("write") or patch(*given))  # type: ignore[func-returns-value]
    release = threading.Event()

    @plant.registry.task("wait")
    def wait(task: Task, ctx: Any) -> None:
        assert release.wait(60)

    plant.submit(1, "wait")
    worker, start, open_counts = plant.worker(LANE="lane"), ProgressWriter.start, list[int]()

    def noted_start(writer: ProgressWriter) -> None:
        assert worker.shutdown.stages is not None
        open_counts.append(len(worker.shutdown.stages.puller.pulls.open))
        start(writer)

    monkeypatch.setattr(ProgressWriter, "start", noted_start)
    thread, _ = in_thread(worker)
    wait_until(lambda: order.count("list") >= 3, 60, "two progress writes")
    release.set()
    ended(thread)
    assert [one for one in order if one != "pull"][:4] == ["list", "write", "list", "write"]
    assert open_counts == [1], "the list is asked for when the first pull is on its way"


def test_a_running_handler_hears_of_it_and_what_waits_behind_it_never_starts(plant: Plant) -> None:
    @plant.registry.task("listen")
    def listen(task: Task, ctx: Any) -> None:
        if not ctx.cancelled:
            cancelled(plant, "s-1")
            wait_until(lambda: ctx.cancelled, 60, "the list")
        if task.fields["give_up"]:
            raise Cancelled("half way")

    plant.submit(1, "listen", give_up=True)
    for number in range(1, 4):
        submit(plant, f"task-{number}", "count")
    informed(plant, CONCURRENCY=1).run()
    assert (set(plant.final().values()), len(plant.final()), called(plant)) == ({"cancelled"}, 4, [])
    assert one(plant, "task-0").attempt_count == 1


def test_a_running_handler_that_returns_all_the_same_has_succeeded(plant: Plant) -> None:
    @plant.registry.task("finish")
    def finish(task: Task, ctx: Any) -> str:
        cancelled(plant, "task-0")
        wait_until(lambda: ctx.cancelled, 60, "the list")
        return "done"

    plant.submit(1, "finish")
    plant.worker(LANE="lane").run()
    assert (one(plant, "task-0").outcome, one(plant, "task-0").result) == ("succeeded", "done")


def test_an_async_handler_and_a_group_hear_of_it(plant: Plant) -> None:
    @plant.registry.task("listen_async")
    async def listen_async(task: Task, ctx: AsyncContext) -> None:
        cancelled(plant, "task-0")
        while not ctx.cancelled:
            await ctx.sleep(0.01)
        raise Cancelled

    @plant.registry.task("listen_group", group=2, group_wait_s=0)
    def listen_group(tasks: list[Task], ctxs: Any) -> list[Any]:
        cancelled(plant, "grouped")
        wait_until(lambda: any(ctx.cancelled for ctx in ctxs), 60, "the list")
        return [Cancelled() if ctx.cancelled else "went on" for ctx in ctxs]

    plant.submit(1, "listen_async")
    submit(plant, "grouped", "listen_group")
    plant.worker(LANE="lane").run()
    assert plant.final() == {"task-0": "cancelled", "grouped": "cancelled"}


def test_a_cancelled_task_is_not_in_a_group(plant: Plant) -> None:
    sizes: list[int] = []

    @plant.registry.task("group", group=10)
    def group(tasks: list[Task], ctxs: Any) -> list[None]:
        sizes.append(len(tasks))
        return [None] * len(tasks)

    plant.submit(5, "group")
    cancelled(plant, "task-1", "task-3")
    informed(plant).run()
    assert (Counter(plant.final().values()), sum(sizes)) == ({"succeeded": 3, "cancelled": 2}, 3)


def test_an_isolated_handler_hears_of_it_in_its_process() -> None:
    plant = plant_with("child-until-cancelled")
    submit(plant, "task-0", "child-until-cancelled")
    thread, _ = in_thread(isolating_worker(plant, LANE="lane", PROCESSES=1))
    wait_until(lambda: plant.store.info("began") is not None, 60, "the handler")
    cancelled(plant, "task-0")
    ended(thread)
    assert (one(plant, "task-0").outcome, one(plant, "task-0").attempt_count) == ("cancelled", 1)


def test_cancelled_by_nobody_is_a_failed_attempt(plant: Plant) -> None:
    @plant.registry.task("give_up", retries=0)
    def give_up(task: Task, ctx: Any) -> None:
        raise Cancelled

    plant.submit(1, "give_up")
    plant.worker(LANE="lane").run()
    assert (one(plant, "task-0").outcome, one(plant, "task-0").error_type) == ("dead", "Cancelled")
    assert "nobody has cancelled this task: look at ctx.cancelled" in one(plant, "task-0").reason


@pytest.mark.parametrize("wait", [Retry("later", after_s=3600), Snooze(3600), Retry("soon", after_s=0)])
def test_one_that_would_run_again_ends_instead(plant: Plant, wait: Exception) -> None:
    @plant.registry.task("again")
    def again(task: Task, ctx: Any) -> None:
        cancelled(plant, "task-0")
        wait_until(lambda: ctx.cancelled, 60, "the list")
        raise wait

    plant.submit(1, "again")
    plant.worker(LANE="lane").run()
    assert (plant.final(), plant.store.names("delayed/")) == ({"task-0": "cancelled"}, ())


def test_a_failure_for_good_stays_one(plant: Plant) -> None:
    @plant.registry.task("never")
    def never(task: Task, ctx: Any) -> None:
        cancelled(plant, "task-0")
        wait_until(lambda: ctx.cancelled, 60, "the list")
        raise Permanent("no")

    plant.submit(1, "never")
    plant.worker(LANE="lane").run()
    assert plant.final() == {"task-0": "dead"}


def test_redelivered_ones_quarantined_ones_and_those_that_came_early(plant: Plant) -> None:
    plant.submit(3, "count")
    write_attempts(plant.store, "task-0", Attempts(not_before=plant.clock.now() + 3600), 0)
    write_attempts(plant.store, "task-1", Attempts(in_progress=GONE, lost=(GONE, GONE)), 0)
    deliveries = plant.subscription.pull(10, 0)
    early = next(one for one in deliveries if one.attributes["task_id"] == "task-2")
    plant.subscription.ack([early.ack_id])
    again = published_again(early, plant.clock.now() + 3600, has_record=True)
    assert again is not None
    plant.broker.topic("lane").publish([again])
    plant.subscription.nack([one.ack_id for one in deliveries if one is not early])
    cancelled(plant, "task-0", "task-1", "task-2")
    informed(plant).run()
    assert (Counter(plant.final().values()), called(plant)) == ({"cancelled": 3}, [])


def test_a_marker_that_stands_already_is_removed(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Markers, "unmark_all", lambda _: None)  # it would remove what was forgotten
    began, release = threading.Event(), threading.Event()

    @plant.registry.task("block")
    def block(task: Task, ctx: Any) -> None:
        began.set()
        assert release.wait(60)

    submit(plant, "first", "block")
    plant.submit(1, "count")
    plant.subscription.nack([one.ack_id for one in plant.subscription.pull(10, 0)])
    plant.subscription.nack([one.ack_id for one in plant.subscription.pull(10, 0)])  # so that no failed attempt accounts for it
    worker = plant.worker(LANE="lane", CONCURRENCY=1, PREFETCH_S=60)
    worker.tally.ran(1, 1.0, 1.0)
    thread, _ = in_thread(worker)
    assert began.wait(60)
    wait_until(lambda: "attempts/task-0.json" in plant.store.names(), 60, "the marker of the next")
    cancelled(plant, "task-0")
    wait_until(lambda: bool(worker._cancels.by_id), 60, "the list")
    release.set()
    ended(thread)
    assert (plant.final(), plant.store.names("attempts/"), called(plant)) == ({"first": "succeeded", "task-0": "cancelled"}, (), [])


def test_die_cancel_retry_die_again(plant: Plant) -> None:
    @plant.registry.task("die")
    def die(task: Task, ctx: Any) -> None:
        raise Permanent("no")

    plant.clock = clock = ShiftedClock()
    plant.submit(1, "die")
    (_, message), *_ = plant.broker.topic("lane").published
    plant.worker(LANE="lane").run()
    cancelled(plant, "task-0")
    clock.advance(60)
    replay = {**message.attributes, REPLAY: str(Replay(1, clock.now(), "r-1"))}
    plant.broker.topic("lane").publish([Outgoing(message.data, replay)])
    informed(plant, CLOUD_RUN_EXECUTION="lane-y").run()
    assert (one(plant, "task-0").outcome, one(plant, "task-0").replay_number) == ("dead", 1)
    assert plant.store.names("cancel/") == (cancel_object("lane"),)

    cancelled(plant, "task-0")
    clock.advance(60)
    plant.broker.topic("lane").publish([Outgoing(message.data, replay)])
    informed(plant, CLOUD_RUN_EXECUTION="lane-z").run()
    found = [one for one in plant.outcomes() if one.outcome == "cancelled"]
    assert [one.replay_number for one in found] == [1], "an entry after the replay holds for it"


def test_a_list_that_cannot_be_read_stops_nobody(plant: Plant, caplog: pytest.LogCaptureFixture) -> None:
    plant.submit(1, "count")
    plant.store.write(cancel_object("lane"), b"{")
    informed(plant).run()
    assert plant.final() == {"task-0": "succeeded"}
    told = [one for one in caplog.records if getattr(one, "event", "") == "cancels_unread"]
    assert len(told) == 1
    plant.store.fail_next("info", DependencyUnavailable("503"))
    assert isinstance(plant.store, MemoryObjectStore)
    informed(plant)
    assert "503" in str([one.__dict__ for one in caplog.records if getattr(one, "event", "") == "cancels_unread"][-1])


def test_of_an_empty_list_no_message_is_looked_up(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    def look_up(*_: Any) -> None:
        raise AssertionError("a message was looked up in an empty list")

    monkeypatch.setattr("batch.handling.cancels.Cancels.entry_for", look_up)
    plant.submit(50, "count")
    plant.worker(LANE="lane").run()
    assert plant.final().keys() == {f"task-{number}" for number in range(50)}
    assert set(plant.final().values()) == {"succeeded"}


def test_of_another_lane_it_cancels_nothing(plant: Plant) -> None:
    plant.submit(1, "count")
    cancel(plant.store, "other", ["task-0"], who="ada", now=plant.clock.now())
    informed(plant).run()
    assert plant.final() == {"task-0": "succeeded"}
