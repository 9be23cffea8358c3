"""How late a sample is, and how long a worker takes to start."""

from __future__ import annotations

from random import Random
from statistics import fmean

import pytest

from controller.simulation.given.delays import START_UPS, Lag, StartUp


def test_a_lag_is_its_base_and_a_jitter_and_some_samples_are_lost() -> None:
    rng = Random(1)
    assert {Lag(120.0).draw(rng) for _ in range(5)} == {120.0}
    drawn = [Lag(120.0, 30.0, 0.2).draw(rng) for _ in range(2000)]
    seen = [late_s for late_s in drawn if late_s is not None]
    assert 90 <= min(seen) < 95
    assert 145 < max(seen) <= 150
    assert 1 - len(seen) / len(drawn) == pytest.approx(0.2, abs=0.03)
    assert all((late_s or 0) >= 0 for late_s in (Lag(5.0, 30.0).draw(rng) for _ in range(100)))


@pytest.mark.parametrize("start_up", START_UPS.values(), ids=START_UPS)
def test_a_start_up_is_between_its_bounds(start_up: StartUp) -> None:
    rng = Random(2)
    drawn = [start_up.draw(rng) for _ in range(2000)]
    assert start_up.low_s <= min(drawn) < max(drawn) <= start_up.high_s
    assert fmean(drawn) == pytest.approx(start_up.mean_s, rel=0.05)
