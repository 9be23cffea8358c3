"""Pull what will start soon, never more than the share or the memory; give a slot no more than keeps the others busy."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from batch.model.delivery import MAX_PULL_MESSAGES
from batch.settings import SIGTERM_GRACE_S
from batch.worker.flow import (
    FIRST_PULL,
    IDLE_S,
    MAX_CHUNK,
    MAX_OPEN_PULLS,
    MAX_QUICK_CHUNK,
    QUICK_S,
    affordable_count,
    chunk_size,
    pull_size,
    wanted_count,
)
from batch.worker.pulling.bounds import TimeBounds, after_signal_s

means = st.none() | st.floats(1e-7, 1e4)
counts = st.integers(0, 5000)


@given(st.integers(1, 200), st.data(), means, st.floats(0.01, 60))
def test_wanted_is_what_will_start_soon(slots: int, data: st.DataObject, mean_s: float | None, prefetch_s: float) -> None:
    busy = data.draw(st.integers(0, slots))
    wanted = wanted_count(concurrency=slots, busy=busy, mean_s=mean_s, prefetch_s=prefetch_s)
    soon = 0 if mean_s is None else slots * prefetch_s / mean_s
    assert slots - busy <= wanted <= max(slots - busy, soon) + 1e-6
    assert wanted <= MAX_OPEN_PULLS * MAX_PULL_MESSAGES


def test_slow_handlers_are_given_nothing_that_could_not_start() -> None:
    assert wanted_count(concurrency=4, busy=4, mean_s=600.0, prefetch_s=1.0) == 0
    assert wanted_count(concurrency=4, busy=3, mean_s=600.0, prefetch_s=1.0) == 1
    assert wanted_count(concurrency=4, busy=0, mean_s=None, prefetch_s=1.0) == 4
    assert wanted_count(concurrency=4, busy=4, mean_s=0.001, prefetch_s=1.0) == 4000


@given(counts, counts, counts, st.none() | st.floats(0, 2000), st.integers(1, 4), st.data())
def test_all_pulls_together_stay_within_what_is_allowed_and_wanted(
    wanted: int, ready: int, allowed: int, brings: float | None, max_open: int, data: st.DataObject
) -> None:
    sizes: list[int] = []
    while True:
        size = pull_size(
            wanted=wanted, ready=ready, asked=sum(sizes), allowed=allowed, brings=brings, open_pulls=len(sizes), max_open=max_open
        )
        if size == 0:
            break
        assert 1 <= size <= MAX_PULL_MESSAGES
        sizes.append(size)
    assert len(sizes) <= max_open
    assert sum(sizes) <= allowed
    assert sum(sizes) <= max(0, wanted - ready)
    if brings is None:
        assert sum(sizes) <= FIRST_PULL


def test_several_are_open_when_one_brings_less_than_is_wanted() -> None:
    def sizes(wanted: int, brings: float | None, max_open: int = MAX_OPEN_PULLS) -> list[int]:
        found: list[int] = []
        while size := pull_size(
            wanted=wanted, ready=0, asked=sum(found), allowed=10_000, brings=brings, open_pulls=len(found), max_open=max_open
        ):
            found.append(size)
        return found

    assert sizes(1000, 10) == [250, 250, 250, 250], "ten of ten thousand"
    assert sizes(1000, 2000) == [1000], "one brings all that is wanted"
    assert sizes(4000, 1000) == [1000] * 4
    assert sizes(1000, 10, max_open=1) == [1000], "the subscription looks empty"
    assert sizes(1000, None) == [FIRST_PULL], "nothing is known yet"
    assert sizes(1, 100) == [1]


@given(st.integers(1, 10**9), st.integers(0, 10**9), st.floats(0, 10**7), counts)
def test_what_is_asked_for_fits_the_memory_if_it_is_of_the_mean_size(
    max_bytes: int, outstanding_bytes: int, mean_bytes: float, asked: int
) -> None:
    count = affordable_count(max_bytes=max_bytes, outstanding_bytes=outstanding_bytes, mean_bytes=mean_bytes, asked=asked)
    if outstanding_bytes == 0 and asked == 0:
        assert count >= 1, "a message larger than the limit is still worked on, alone"
    if count > 1:
        assert outstanding_bytes + count * mean_bytes <= max_bytes


@given(st.integers(1, 200), st.integers(1, 5000), means)
def test_a_list_leaves_work_for_the_other_slots(slots: int, ready: int, mean_s: float | None) -> None:
    size = chunk_size(threads=slots, ready=ready, mean_s=mean_s)
    if mean_s is not None and mean_s <= QUICK_S:
        assert 1 <= size <= min(ready, MAX_QUICK_CHUNK)
        return
    assert 1 <= size <= MAX_CHUNK
    assert size <= max(1, ready // slots) or size * max(mean_s or 0.0, 1e-6) <= IDLE_S
    assert size == 1 or (mean_s is not None and size * mean_s <= 0.05)


@given(st.floats(0, 1e6), st.floats(1, 7 * 24 * 3600), st.floats(0, 1e6), st.floats(0.01, 60))
def test_a_worker_plans_to_end_before_its_timeout(started_s: float, timeout_s: float, longest_s: float, prefetch_s: float) -> None:
    bounds = TimeBounds(started_s, timeout_s)
    assert started_s < bounds.end_s < started_s + timeout_s
    assert bounds.stop_pulling_s(longest_s, prefetch_s) < bounds.end_s


def test_after_a_signal_there_is_time_to_flush() -> None:
    assert 100.0 < after_signal_s(100.0) <= 100.0 + SIGTERM_GRACE_S - 2.0
