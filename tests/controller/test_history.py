"""A lane's history: each decision and each end is an object that is created once. What cannot be written is not lost, and stops nothing."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from batch.model.clock import from_iso, iso
from batch.model.errors import DependencyUnavailable, PreconditionFailed
from batch.model.names import HISTORY_END, history_end_object, history_folder, history_object
from batch.services.ports import ObjectInfo
from batch.testing import ManualClock, MemoryObjectStore
from controller.act.history import kept_after, kept_newest, newest, read_between, write_history
from controller.act.intents import new_decision_id
from controller.act.state import LaneState, load
from controller.decide.decision import HoldCause, Kind, held_decision
from controller.model.reading import Idle, Unknown
from controller.observe.jobs import LaunchRefused
from controller.tick.results import TickResult
from tests.controller.fakes import World, history, job, lane, progress, tick, world, write_progress

NOON = from_iso("2026-01-31T12:00:00Z")


class Failing(MemoryObjectStore):
    """Writes to the history fail while `fails`; with `lost` they take effect all the same. `asked` counts requests."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock=clock)
        self.fails = self.lost = False
        self.asked = Counter[str]()

    def write(self, name: str, data: bytes, **options: Any) -> ObjectInfo:
        self.asked["history" if name.startswith("controller/history/") else name] += 1
        if self.fails and name.startswith("controller/history/"):
            if self.lost:
                super().write(name, data, **options)
            raise DependencyUnavailable("503 the bucket is away")
        return super().write(name, data, **options)

    def list(self, prefix: str, start: str = "") -> Iterator[ObjectInfo]:
        self.asked["list"] += 1
        return super().list(prefix, start)

    def read(self, name: str) -> bytes:
        self.asked["read"] += 1
        return super().read(name)


@pytest.fixture
def here() -> World:
    found = world([job()])
    store = Failing(found.clock)
    found.store = store
    found.outside = replace(found.outside, store=store)
    return found


def store_of(here: World) -> Failing:
    assert isinstance(here.store, Failing)
    return here.store


def ticked(here: World) -> TickResult:
    return tick(lane(), here.outside)


def objects(here: World) -> list[str]:
    return [info.name for info in here.store.list(history_folder("default"))]


def launched(here: World, count: int = 250) -> tuple[str, str]:
    """The names of the execution and of the object of its decision."""
    here.backlog_is(count)
    result = ticked(here)
    return result.launched[0], history_object("default", result.decision.decided_at, result.decision.decision_id)


def ended(here: World, name: str) -> None:
    """All of its workers have drained; a minute later."""
    began = here.clock.now()
    for index in range(here.runner.all[name].task_count):
        done = {"updated_at": began + 50, "taken": 80, "acked": 80, "last_acked_at": began + 45, "exit_reason": "share_done"}
        write_progress(here.store, name, index, progress(80, began + 12, **done))
    here.clock.advance(60)
    here.runner.complete(name, here.clock.now())
    here.backlog_is(0)


def test_a_launch_lies_under_its_day_and_id_and_its_end_beside_it(here: World) -> None:
    name, decided = launched(here)
    day, _, decision_id = decided.rpartition("/")
    assert (day, decision_id[:18]) == (f"controller/history/default/{iso(here.clock.now())[:10]}", f"{decision_id[:8]}T{decision_id[9:18]}")
    assert objects(here) == [decided]
    assert load(here.store, "default").state.unwritten == ()
    ended(here, name)
    ticked(here)
    assert objects(here)[:2] == [decided, decided + HISTORY_END]
    assert json.loads(here.store.read(decided))["actual_drain_s"] is None
    (quiet, launch) = history(here.store)
    assert (quiet["kind"], launch["actual_drain_s"], launch["decision_id"]) == ("nothing_to_do", 45.0, decision_id)
    assert load(here.store, "default").state.launches == ()


