"""Pull what will start soon, never more than the share; give a slot no more than keeps the others busy."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from batch.bounds import TimeBounds, after_signal_s
from batch.config import SIGTERM_GRACE_S
from batch.flow import MAX_CHUNK, chunk_size, pull_size
from batch.subscription import MAX_PULL_MESSAGES

means = st.none() | st.floats(1e-7, 1e4)


@given(st.integers(1, 200), st.data(), st.integers(0, 5000), st.integers(0, 5000), means, st.floats(0.01, 60))
def test_a_pull_stays_within_share_service_and_need(
    slots: int, data: st.DataObject, ready: int, share_left: int, mean_s: float | None, start_within_s: float
) -> None:
    busy = data.draw(st.integers(0, slots))
    size = pull_size(slots=slots, busy=busy, ready=ready, share_left=share_left, mean_s=mean_s, start_within_s=start_within_s)
    assert 0 <= size <= min(share_left, MAX_PULL_MESSAGES)
    soon = 0 if mean_s is None else slots * start_within_s / mean_s
    assert ready + size <= max(ready, slots - busy, soon)


def test_slow_handlers_are_given_nothing_that_could_not_start() -> None:
    assert pull_size(slots=4, busy=4, ready=0, share_left=100, mean_s=600.0, start_within_s=1.0) == 0
    assert pull_size(slots=4, busy=3, ready=0, share_left=100, mean_s=600.0, start_within_s=1.0) == 1
    assert pull_size(slots=4, busy=0, ready=0, share_left=100, mean_s=None, start_within_s=1.0) == 4
    assert pull_size(slots=4, busy=4, ready=0, share_left=10_000, mean_s=0.001, start_within_s=1.0) == 1000


@given(st.integers(1, 200), st.integers(1, 5000), means)
def test_a_list_leaves_work_for_the_other_slots(slots: int, ready: int, mean_s: float | None) -> None:
    size = chunk_size(slots=slots, ready=ready, mean_s=mean_s)
    assert 1 <= size <= MAX_CHUNK
    assert size <= max(1, ready // slots)
    assert size == 1 or (mean_s is not None and size * mean_s <= 0.05)


@given(st.floats(0, 1e6), st.floats(1, 7 * 24 * 3600), st.floats(0, 1e6), st.floats(0.01, 60))
def test_a_worker_plans_to_end_before_its_timeout(started_s: float, timeout_s: float, longest_s: float, start_within_s: float) -> None:
    bounds = TimeBounds(started_s, timeout_s)
    assert started_s < bounds.end_s < started_s + timeout_s
    assert bounds.stop_pulling_s(longest_s, start_within_s) < bounds.end_s


def test_after_a_signal_there_is_time_to_flush() -> None:
    assert 100.0 < after_signal_s(100.0) <= 100.0 + SIGTERM_GRACE_S - 2.0
