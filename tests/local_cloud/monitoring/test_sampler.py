"""When points are taken, which value and age they have, and how long they stay."""

from __future__ import annotations

import math
import queue
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_cloud.monitoring.gauges import KEPT_S, Gauges, Point, QueueState
from local_cloud.monitoring.paging import page
from local_cloud.monitoring.sampler import Sampler, due_times
from tests.local_cloud.manual_clock import ManualClock

START_S = 1_700_000_040.0
assert START_S % 60 == 0


class Queue:
    """The state of one subscription, set by the test."""

    def __init__(self) -> None:
        self.count = 0
        self.age_s = 0.0
        self.acked_count = 0

    def read(self) -> list[QueueState]:
        return [QueueState("p", "s", self.count, 0, self.age_s, self.acked_count)]


def _visible(sampler: Sampler, clock: ManualClock) -> list[tuple[float, int, float]]:
    found = sampler.gauges.read("p", 0.0, clock.now(), clock.now())
    return [(point.sampled_s - START_S, point.undelivered_count, point.oldest_age_s) for point in found.get("s", [])]


def test_points_are_taken_on_the_period_and_seen_after_the_lag() -> None:
    clock, state = ManualClock(START_S + 10), Queue()
    sampler = Sampler(state.read, clock, period_s=60, lag_s=120)
    state.count = 5
    clock.advance(50)
    assert _visible(sampler, clock) == []
    state.count = 7
    clock.advance(119)
    assert _visible(sampler, clock) == []
    clock.advance(1)
    assert _visible(sampler, clock) == [(60.0, 5, 0.0)]
    clock.advance(60)
    assert _visible(sampler, clock) == [(120.0, 7, 0.0), (60.0, 5, 0.0)]


def test_an_advance_over_several_periods_fills_them_with_the_count_of_now_and_the_age_of_then() -> None:
    clock, state = ManualClock(START_S), Queue()
    sampler = Sampler(state.read, clock, period_s=60, lag_s=0)
    state.count, state.age_s = 3, 130.0
    clock.advance(190)
    assert _visible(sampler, clock) == [(180.0, 3, 120.0), (120.0, 3, 60.0), (60.0, 3, 0.0)]


def test_what_was_acknowledged_since_the_sample_before_stands_in_the_first_point_after_it() -> None:
    clock, state = ManualClock(START_S), Queue()
    state.acked_count = 100
    sampler = Sampler(state.read, clock, period_s=60, lag_s=0)
    seen = []
    for acked_count, passed_s in ((130, 60), (137, 180), (137, 60)):
        state.acked_count = acked_count
        clock.advance(passed_s)
    for point in reversed(sampler.gauges.read("p", 0.0, clock.now(), clock.now())["s"]):
        seen.append((point.sampled_s - START_S, point.acked_count, point.covered_s))
    assert seen == [(60, 130, 60), (120, 7, 60), (180, 0, 60), (240, 0, 60), (300, 0, 60)]


def test_with_period_0_every_reading_samples_so_that_the_reader_sees_it() -> None:
    clock, state = ManualClock(START_S), Queue()
    sampler = Sampler(state.read, clock, period_s=0, lag_s=0)
    for count in (1, 2):
        clock.advance(1)
        state.count = count
        end_s = clock.now() - 0.25
        sampler.prepare_reading(end_s)
        newest = sampler.gauges.read("p", 0.0, end_s, clock.now())["s"][0]
        assert (newest.sampled_s, newest.undelivered_count) == (end_s, count)


class PlanClock(ManualClock):
    """Tells until when somebody is about to wait."""

    def __init__(self) -> None:
        super().__init__(START_S)
        self.plans: queue.Queue[float | None] = queue.Queue()

    def wait_until(self, condition: threading.Condition, until: float | None) -> None:
        self.plans.put(until)
        super().wait_until(condition, until)


def test_the_thread_waits_for_the_next_period_and_looks_again_after_each_advance() -> None:
    clock, state = PlanClock(), Queue()
    sampler = Sampler(state.read, clock, period_s=60, lag_s=0)
    sampler.start()
    assert clock.plans.get(timeout=60) == START_S + 60
    clock.advance(30)
    assert clock.plans.get(timeout=60) == START_S + 60
    clock.advance(40)
    assert clock.plans.get(timeout=60) == START_S + 120
    assert _visible(sampler, clock) == [(60.0, 0, 0.0)]
    sampler.stop()


def test_points_are_forgotten_after_a_week_and_where_they_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    gauges = Gauges()
    for sampled_s in (0.0, 100.0, 200.0):
        gauges.add("p", "s", Point(sampled_s, 0.0, 1, 0.0), sampled_s)
    assert [point.sampled_s for point in gauges.read("p", -1.0, 200.0, KEPT_S + 100.0)["s"]] == [200.0, 100.0]
    gauges.add("p", "s", Point(KEPT_S + 150.0, 0.0, 1, 0.0), KEPT_S + 150.0)
    assert len(gauges._points["p", "s"]) == 2
    monkeypatch.setattr("local_cloud.monitoring.gauges.POINTS_KEPT", 2)
    gauges.add("p", "s", Point(KEPT_S + 160.0, 0.0, 1, 0.0), KEPT_S + 160.0)
    assert [point.sampled_s - KEPT_S for point in gauges._points["p", "s"]] == [150.0, 160.0]


@given(
    after_s=st.floats(0, 1e9),
    passed_s=st.floats(0, 20_000),
    period_s=st.sampled_from([1.0, 10.0, 60.0, 300.0]),
)
def test_due_times_are_the_multiples_in_between(after_s: float, passed_s: float, period_s: float) -> None:
    now_s = after_s + passed_s
    times = due_times(after_s, now_s, period_s)
    earliest_s = max(after_s, now_s - 3600)
    assert all(earliest_s < time_s <= now_s and time_s % period_s == 0 for time_s in times)
    assert len(times) == math.floor(now_s / period_s) - math.floor(earliest_s / period_s)


@given(
    counts=st.dictionaries(st.sampled_from("abc"), st.integers(1, 7), max_size=3),
    size=st.integers(1, 9),
)
def test_pages_together_are_the_whole_once(counts: dict[str, int], size: int) -> None:
    found = {name: [Point(float(-number), 0.0, number, 0.0) for number in range(count)] for name, count in sorted(counts.items())}
    token, collected, pages = "", [], 0
    while pages == 0 or token:
        shown, token = page(found, size, token)
        points = [(name, point) for name, points in shown.items() for point in points]
        assert len(points) <= size
        collected += points
        pages += 1
    assert collected == [(name, point) for name, points in found.items() for point in points]
    assert pages == max(1, math.ceil(len(collected) / size))
