"""Moments: sum, mean and population standard deviation of doubles, without losing digits, overflowing or underflowing on the way.

Sums are exactly rounded (`math.fsum`); the deviation takes a second pass over differences from the mean; values are scaled
by a power of two, which changes no digit, so that squares stay within what a double can hold.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spread:
    """Where values lie, in units of 2**exponent: `middle + correction` is their mean, `stdev` their population deviation."""

    exponent: int
    middle: float
    correction: float
    stdev: float

    @property
    def mean(self) -> float:
        return math.ldexp(self.middle + self.correction, self.exponent)

    def z_score(self, value: float) -> float:
        """How many standard deviations a value lies from the mean. `stdev` must not be 0."""
        return (math.ldexp(value, -self.exponent) - self.middle - self.correction) / self.stdev


def total(values: Iterable[float]) -> float:
    """The sum, exactly rounded. Raises OverflowError when no double can hold it."""
    kept = list(values)
    try:
        return math.fsum(kept)
    except OverflowError:
        # The sum may fit although a sum on the way to it did not.
        exponent = binary_exponent(kept)
        return math.ldexp(math.fsum(math.ldexp(one, -exponent) for one in kept), exponent)


def spread(values: Sequence[float]) -> Spread:
    """Of one value or more. `stdev` is 0 exactly when all values are equal; it divides by n, not n − 1."""
    exponent = binary_exponent(values)
    scaled = [math.ldexp(one, -exponent) for one in values]
    if min(scaled) == max(scaled):
        return Spread(exponent, scaled[0], 0.0, 0.0)
    count = len(scaled)
    middle = math.fsum(scaled) / count
    differences = [one - middle for one in scaled]
    # The mean was rounded; what that left over is the mean of the differences.
    correction = math.fsum(differences) / count
    stdev = math.sqrt(math.fsum((one - correction) ** 2 for one in differences) / count)
    return Spread(exponent, middle, correction, stdev)


def binary_exponent(values: Iterable[float]) -> int:
    """The e for which the largest magnitude, divided by 2**e, lies from 0.5 up to, not including, 1; 0 when all are 0."""
    return math.frexp(max(abs(one) for one in values))[1]
