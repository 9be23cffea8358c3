"""Message times and drawn counts: means, and sums that are drawn at once."""

from __future__ import annotations

from math import sqrt
from random import Random
from statistics import fmean, pstdev

import pytest

from controller.simulation.given.draws import binomial, poisson
from controller.simulation.given.durations import ByHour, Durations, Fixed, HeavyTail, LogNormal

KINDS: list[Durations] = [Fixed(2.0), LogNormal(2.0, 0.6), HeavyTail(1.0, 0.01, 60.0), ByHour(tuple(1.0 + hour for hour in range(24)))]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
def test_draws_are_seeded_and_meet_the_mean(kind: Durations) -> None:
    rng = Random(3)
    drawn = [kind.draw(rng, 7300.0) for _ in range(10_000)]
    assert drawn[:5] == [kind.draw(again, 7300.0) for again in [Random(3)] for _ in range(5)]
    assert all(seconds > 0 for seconds in drawn)
    assert fmean(drawn) == pytest.approx(kind.mean(7300.0), rel=0.1)


@pytest.mark.parametrize("number", [1, 5, 200, 5000])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
def test_a_sum_has_the_mean_and_the_spread_of_its_parts(kind: Durations, number: int) -> None:
    rng = Random(4)
    parts = [kind.draw(rng, 0.0) for _ in range(10_000)]
    sums = [kind.draw_sum(rng, number, 0.0) for _ in range(400)]
    assert fmean(sums) == pytest.approx(number * kind.mean(0.0), rel=0.25 if number < 10 else 0.1)
    if number >= 200:
        assert pstdev(sums) == pytest.approx(pstdev(parts) * sqrt(number), rel=0.2)


def test_a_sum_of_very_many_is_drawn_at_once() -> None:
    rng = Random(5)
    for kind in KINDS:
        assert kind.draw_sum(rng, 100_000_000, 0.0) == pytest.approx(1e8 * kind.mean(0.0), rel=0.01)
        assert kind.draw_sum(rng, 0, 0.0) == 0


def test_a_day_has_24_hours() -> None:
    hours = ByHour(tuple(float(hour + 1) for hour in range(24)))
    assert [hours.mean(at_s) for at_s in (0.0, 3599.0, 3600.0, 23 * 3600.0, 24 * 3600.0)] == [1, 1, 2, 24, 1]
    with pytest.raises(ValueError, match="24 hours, got 2"):
        ByHour((1.0, 2.0))


@pytest.mark.parametrize("mean", [0.0, 0.02, 3.0, 60.0, 900.0])
def test_poisson(mean: float) -> None:
    rng = Random(6)
    drawn = [poisson(rng, mean) for _ in range(3000)]
    assert fmean(drawn) == pytest.approx(mean, rel=0.05, abs=0.02)
    assert pstdev(drawn) == pytest.approx(sqrt(mean), rel=0.1, abs=0.02)


@pytest.mark.parametrize(
    ("number", "probability"), [(0, 0.5), (10, 0.3), (500, 0.01), (500, 0.99), (100_000, 0.0001), (50_000, 0.4), (9, 1.0)]
)
def test_binomial(number: int, probability: float) -> None:
    rng = Random(7)
    drawn = [binomial(rng, number, probability) for _ in range(2000)]
    assert all(0 <= count <= number for count in drawn)
    assert fmean(drawn) == pytest.approx(number * probability, rel=0.05)
    assert pstdev(drawn) == pytest.approx(sqrt(number * probability * (1 - probability)), rel=0.1)
