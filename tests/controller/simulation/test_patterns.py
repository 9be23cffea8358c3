"""Arrivals: what every pattern promises, and what comes out of a file or of Cloud Monitoring's series."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.simulation.given.arrivals import Arrivals, total
from controller.simulation.given.patterns import HOUR_S, PATTERNS, Pattern, trickle

ALL = [*PATTERNS.values(), *(beside for pattern in PATTERNS.values() for beside in pattern.beside)]


def drawn(pattern: Pattern, seed: int = 1, horizon_s: float | None = None, rate_scale: float = 1.0) -> Arrivals:
    return pattern.arrivals(Random(seed), horizon_s or pattern.horizon_s, rate_scale)


@pytest.mark.parametrize("pattern", ALL, ids=lambda pattern: pattern.name)
@settings(max_examples=5)
@given(seed=st.integers(0, 2**32), horizon_s=st.floats(1.0, 5000.0), rate_scale=st.floats(0.01, 20.0))
def test_arrivals_are_whole_seconds_in_order_and_within_the_horizon(
    pattern: Pattern, seed: int, horizon_s: float, rate_scale: float
) -> None:
    arrivals = pattern.arrivals(Random(seed), horizon_s, rate_scale)
    times = [at_s for at_s, _ in arrivals]
    assert times == sorted(set(times))
    assert all(0 <= at_s < horizon_s and at_s == int(at_s) for at_s in times)
    assert all(isinstance(count, int) and count > 0 for _, count in arrivals)
    assert arrivals == pattern.arrivals(Random(seed), horizon_s, rate_scale), "a seed repeats a run"


@pytest.mark.parametrize("pattern", ALL, ids=lambda pattern: pattern.name)
def test_a_pattern_has_work_and_its_names_are_those_of_the_table(pattern: Pattern) -> None:
    assert 0 <= pattern.failing_share < 1
    assert total(drawn(pattern)) >= 100
    assert pattern.durations.mean(0.0) > 0


def test_the_names_are_those_of_the_table() -> None:
    assert len(PATTERNS) >= 9
    assert all(name == pattern.name for name, pattern in PATTERNS.items())


@pytest.mark.parametrize("name", sorted(set(PATTERNS) - {"trickle"}))
def test_twice_the_rate_is_about_twice_the_messages(name: str) -> None:
    once, twice = total(drawn(PATTERNS[name])), total(drawn(PATTERNS[name], rate_scale=2.0))
    assert 1.6 * once < twice < 2.4 * once


def test_a_trickle_is_a_message_every_45_seconds() -> None:
    arrivals = trickle(Random(1), 3600.0, 1.0)
    gaps = {later - earlier for (earlier, _), (later, _) in pairwise(arrivals)}
    assert gaps == {45.0}
    assert len(arrivals) == 80
    assert len(trickle(Random(1), 3600.0, 3.0)) == 240


def test_shapes() -> None:
    assert len(drawn(PATTERNS["batch"])) == 1
    hourly = drawn(PATTERNS["hourly"])
    assert {int(at_s // HOUR_S) for at_s, _ in hourly} == set(range(int(PATTERNS["hourly"].horizon_s // HOUR_S)))
    assert max(at_s % HOUR_S for at_s, _ in hourly) < 600
    day = drawn(PATTERNS["diurnal"])
    by_hour = [sum(count for at_s, count in day if at_s // HOUR_S == hour) for hour in range(24)]
    assert max(by_hour) > 5 * min(by_hour)
    storm = [count for at_s, count in drawn(PATTERNS["retry-storm"]) if at_s < HOUR_S]
    assert len(storm) > 2
    assert all(later > earlier for earlier, later in pairwise(storm))
    assert PATTERNS["poison"].failing_share > 0
    assert len(PATTERNS["two-lanes"].beside) == 1
