"""A worker whose own thread stands still says where all of them are, hands back what it holds, and lets the process end."""

from __future__ import annotations

import gc
import json
import logging
import sys
import threading
import traceback
from types import FrameType
from typing import Any

import pytest

from batch.logs import JsonLines
from batch.model.clock import SystemClock
from batch.model.exit import EXIT_STUCK, ExitReason, exit_code
from batch.model.message import Task
from batch.worker.watchdog import MAX_LOOK_S, MAX_STACKS_CHARS, Watchdog, stack_of, stacks, within
from tests.batch.worker.plant import Plant, ended, in_thread, write
from tests.support import slow_but

# --- the table of heartbeats


class SetClock(SystemClock):
    def __init__(self) -> None:
        self.at_s = 100.0

    def monotonic(self) -> float:
        return self.at_s


CLOCK = SetClock()


def begun() -> Watchdog:
    CLOCK.at_s = 100.0
    watchdog = Watchdog(180.0, CLOCK, lambda _parts: None)
    watchdog.heartbeat("puller")
    return watchdog


def looking(watchdog: Watchdog, from_s: float, until_s: float) -> list[str]:
    """What is stalled at the end of a time in which the watchdog looked every second."""
    stalled: list[str] = []
    for CLOCK.at_s in range(int(from_s), int(until_s) + 1):
        stalled = list(watchdog.stalled())
    return stalled


def test_a_part_is_stalled_after_its_limit_and_not_before() -> None:
    watchdog = begun()
    watchdog.heartbeat("progress writer", again_within_s=150.0)
    assert looking(watchdog, 100.0, 280.0) == []
    assert looking(watchdog, 281.0, 281.0) == ["puller"]
    CLOCK.at_s = 281.5
    watchdog.heartbeat("puller")
    assert looking(watchdog, 282.0, 430.0) == []
    assert looking(watchdog, 431.0, 431.0) == ["progress writer"]
    watchdog.leave("progress writer")
    assert looking(watchdog, 432.0, 440.0) == []


def test_when_the_whole_process_stood_still_no_part_of_it_did() -> None:
    """The machine was paused, or a handler held the interpreter: nobody could come round, and nobody is to blame."""
    watchdog = begun()
    assert looking(watchdog, 100.0, 100.0) == looking(watchdog, 3700.0, 3700.0) == []
    assert looking(watchdog, 3701.0, 3879.0) == [], "it has its time again"
    assert looking(watchdog, 3880.0, 3881.0) == ["puller"]
    assert MAX_LOOK_S < 180.0


def test_a_pause_before_the_first_look_is_one() -> None:
    watchdog = begun()
    assert looking(watchdog, 3700.0, 3700.0) == []
    assert looking(watchdog, 3701.0, 3879.0) == []
    assert looking(watchdog, 3880.0, 3881.0) == ["puller"]


def test_stacks_name_the_threads_and_where_they_are_within_bounds() -> None:
    may_end = threading.Event()

    def standing_here() -> None:
        may_end.wait(60)

    for number in range(100):
        threading.Thread(target=standing_here, name=f"handler-{number}", daemon=True).start()
    committer = threading.Thread(target=standing_here, name="committer of this test", daemon=True)
    committer.start()
    text = stacks()
    may_end.set()
    assert len(text) <= MAX_STACKS_CHARS
    assert text.startswith("--- Main") or "--- committer of this test" in text[:MAX_STACKS_CHARS]
    assert "standing_here" in text.split("--- committer of this test", 1)[1][:3000]


