"""The counters, their marks on the grid of 15 s, and what was handed back for later: what the controller's ledger believes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from batch.model.progress import MARK_EVERY_S
from batch.testing import ManualClock
from batch.worker.tally import Tally


@given(st.lists(st.tuples(st.floats(0, 40), st.integers(0, 50)), max_size=38), st.floats(0, 500))
def test_the_marks_tell_what_was_acknowledged_within_15_seconds(steps: list[tuple[float, int]], asked_after_s: float) -> None:
    clock = ManualClock()
    tally = Tally(clock, 10_000)
    began = clock.now()
    history = [(began, 0)]
    for wait_s, count in steps:
        clock.advance(wait_s)
        tally.took(count)
        tally.acknowledged(count, [])
        history.append((clock.now(), tally.acked))
    progress = tally.progress()
    asked = began + asked_after_s
    begin = int(asked) // MARK_EVERY_S * MARK_EVERY_S
    marked = max((acked for at, acked in progress.marks if at <= asked), default=0)
    most = max(acked for at, acked in history if at < begin + MARK_EVERY_S)
    assert marked <= progress.acked_at(asked) <= most
    assert progress.acked == history[-1][1]


def test_the_last_acknowledgement_has_its_time() -> None:
    clock = ManualClock()
    tally = Tally(clock, 100)
    assert tally.progress().last_acked_at == 0.0
    tally.took(30)
    tally.acknowledged(10, [])
    acked_at = clock.now()
    clock.advance(7)
    tally.acknowledged(0, [])
    assert tally.progress().last_acked_at == acked_at


def test_the_longest_message_is_told_and_a_group_is_split_among_its_own() -> None:
    tally = Tally(ManualClock(), 100)
    assert tally.progress().longest_s == 0.0
    tally.ran(3, 6.0, 4.0)
    tally.ran(20, 400.0, 20.0, handler_s=20.0)
    assert (tally.progress().longest_s, tally.longest_s) == (4.0, 20.0)


def test_marks_stand_on_the_grid_with_what_was_acknowledged_before() -> None:
    clock = ManualClock()
    tally = Tally(clock, 100)
    tally.took(30)
    tally.acknowledged(10, [])
    clock.advance(MARK_EVERY_S)
    tally.acknowledged(20, [])
    progress = tally.progress()
    assert [acked for _, acked in progress.marks] == [0, 10]
    assert all(at % MARK_EVERY_S == 0 for at, _ in progress.marks)


def test_what_goes_back_for_later_is_deferred_until_it_is_due() -> None:
    clock = ManualClock()
    tally = Tally(clock, 100)
    tally.took(5)
    tally.nacked(2, 30.0)
    tally.nacked(1, 0.0)
    progress = tally.progress()
    assert [count for _, count in progress.deferred] == [2]
    assert progress.deferred[0][0] >= clock.now() + 30
    assert progress.held == 2
    clock.advance(32)
    assert tally.progress().deferred == ()


def test_what_is_parked_is_acknowledged_and_not_deferred() -> None:
    tally = Tally(ManualClock(), 100)
    tally.took(5)
    tally.acknowledged(2, ["succeeded", "dead"])
    tally.acknowledged(3, (), delayed=3)
    progress = tally.progress()
    assert (progress.acked, progress.delayed, progress.held, progress.deferred) == (5, 3, 0, ())
    assert progress.succeeded + progress.dead == 2
