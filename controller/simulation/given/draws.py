"""Counts drawn from a seeded generator: the standard library of Python 3.11 has neither Poisson nor binomial."""

from __future__ import annotations

from math import exp, log, sqrt
from random import Random

_LARGE = 100.0
"""From this variance on a normal approximation is as good as what it stands for."""
_FEW = 64


def poisson(rng: Random, mean: float) -> int:
    """How many events happen where `mean` are expected."""
    if mean <= 0:
        return 0
    if mean > _LARGE:
        return max(0, round(rng.gauss(mean, sqrt(mean))))
    count, product, least = 0, rng.random(), exp(-mean)
    while product > least:
        count += 1
        product *= rng.random()
    return count


def binomial(rng: Random, number: int, probability: float) -> int:
    """How many of `number` independent events happen, each with `probability`."""
    if number <= 0 or probability <= 0:
        return 0
    if probability >= 1:
        return number
    if probability > 0.5:
        return number - binomial(rng, number, 1 - probability)
    if number <= _FEW:
        return sum(rng.random() < probability for _ in range(number))
    variance = number * probability * (1 - probability)
    if variance > _LARGE:
        return min(number, max(0, round(rng.gauss(number * probability, sqrt(variance)))))
    count, tried, none = 0, 0, log(1 - probability)
    while (tried := tried + 1 + int(log(1 - rng.random()) / none)) <= number:
        count += 1
    return count