def test_a_quiet_lane_writes_nothing_for_hours(here: World) -> None:
    here.backlog_is(0)
    ticked(here)
    written = store_of(here).asked.copy()
    for _ in range(240):
        here.clock.advance(60)
        here.backlog_is(0)
        ticked(here)
    assert {name: count for name, count in store_of(here).asked.items() if name not in ("list", "read")} == {
        name: count for name, count in written.items() if name not in ("list", "read")
    }
    assert len(objects(here)) == 1


def test_a_lane_whose_backlog_is_assigned_writes_nothing_while_only_numbers_change(here: World) -> None:
    launched(here, 250)
    for count in (250, 240, 230, 229):
        here.clock.advance(60)
        here.backlog_is(count)
        assert ticked(here).decision.kind is Kind.NOTHING_TO_DO
    assert len(objects(here)) == 2


def test_another_reason_of_the_same_kind_is_told(here: World) -> None:
    for reason in ("503 from Monitoring", "its answer was cut"):
        here.backlog.reading = Unknown(reason)
        ticked(here)
        here.clock.advance(60)
    assert ["cut" in one["reason"] for one in history(here.store)] == [True, False]


def test_what_cannot_be_written_keeps_nothing_from_being_launched_and_is_written_by_the_next_tick(here: World) -> None:
    store_of(here).fails = True
    here.backlog_is(250)
    result = ticked(here)
    assert len(result.launched) == 1
    (note,) = [one for one in result.notes if "history" in one]
    assert note == "the lane's history could not be written, the next tick tries again: 503 the bucket is away"
    (unwritten,) = load(here.store, "default").state.unwritten
    store_of(here).fails = False
    here.clock.advance(60)
    ticked(here)
    assert objects(here)[0] == unwritten.name
    assert load(here.store, "default").state.unwritten == ()


def test_a_decision_that_is_no_launch_is_not_lost_either(here: World) -> None:
    store_of(here).fails = True
    here.backlog_is(0)
    assert ticked(here).notes
    store_of(here).fails = False
    here.clock.advance(60)
    here.backlog_is(0)
    assert not ticked(here).notes
    assert [one["kind"] for one in history(here.store)] == ["nothing_to_do"]


def test_a_lost_answer_is_recognized_and_nothing_is_written_twice(here: World) -> None:
    store_of(here).fails = store_of(here).lost = True
    _, decided = launched(here)
    before = here.store.info(decided)
    store_of(here).fails = False
    here.clock.advance(60)
    assert not ticked(here).notes
    assert here.store.info(decided) == before
    assert load(here.store, "default").state.unwritten == ()


