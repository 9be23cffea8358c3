"""What a gauge that may be older than it says leaves: which part of a remainder is real, and when."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.decide.ledger import GUARD_S, Entry, Ledger
from controller.decide.unassigned.doubt import ENOUGH, Doubt, Weighed, weighed
from controller.model.reading import Idle, Value

T = 10_000.0
WITHIN_S = 600.0
RATE = 10
"""Messages acknowledged a second, where something goes on."""


def ledger(assigned: int, rate: float = RATE, at: float = T) -> Ledger:
    entries = (Entry("default-a", "d.0", True, 1, 1, assigned),)
    return Ledger(at, entries, recent=tuple(int(5 * step * rate) for step in range(1, 7)) if rate else ())


def left(found: Weighed, known: int) -> int:
    return max(0, known - found.ledger.total_count)


def seen(doubt: Doubt, count: int, assigned: int, minute: int = 0, *, rate: float = RATE, accepted: int = 0) -> tuple[int, Doubt]:
    at = T + 60 * minute
    found = weighed(doubt, ledger(assigned, rate, at), Value(count, at), accepted, now=at + 60, within_s=WITHIN_S)
    return left(found, count + accepted), found.doubt


def test_where_nothing_was_acknowledged_lately_nothing_is_doubtful() -> None:
    assert seen(Doubt(), 400, 100, rate=0)[0] == 300


def test_what_was_acknowledged_shortly_before_the_sample_explains_as_many() -> None:
    assert seen(Doubt(), 400, 100)[0] == 0
    assert seen(Doubt(), 500, 100)[0] == 100


def test_it_explains_nothing_that_was_accepted_since_the_sample() -> None:
    assert seen(Doubt(), 0, 0, accepted=400)[0] == 400
    assert seen(Doubt(), 240, 0, accepted=400)[0] == 400
    assert left(weighed(Doubt(), ledger(0), Idle(), 400, now=T, within_s=WITHIN_S), 400) == 400


def test_what_was_certain_once_is_not_hidden_by_what_others_do() -> None:
    few, doubt = seen(Doubt(), 10, 0, rate=0)
    assert few == 10
    assert seen(doubt, 12, 0, 1)[0] == 10
    assert seen(doubt.launched(10), 12, 0, 1)[0] == 0
    assert seen(doubt, 7, 0, 1)[0] == 7


def learned(late_s: float, samples: int = ENOUGH + 1) -> Doubt:
    """After samples with nothing left but what the gauge, `late_s` older than it says, still counts."""
    doubt = Doubt()
    for minute in range(-samples, 0):
        found, doubt = seen(doubt, 100 + int(late_s * RATE), 100, minute)
        assert found == 0
    return doubt


def test_the_second_sample_is_believed_once_the_gauge_was_seen_to_be_on_time() -> None:
    assert learned(0.0).guard_s == 0.0
    first, doubt = seen(learned(0.0), 350, 100)
    assert first == 0
    assert seen(doubt, 350, 100)[0] == 0, "another look at one sample confirms nothing"
    second, doubt = seen(doubt, 340, 100, 1)
    assert second == 240
    assert seen(doubt.launched(240), 340, 340, 2)[0] == 0


def test_what_only_one_sample_shows_is_not_believed_and_does_not_count_as_late() -> None:
    _, doubt = seen(learned(0.0), 300, 100)
    again, doubt = seen(doubt, 100, 100, 1)
    assert (again, doubt.late_s[-2:], doubt.guard_s) == (0, (20.0, 0.0), 0.0)


@pytest.mark.parametrize("late_s", [5.0, 20.0, 30.0])
def test_a_gauge_that_is_always_late_is_known_to_be(late_s: float) -> None:
    doubt = learned(late_s)
    assert doubt.guard_s == late_s
    for minute in range(5):
        found, doubt = seen(doubt, 100 + int(late_s * RATE), 100, minute)
        assert found == 0


def test_a_ledger_that_has_more_than_there_is_shows_nothing() -> None:
    """A launch by hand, sized for far more: it would hide that the gauge is late."""
    doubt = Doubt()
    for minute in range(5):
        _, doubt = seen(doubt, 100, 400, minute)
    assert doubt.guard_s == GUARD_S


def test_what_the_doubt_itself_has_hidden_comes_out_in_half_of_the_time_there_is() -> None:
    """A wave is launched for but for as many as were acknowledged in 30 s; no sample tells how late the gauge is."""
    doubt, found = Doubt(), []
    for minute in range(5):
        left_count, doubt = seen(doubt, 400, 100, minute, rate=9.5)
        found.append(left_count)
    assert found == [15, 15, 15, 300, 300], "300 s after the sample before the first, and at the third that shows them"
    doubt = learned(0.0)
    first, doubt = seen(doubt, 1100, 100)
    assert first == 700
    assert seen(doubt.launched(700), 1050, 750, 1)[0] == 300


def test_where_samples_have_told_that_the_gauge_is_late_the_time_that_goes_by_brings_nothing_out() -> None:
    doubt = Doubt()
    for minute in range(12):
        left_count, doubt = seen(doubt, 400, 100, minute)
        assert left_count == 0, minute


def test_one_sample_that_does_not_agree_with_the_others_brings_nothing_out() -> None:
    """What was launched for too early is the ledger's until its worker ends: meanwhile a late gauge seems to be on time."""
    doubt = learned(20.0)
    assert seen(doubt, 100 + 20 * RATE, 300, 5)[1].late_s[-1] == 0.0
    doubt = seen(doubt, 100 + 20 * RATE, 300, 5)[1]
    for minute in range(6, 20):
        found, doubt = seen(doubt, 100 + 20 * RATE, 100, minute)
        assert found == 0, minute


counts = st.integers(0, 2000)


@given(st.lists(st.tuples(counts, counts, st.floats(0, 30), st.integers(0, 300), st.booleans()), max_size=12))
def test_never_less_than_is_certain_nor_more_than_the_gauge_shows(samples: list[tuple[int, int, float, int, bool]]) -> None:
    doubt = Doubt()
    for minute, (count, assigned, rate, accepted, launches) in enumerate(samples):
        found, doubt = seen(doubt, count, assigned, minute, rate=rate, accepted=accepted)
        shown = max(0, count + accepted - assigned)
        assert max(0, shown - min(count, int(30 * rate))) <= found <= shown
        doubt = doubt.launched(found) if launches else doubt


@given(st.integers(0, 200), st.floats(0.5, 100.0), st.randoms(use_true_random=False))
def test_what_is_there_is_found_by_the_second_sample(more: int, rate: float, rng: random.Random) -> None:
    """A gauge that is on time, and a remainder that comes in the middle of a long drain."""
    doubt = Doubt()
    for earlier in range(-ENOUGH - 1, 0):
        _, doubt = seen(doubt, 100, 100, earlier, rate=rate)
    _, doubt = seen(doubt, 100 + more, 100, 0, rate=rate)
    found, _ = seen(doubt, 100 + more + rng.randint(0, 100), 100, 1, rate=rate)
    assert found >= more
