"""Pokes as values: what is taken for one, which lane it is for, and that none counts twice."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.services.ports import ObjectInfo
from batch.testing import MemoryObjectStore
from controller.act.state import LaneState, StateConflict, accepted_since, load, save
from controller.service.poke_marks import MOST_ACCEPTED, Marked, marked, record
from controller.service.pokes import MAX_BODY_BYTES, MAX_COUNT, MAX_POKES, Poke, PokesRefused, lane_for, read_pokes
from controller.tick.outside import Memory
from tests.controller.fakes import lane

NOW = 1_767_225_600.0


def told(**changes: Any) -> dict[str, Any]:
    one = {"id": "poke-0001", "lane": "default", "topic": "tasks", "accepted_count": 3, "at": NOW - 1, **changes}
    return {key: value for key, value in one.items() if value is not None}


def body(*pokes: dict[str, Any]) -> bytes:
    return json.dumps({"pokes": list(pokes)}).encode()


def poke(poke_id: str = "poke-0001", count: int = 3, at: float = NOW - 1, **changes: str) -> Poke:
    return Poke(poke_id, changes.get("lane", "default"), changes.get("topic", "tasks"), count, at)


def test_a_poke() -> None:
    assert read_pokes(body(told()), NOW) == [poke()]
    assert read_pokes(body(told(lane=None), told(topic=None, accepted_count=0)), NOW) == [poke(lane=""), poke(topic="", count=0)]


def test_the_front_door_s_clock_may_be_ahead_but_no_task_counts_as_accepted_in_the_future() -> None:
    (one,) = read_pokes(body(told(at=NOW + 20)), NOW)
    assert one.at == NOW


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"id": None}, "id"),
        ({"id": "short"}, "id"),
        ({"id": "x" * 65}, "id"),
        ({"id": "with spaces"}, "id"),
        ({"id": 12345678}, "id"),
        ({"lane": None, "topic": None}, "neither"),
        ({"lane": 5}, "lane"),
        ({"topic": "x" * 300}, "topic"),
        ({"accepted_count": -1}, "accepted_count"),
        ({"accepted_count": MAX_COUNT + 1}, "accepted_count"),
        ({"accepted_count": 1.5}, "accepted_count"),
        ({"accepted_count": True}, "accepted_count"),
        ({"accepted_count": "3"}, "accepted_count"),
        ({"accepted_count": None}, "accepted_count"),
        ({"at": None}, "at"),
        ({"at": "now"}, "at"),
        ({"at": True}, "at"),
        ({"at": float("nan")}, "at"),
        ({"at": float("inf")}, "at"),
        ({"at": NOW - 121}, "clocks"),
        ({"at": NOW + 31}, "clocks"),
        ({"workers": 5}, "nothing else"),
    ],
)
def test_what_is_no_poke(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(PokesRefused, match=said):
        read_pokes(body(told(), told(**changes)), NOW)


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        b"[]",
        b"null",
        b'{"pokes": 1}',
        b'{"pokes": [1]}',
        b'{"pokes": [], "more": 1}',
        b"\xff",
        b"[" * 50_000,
        b" " * (MAX_BODY_BYTES + 1),
        body(*[told()] * (MAX_POKES + 1)),
    ],
    ids=range(10),
)
def test_bodies_that_are_none(wrong: bytes) -> None:
    with pytest.raises(PokesRefused):
        read_pokes(wrong, NOW)


def test_the_topic_says_which_lane_and_the_name_only_where_it_does_not() -> None:
    one, other = lane(name="one", topic="a"), lane(name="other", topic="b")
    twin = lane(name="twin", topic="a")
    assert lane_for(poke(lane="other", topic="a"), [one, other]) == one
    assert lane_for(poke(lane="other", topic=""), [one, other]) == other
    assert lane_for(poke(lane="twin", topic="a"), [one, twin]) == twin
    assert lane_for(poke(lane="front-door-s-name", topic="a"), [one, twin]) is None
    assert lane_for(poke(lane="one", topic="c"), [one, other]) is None


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 1000), st.integers(0, 110)), max_size=60),
    st.integers(0, 60),
    st.integers(-5, 120),
)
def test_repeated_and_reordered_pokes_count_once_and_never_before_their_time(
    given_pokes: list[tuple[int, int, int]], cut: int, sampled_before_s: int
) -> None:
    by_id = {number: poke(f"poke-{number:04d}", count, NOW - age) for number, count, age in given_pokes}
    pokes = [by_id[number] for number, _, _ in given_pokes]
    state, first = marked(LaneState("default"), pokes[:cut])
    state, second = marked(state, pokes[cut:] + pokes)
    total = sum(one.accepted_count for one in by_id.values())
    assert first.accepted_count + second.accepted_count == total == accepted_since(state, 0)
    sampled_at = NOW - sampled_before_s
    assert accepted_since(state, sampled_at) <= sum(one.accepted_count for one in by_id.values() if one.at > sampled_at)


def test_there_is_an_end_to_what_a_lane_s_pokes_tell() -> None:
    pokes = [poke(f"poke-{number:04d}", MAX_COUNT) for number in range(12)]
    state, done = marked(LaneState("default"), pokes)
    assert done == Marked(accepted_count=MOST_ACCEPTED, left_out_count=2)
    assert accepted_since(state, 0) == MOST_ACCEPTED


class Busy(MemoryObjectStore):
    """Another controller writes the lane's state just before our write, `times` times. It knows nothing of our pokes."""

    times = 0

    def write(self, name: str, data: bytes, **options: Any) -> ObjectInfo:
        if self.times:
            left, self.times = self.times - 1, 0
            save(self, LaneState("default", launched_at=7.0), load(self, "default").generation, "other")
            self.times = left
        return super().write(name, data, **options)


def test_a_controller_that_writes_at_the_same_time_loses_nothing() -> None:
    store, memory = Busy(), Memory()
    store.times = 3
    done, _ = record(store, memory, "default", [poke()], NOW, random.Random(1))
    assert done == Marked(accepted_count=3)
    found = load(store, "default")
    assert (accepted_since(found.state, 0), found.state.launched_at) == (3, 7.0)
    assert memory.state("default") == found


def test_an_endless_conflict_is_an_error_and_a_repeated_poke_writes_nothing() -> None:
    store = Busy()
    store.times = 100
    with pytest.raises(StateConflict):
        record(store, Memory(), "default", [poke()], NOW, random.Random(1))
    quiet = MemoryObjectStore()
    record(quiet, Memory(), "default", [poke()], NOW, random.Random(1))
    generation = load(quiet, "default").generation
    assert record(quiet, Memory(), "default", [poke()], NOW + 5, random.Random(1))[0] == Marked(repeated_count=1)
    assert load(quiet, "default").generation == generation


def test_a_slower_thread_does_not_make_memory_forget_a_poke() -> None:
    store, memory = MemoryObjectStore(), Memory()
    generation = save(store, LaneState("default"), 0, "tick").generation
    old = load(store, "default")
    record(store, memory, "default", [poke()], NOW, random.Random(1))
    memory.remember_state("default", old)
    assert old.generation == generation
    known = memory.state("default")
    assert known is not None
    assert known.state.accepted
