"""The retry rules: which dead letters go back without a person, when, and how often; and how the controller passes them on."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.dead.lanes import LaneFacts, read_lanes, write_lanes
from batch.dead.letters import Letter
from batch.dead.rules import MAX_WAIT_S, NO_RULES, Rules
from batch.model.clock import iso
from batch.model.errors import ObjectDamaged
from batch.model.names import LANES
from batch.testing import MemoryObjectStore

AT_S = 1_767_225_600.0
LETTER = Letter("one", "work", "lane", "s", iso(AT_S), iso(AT_S), "TimeoutError", "slow", "0123456789abcdef")
RULES = Rules(("TimeoutError",), after_s=600.0, times=3, rate=100.0)


@pytest.mark.parametrize(
    ("errors", "taken"),
    [(("TimeoutError",), True), (("0123456789abcdef",), True), (("*",), True), (("KeyError", "Timeout"), False), ((), False)],
)
def test_a_letter_is_taken_by_its_error(errors: tuple[str, ...], taken: bool) -> None:
    assert replace(RULES, errors=errors).take(LETTER) is taken


def test_a_letter_that_is_kept_for_a_person_is_never_taken() -> None:
    assert not replace(RULES, errors=("*",)).take(replace(LETTER, kept_because="its id is lost"))


def test_what_was_replayed_too_often_waits_for_a_person() -> None:
    assert [RULES.take(replace(LETTER, replay_number=number)) for number in range(5)] == [True, True, True, False, False]


@given(task_id=st.text(max_size=20), number=st.integers(0, 10**6), after_s=st.floats(0.0, 1e9))
def test_it_is_due_after_a_wait_that_doubles_with_each_replay(task_id: str, number: int, after_s: float) -> None:
    rules = Rules(("*",), after_s, times=10**9)
    letter = replace(LETTER, task_id=task_id, replay_number=number)
    wait_s = min(MAX_WAIT_S, after_s * 2.0 ** min(number, 20))
    due_s = rules.due_s(letter)
    assert AT_S + wait_s <= due_s <= AT_S + 2 * wait_s + 0.001
    assert (rules.due(letter, due_s), rules.due(letter, due_s - 1)) == (True, False)


def test_what_died_together_does_not_come_back_together() -> None:
    dues = sorted(RULES.due_s(replace(LETTER, task_id=f"task-{number}")) - AT_S for number in range(500))
    most_a_minute = max(sum(minute <= due < minute + 60 for due in dues) for minute in range(600, 1200, 60))
    assert (dues[0] >= 600, dues[-1] <= 1200, most_a_minute < 80) == (True, True, True)


def test_a_letter_without_a_time_waits() -> None:
    assert not RULES.due(replace(LETTER, died_at="yesterday"), AT_S + 1e9)


# --- controller/lanes.json

FACTS = {name: LaneFacts(name, f"{name}-sub", f"{name}-topic", rules) for name, rules in (("a", RULES), ("b", NO_RULES))}


def test_lanes_are_written_once_and_read_again() -> None:
    store = MemoryObjectStore()
    assert read_lanes(store) == {}
    assert [write_lanes(store, FACTS) for _ in range(2)] == [True, False]
    assert read_lanes(store) == FACTS


def test_lanes_that_are_not_named_go_unless_they_are_kept() -> None:
    store = MemoryObjectStore()
    write_lanes(store, FACTS)
    only = {"a": replace(FACTS["a"], topic="other")}
    assert write_lanes(store, only, keep_others=True)
    assert read_lanes(store) == {**FACTS, **only}
    assert write_lanes(store, only)
    assert read_lanes(store) == only


@pytest.mark.parametrize(
    "data", [b"", b"[]", b'{"lanes": []}', b'{"lanes": {"a": {}}}', b'{"lanes": {"a": {"rules": {"errors": 1}}}}', b"[" * 9999]
)
def test_what_is_not_a_controllers_is_said_and_replaced(data: bytes) -> None:
    store = MemoryObjectStore()
    store.write(LANES, data)
    with pytest.raises(ObjectDamaged, match="delete it, and a tick writes it within ten minutes"):
        read_lanes(store)
    assert write_lanes(store, FACTS, keep_others=True)
    assert read_lanes(store) == FACTS
