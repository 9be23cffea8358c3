"""How long messages take, in seconds of one thread. Pure: a seeded generator comes in with each draw.

`draw` is one message that starts `at_s` seconds after the start of the simulation, `draw_sum` the total of many, drawn at once so that a
backlog of a hundred million messages costs no more than one of a hundred; `mean` is what a draw gives in the long run.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log, sqrt
from random import Random
from typing import Protocol

from controller.simulation.given.draws import binomial

_HOUR_S = 3600.0
_ONE_BY_ONE = 32
"""Up to here a sum is drawn message by message."""
_BODY_SIGMA = 0.3
_TAIL_LOW, _TAIL_HIGH = 0.5, 1.5


class Durations(Protocol):
    """The times that messages take."""

    def draw(self, rng: Random, at_s: float) -> float:
        """Seconds that one message takes."""

    def draw_sum(self, rng: Random, number: int, at_s: float) -> float:
        """Seconds that `number` messages take together."""

    def mean(self, at_s: float) -> float:
        """Seconds that a message takes in the long run."""


@dataclass(frozen=True, slots=True)
class Fixed:
    """Each message takes `seconds`."""

    seconds: float

    def draw(self, rng: Random, at_s: float) -> float:  # noqa: ARG002
        """Seconds that one message takes."""
        return self.seconds

    def draw_sum(self, rng: Random, number: int, at_s: float) -> float:  # noqa: ARG002
        """Seconds that `number` messages take together."""
        return self.seconds * number

    def mean(self, at_s: float) -> float:  # noqa: ARG002
        """Seconds that a message takes in the long run."""
        return self.seconds


@dataclass(frozen=True, slots=True)
class LogNormal:
    """Half of the messages take less than `median_s`; `sigma` is the standard deviation of the logarithm (0.5: one in forty takes more than
    2.7 times the median)."""

    median_s: float
    sigma: float

    def draw(self, rng: Random, at_s: float) -> float:  # noqa: ARG002
        """Seconds that one message takes."""
        return rng.lognormvariate(log(self.median_s), self.sigma)

    def draw_sum(self, rng: Random, number: int, at_s: float) -> float:
        """Seconds that `number` messages take together; a long sum is log-normal, with its mean and variance (Fenton and Wilkinson)."""
        if number <= _ONE_BY_ONE:
            return sum(self.draw(rng, at_s) for _ in range(number))
        spread = log(1 + (exp(self.sigma**2) - 1) / number)
        return rng.lognormvariate(log(number * self.mean(at_s)) - spread / 2, sqrt(spread))

    def mean(self, at_s: float) -> float:  # noqa: ARG002
        """Seconds that a message takes in the long run."""
        return self.median_s * exp(self.sigma**2 / 2)


@dataclass(frozen=True, slots=True)
class HeavyTail:
    """Most messages take about `median_s`; the share `tail_share` of them takes about `tail_s` (half of it to half more)."""

    median_s: float
    tail_share: float
    tail_s: float

    @property
    def _body(self) -> LogNormal:
        return LogNormal(self.median_s, _BODY_SIGMA)

    def draw(self, rng: Random, at_s: float) -> float:
        """Seconds that one message takes."""
        return self._tail(rng) if rng.random() < self.tail_share else self._body.draw(rng, at_s)

    def draw_sum(self, rng: Random, number: int, at_s: float) -> float:
        """Seconds that `number` messages take together: how many belong to the tail is drawn first."""
        tails = binomial(rng, number, self.tail_share)
        return self._tail_sum(rng, tails) + self._body.draw_sum(rng, number - tails, at_s)

    def mean(self, at_s: float) -> float:
        """Seconds that a message takes in the long run."""
        return self.tail_share * self.tail_s + (1 - self.tail_share) * self._body.mean(at_s)

    def _tail(self, rng: Random) -> float:
        return self.tail_s * rng.uniform(_TAIL_LOW, _TAIL_HIGH)

    def _tail_sum(self, rng: Random, tails: int) -> float:
        if tails <= _ONE_BY_ONE:
            return sum(self._tail(rng) for _ in range(tails))
        deviation = (_TAIL_HIGH - _TAIL_LOW) / sqrt(12) * sqrt(tails)
        return self.tail_s * min(tails * _TAIL_HIGH, max(tails * _TAIL_LOW, rng.gauss(tails, deviation)))


@dataclass(frozen=True, slots=True)
class ByHour:
    """Each message takes the seconds of the hour, 24 of them, in which it starts; the simulation starts at midnight."""

    seconds: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.seconds) != 24:
            raise ValueError(f"a day has 24 hours, got {len(self.seconds)}")

    def draw(self, rng: Random, at_s: float) -> float:  # noqa: ARG002
        """Seconds that one message takes."""
        return self.mean(at_s)

    def draw_sum(self, rng: Random, number: int, at_s: float) -> float:  # noqa: ARG002
        """Seconds that `number` messages take together, all in the same hour."""
        return self.mean(at_s) * number

    def mean(self, at_s: float) -> float:
        """Seconds that a message takes in the hour of `at_s`."""
        return self.seconds[int(at_s // _HOUR_S) % 24]