@pytest.mark.parametrize("is_on", [True, False])
def test_the_garbage_collector_stands_still_while_stacks_are_read(monkeypatch: pytest.MonkeyPatch, is_on: bool) -> None:
    """Python 3.11 locks up for good, or crashes, when it collects meanwhile."""
    was_on: list[bool] = []
    frames, text = sys._current_frames, traceback.format_stack

    def noted() -> dict[int, FrameType]:
        was_on.append(gc.isenabled())
        return frames()

    def read(frame: FrameType) -> list[str]:
        was_on.append(gc.isenabled())
        return text(frame)

    monkeypatch.setattr(sys, "_current_frames", noted)
    monkeypatch.setattr(traceback, "format_stack", read)
    before = gc.isenabled()
    (gc.enable if is_on else gc.disable)()
    try:
        assert "noted" in stack_of(threading.get_ident())
        assert was_on == [False, False]
        stacks()
        assert gc.isenabled() is is_on
    finally:
        (gc.enable if before else gc.disable)()
    assert not any(was_on)


def test_last_words_are_not_waited_for_for_ever() -> None:
    never = threading.Event()
    within(0.01, lambda: void(never.wait(20)))
    never.set()


def void(_: object) -> None:
    return None


# --- a worker


@pytest.fixture
def plant() -> Plant:
    made = Plant()
    made.registry.task("write")(write)
    return made


def stuck_worker(plant: Plant, caplog: pytest.LogCaptureFixture, **settings: object) -> list[dict[str, Any]]:
    """Run a worker until its watchdog ends it; returns what it logged then."""
    over = threading.Event()
    worker = plant.worker(WATCHDOG_S=1, PROGRESS_INTERVAL_S="0.1", **settings)
    worker.shutdown.on_stuck = over.set
    with caplog.at_level(logging.INFO, "fanout"):
        in_thread(worker)
        assert over.wait(60), "the watchdog did not bark"
    lines = [json.loads(JsonLines().format(record)) for record in caplog.records]
    return [line for line in lines if line["event"] in ("worker_stuck", "worker_ended")]


@pytest.mark.parametrize("part", slow_but(["committer"], ["committer", "puller", "lease keeper", "progress writer"]))
def test_each_part_that_stands_still_ends_the_worker(plant: Plant, caplog: pytest.LogCaptureFixture, part: str) -> None:
    never = threading.Event()
    seam, method = {
        "committer": (plant.store, "write"),
        "puller": (plant.subscription, "pull"),
        "lease keeper": (plant.subscription, "extend"),
        "progress writer": (plant.store, "patch_metadata"),
    }[part]
    original = getattr(seam, method)

    def hanging(*arguments: Any, **options: Any) -> Any:
        if part != "committer" or str(arguments[0]).startswith("outcomes/"):
            never.wait(20)
        return original(*arguments, **options)

    @plant.registry.task("long")
    def long(task: Task, ctx: Any) -> None:
        never.wait(20)

    setattr(seam, method, hanging)
    plant.subscription.ack_deadline_s = 2.0
    plant.submit(3, "write" if part == "committer" else "long")
    said, last = stuck_worker(plant, caplog, BACKLOG=3)
    assert part in said["parts"]
    assert "hanging" in said["stacks"]
    assert (last["event"], last["exit_reason"]) == ("worker_ended", "stuck")
    assert plant.subscription.leased == 0, "its leases are handed back"
    assert plant.subscription.backlog == 3
    assert plant.progress().exit_reason == ("" if part == "progress writer" else "stuck")
    never.set()


@pytest.mark.slow
def test_a_long_handler_is_no_stall(plant: Plant) -> None:
    may_end = threading.Event()

    @plant.registry.task("long")
    def long(task: Task, ctx: Any) -> None:
        may_end.wait(60)

    plant.submit(1, "long")
    worker = plant.worker(BACKLOG=1, WATCHDOG_S=1, PROGRESS_INTERVAL_S="0.1")
    fired = threading.Event()
    worker.shutdown.on_stuck = fired.set
    thread, reasons = in_thread(worker)
    assert not fired.wait(2.5)
    may_end.set()
    ended(thread)
    assert reasons == [ExitReason.SHARE_DONE]


def test_stuck_has_an_exit_code_that_makes_cloud_run_try_again() -> None:
    assert exit_code(ExitReason.STUCK) == EXIT_STUCK == 4