def test_a_controller_that_dies_after_the_launch_leaves_the_decision_to_the_next(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr("controller.tick.action.write_history", die)
        with pytest.raises(Killed):
            launched(here)
    assert not objects(here)
    here.clock.advance(60)
    ticked(here)
    assert [one["kind"] for one in history(here.store)] == ["nothing_to_do", "launch"]


def test_the_end_that_another_controller_told_first_stands(here: World) -> None:
    name, decided = launched(here)
    here.store.write(decided + HISTORY_END, b'{"actual_drain_s": 1.5}')
    ended(here, name)
    assert not ticked(here).notes
    assert history(here.store)[-1]["actual_drain_s"] == 1.5


def test_a_launch_that_was_refused_is_not_awaited(here: World) -> None:
    here.runner.run_errors = [LaunchRefused("403 may not run")]
    here.backlog_is(250)
    ticked(here)
    assert [one["kind"] for one in history(here.store)] == ["launch"]
    assert load(here.store, "default").state.launches == ()


def filled(times: list[float]) -> MemoryObjectStore:
    """Decisions of lane `default` at these times, and one of a lane whose name begins with its."""
    store = MemoryObjectStore()
    for number, at in enumerate(times):
        for name in ("default", "default-2"):
            decision = held_decision(name, Idle(), at, HoldCause.PAUSED, f"{name} {number}")
            write_history(store, LaneState(name).with_decision(decision, new_decision_id(at, random.Random(number))))
    return store


def numbers(found: Any) -> list[int]:
    return [int(one["reason"].removeprefix("default ")) for one in found]


def test_the_newest_are_found_however_old_they_are() -> None:
    store = filled([NOON - days * 86400 for days in (2000, 400, 400, 3, 3, 0)])
    assert numbers(newest(store, "default", 1, NOON)) == [5]
    assert numbers(newest(store, "default", 4, NOON))[:2] == [5, 4] or numbers(newest(store, "default", 4, NOON))[:2] == [5, 3]
    assert len(newest(store, "default", 100, NOON)) == 6
    assert numbers(newest(store, "default", 1, NOON - 86400 * 500)) == [0]
    assert newest(store, "default", 5, NOON - 86400 * 3000) == []
    assert newest(store, "other", 5, NOON) == []


def test_what_stands_between_two_times_comes_oldest_first_and_to_the_millisecond() -> None:
    times = [NOON - 2 * 86400, NOON - 1.0, NOON - 0.5, NOON, NOON + 0.001, NOON + 86400]
    store = filled(times)
    assert numbers(read_between(store, "default", NOON - 1.0, NOON)) == [1, 2, 3]
    assert numbers(read_between(store, "default", 0.0, 4e9)) == [0, 1, 2, 3, 4, 5]
    assert numbers(newest(store, "default", 2, NOON - 0.5)) == [2, 1]
    (third,) = kept_newest(store, "default", 1, NOON - 0.5)
    following = kept_after(store, "default", third)
    assert following is not None
    assert json.loads(store.read(following.name))["reason"] == "default 3"


def test_more_than_a_batch_is_read_once_each() -> None:
    store = filled([NOON + number for number in range(150)])
    assert numbers(read_between(store, "default", NOON, NOON + 1000)) == list(range(150))


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_what_is_damaged_is_left_out_with_a_note(body: bytes) -> None:
    store = filled([NOON, NOON + 1])
    first, second = [info.name for info in store.list(history_folder("default"))]
    store.write(second, body)
    notes: list[str] = []
    assert numbers(newest(store, "default", 5, NOON + 60, notes.append)) == [0]
    assert len(notes) == 1
    assert second in notes[0]
    store.write(first + HISTORY_END, body)
    assert numbers(read_between(store, "default", 0, NOON + 60, notes.append)) == [0]
    assert first + HISTORY_END in notes[1]


def test_an_end_without_its_decision_is_left_out() -> None:
    store = filled([NOON])
    store.write(history_end_object("default", NOON - 5, "20260131T115955000-00000000"), b"{}")
    store.write(history_end_object("default", NOON + 5, "20260131T120005000-00000000"), b"{}")
    assert numbers(newest(store, "default", 5, NOON + 60)) == [0]


def test_explaining_a_lane_reads_few_objects(here: World) -> None:
    for number in range(30):
        decision = held_decision("default", Idle(), here.clock.now() - number, HoldCause.PAUSED, "paused")
        write_history(here.store, LaneState("default").with_decision(decision, new_decision_id(decision.decided_at, here.outside.rng)))
    asked = store_of(here).asked
    asked.clear()
    assert len(newest(here.store, "default", 1, here.clock.now())) == 1
    assert asked == {"list": 1, "read": 1}


def test_two_controllers_never_clash() -> None:
    store = MemoryObjectStore()
    decision = held_decision("default", Idle(), NOON, HoldCause.PAUSED, "paused")
    for seed in (1, 2):
        state = LaneState("default").with_decision(decision, new_decision_id(NOON, random.Random(seed)))
        assert write_history(store, state)[0].unwritten == ()
    assert len(newest(store, "default", 5, NOON)) == 2
    with pytest.raises(PreconditionFailed):
        store.write(next(info.name for info in store.list(history_folder("default"))), b"", if_generation=0)
