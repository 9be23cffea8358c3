"""A lane's state: what is kept, how long, in which format, and who may write it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.model.names import lane_state_object
from batch.testing import MemoryObjectStore
from controller.act.intents import Intent, Part, PartState
from controller.act.state import (
    ACCEPTED_KEPT_S,
    FORMAT,
    LAUNCHES_KEPT,
    LEDGER_ENTRIES_KEPT,
    POKES_KEPT,
    UNWRITTEN_KEPT,
    Backoff,
    LaneState,
    StateConflict,
    StateUnreadable,
    Stored,
    Unwritten,
    accepted_since,
    load,
    save,
)
from controller.decide.decision import HoldCause, Kind, OpenLaunch, held_decision, last_of
from controller.decide.ledger import Entry, Ledger
from controller.decide.probe import Blind
from controller.decide.rates import Learned, Sample
from controller.decide.unassigned.since import Group, Waiting
from controller.model.reading import Idle
from controller.observe.listing import Observed, Seen
from tests.controller.fakes import JOB

HOLD = held_decision("default", Idle(), 5.0, HoldCause.PAUSED, "the lane is paused")
FULL = LaneState(
    "default",
    intents=(Intent("d", 5.0, (Part("d.0", 2, 10, PartState.LAUNCHED, "default-a"),)),),
    last=last_of(HOLD),
    launches=(OpenLaunch("d", 5.0, 2, 60.0),),
    launched_at=2.0,
    unwritten=(Unwritten("controller/history/default/1970-01-01/x", {"kind": "launch"}),),
    observed=Observed("u", 7, "default-a", 1, 100.0, 90.0, (Seen(f"{JOB}/executions/default-a", 2, True),)),
    accepted=((100.0, 3),),
    pokes=("p1",),
    backoff=Backoff(200.0, 2, "429"),
    waiting=Waiting((Group(50.0, 3),)),
    learned=Learned((Sample(0.5, 10, 4.0, None),), ("default-z",)),
    blind=Blind(10.0, 1, 20.0),
    spent=((7200.0, 1.25),),
    failed_launch_count=2,
)


@pytest.fixture
def store() -> MemoryObjectStore:
    return MemoryObjectStore()


def test_what_is_saved_is_loaded_one_epoch_later(store: MemoryObjectStore) -> None:
    generation = save(store, FULL, 0, "a").generation
    found = load(store, "default")
    assert (found.generation, found.state.epoch) == (generation, 1)
    again = save(store, found.state, found.generation, "b")
    assert again == load(store, "default")
    assert again.state.epoch == 2
    assert again.state.last == FULL.last


def test_only_the_generation_that_was_read_is_replaced(store: MemoryObjectStore) -> None:
    generation = save(store, LaneState("default"), 0, "a").generation
    save(store, FULL, generation, "b")
    with pytest.raises(StateConflict, match="stands down"):
        save(store, LaneState("default"), generation, "c")
    assert load(store, "default").state.launches == FULL.launches


def changed(**changes: object) -> bytes:
    store = MemoryObjectStore()
    save(store, FULL, 0, "a")
    return json.dumps({**json.loads(store.read(lane_state_object("default"))), **changes}).encode()


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 1},
        {"format": 1.5},
        {"format": str(FORMAT)},
        {"epoch": -1},
        {"epoch": None},
        {"observed": {}},
        {
            "observed": {
                "job_uid": "",
                "counted": -1,
                "latest": "",
                "missing_count": 0,
                "listed_at": 0,
                "short_since": None,
                "executions": [],
            }
        },
        {
            "observed": {
                "job_uid": "",
                "counted": None,
                "latest": "",
                "missing_count": 0,
                "listed_at": "nan",
                "short_since": None,
                "executions": [],
            }
        },
        {"accepted": [[1, "many"]]},
        {"accepted": [5]},
        {"backoff": {"until": "inf", "count": 1, "reason": ""}},
        {"backoff": 5},
        {"waiting": {"groups": [["soon", 1]]}},
        {"learned": {"samples": [[-1, 1, None, None]], "executions": []}},
        {"blind": {"since": "x"}},
        {"pokes": 5},
        {"last": 5},
        {"last": {"kind": "launch"}},
        {"launches": [{"decision_id": "d", "decided_at": "soon", "workers": 1, "predicted_drain_s": None}]},
        {"unwritten": [["name", 5]]},
    ],
)
def test_a_state_with_a_wrong_field_is_unreadable_and_says_what_to_do(store: MemoryObjectStore, changes: dict[str, object]) -> None:
    store.write(lane_state_object("default"), changed(**changes))
    with pytest.raises(StateUnreadable, match="delete it to start afresh"):
        load(store, "default")


def test_the_state_of_a_newer_controller_is_not_to_be_deleted(store: MemoryObjectStore) -> None:
    store.write(lane_state_object("default"), changed(format=FORMAT + 1, epoch="another layout"))
    with pytest.raises(StateUnreadable, match=rf"newer controller.*format {FORMAT + 1}.*update this one") as told:
        load(store, "default")
    assert "delete" not in str(told.value)


def test_what_is_kept_for_the_history_is_bounded_in_number_and_in_what_one_holds() -> None:
    entry = Entry("default-a", "d.0", True, 1, 1, 7)
    launch = replace(HOLD, kind=Kind.LAUNCH, hold_cause=None, ledger=Ledger(0.0, (entry,) * 500))
    state = LaneState("default")
    for number in range(LAUNCHES_KEPT + 5):
        state = state.with_decision(replace(launch, decision_id=f"d{number}"), f"d{number}")
    last = f"d{LAUNCHES_KEPT + 4}"
    assert (len(state.launches), state.launches[-1].decision_id) == (LAUNCHES_KEPT, last)
    assert (len(state.unwritten), state.unwritten[-1].name) == (UNWRITTEN_KEPT, f"controller/history/default/1970-01-01/{last}")
    ledger = state.unwritten[-1].body["ledger"]
    assert (len(ledger["entries"]), ledger["entries_left_out_count"], ledger["total_count"]) == (
        LEDGER_ENTRIES_KEPT,
        500 - LEDGER_ENTRIES_KEPT,
        3500,
    )


def test_the_last_launch_is_the_last_that_was_not_refused() -> None:
    refused = Intent("e", 9.0, (Part("e.0", 2, 10, PartState.REFUSED),))
    state = replace(FULL, launched_at=2.0)
    assert state.with_intent(refused).last_launch_at == 5.0
    assert replace(state, intents=(refused,)).last_launch_at == 2.0
    assert LaneState("default").last_launch_at is None


@pytest.mark.parametrize(
    ("reason", "changes", "repeats"),
    [
        ("all 7 messages are assigned already", {}, True),
        ("all 12 messages are assigned already", {}, True),
        ("the backlog is 0", {}, False),
        ("all 7 messages are assigned already", {"kind": Kind.HOLD, "hold_cause": HoldCause.BROKEN}, False),
        ("all 7 messages are assigned already", {"kind": Kind.LAUNCH}, False),
    ],
)
def test_a_decision_repeats_the_last_if_only_numbers_changed(reason: str, changes: dict[str, object], repeats: bool) -> None:
    nothing = replace(HOLD, kind=Kind.NOTHING_TO_DO, hold_cause=None, reason="all 7 messages are assigned already")
    assert last_of(nothing).is_repeated_by(replace(nothing, reason=reason, **changes)) is repeats  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (
            "3 wait, until 2026-01-31T03:10:00Z at the latest (2 min 5 s more)",
            "3 wait, until 2026-01-31T03:10:00Z at the latest (5 s more)",
        ),
        ("no execution of default-x7k2p in 1 h", "no execution of default-00004 in 1 d 2 h"),
        ("503 x" + "y" * 499 + "a", "503 x" + "y" * 499 + "b"),
    ],
)
def test_times_and_names_with_a_number_are_numbers(first: str, second: str) -> None:
    assert last_of(replace(HOLD, reason=first)).is_repeated_by(replace(HOLD, reason=second))


def test_accepted_tasks_count_only_after_the_sample_and_once_for_each_poke() -> None:
    state = LaneState("default").with_accepted(100.2, 3, "a").with_accepted(100.9, 4, "b").with_accepted(130.0, 5, "c")
    assert state.accepted == ((100.0, 7), (130.0, 5))
    assert state.with_accepted(131.0, 9, "b") == state
    assert [accepted_since(state, at) for at in (99.0, 100.0, 129.9, 130.0)] == [12, 5, 5, 0]


def test_what_was_accepted_long_ago_is_forgotten() -> None:
    state = LaneState("default").with_accepted(100.0, 3).with_accepted(100.0 + ACCEPTED_KEPT_S + 1, 4)
    assert state.accepted == ((1001.0, 4),)
    assert state.pruned(1001.0) is state
    assert state.pruned(5000.0).accepted == ()


@given(st.lists(st.tuples(st.floats(0, 5000), st.integers(1, 10)), max_size=60))
def test_accepted_marks_stay_bounded_and_never_count_more_than_was_told(pokes: list[tuple[float, int]]) -> None:
    state = LaneState("default")
    for number, (at, count) in enumerate(pokes * 10):
        state = state.with_accepted(at, count, f"p{number}")
    assert len(state.accepted) <= ACCEPTED_KEPT_S + 1
    assert len(state.pokes) <= POKES_KEPT
    assert accepted_since(state, 0.0) <= 10 * sum(count for _, count in pokes)


def test_a_state_that_is_known_already_is_not_taken_apart_again(store: MemoryObjectStore) -> None:
    known = save(store, FULL, 0, "a")
    assert load(store, "default", known) is known
    newer = save(store, known.state, known.generation, "b")
    assert load(store, "default", known) == newer
    store.delete(lane_state_object("default"))
    assert load(store, "default", newer) == Stored(LaneState("default"), 0)
