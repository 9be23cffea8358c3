"""Patterns of arrivals, by name: what a simulation and its benchmark run when they have no recorded ones.

Each is seeded and pure. `rate_scale` multiplies the messages, and leaves what they look like over time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import cos, pi
from random import Random

from controller.simulation.given.arrivals import Arrivals, by_second
from controller.simulation.given.draws import poisson
from controller.simulation.given.durations import Durations, Fixed, HeavyTail, LogNormal

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
TRICKLE_S = 45.0

Arriving = Callable[[Random, float, float], Arrivals]
"""From a generator, a horizon in seconds and a rate's scale (1 or more or less, above 0) to the arrivals before the horizon."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """What comes into one lane in the first `horizon_s` seconds: `arrivals`, how long a message takes, and the share of messages whose
    first attempt fails, so that they are retried deferred. `beside`: lanes that share the budget of workers with it."""

    name: str
    arrivals: Arriving
    durations: Durations
    horizon_s: float = 4 * HOUR_S
    failing_share: float = 0.0
    beside: tuple[Pattern, ...] = ()


def steady(per_s: float) -> Arriving:
    """Messages that know nothing of each other: `per_s` a second in the mean."""
    return _flow(lambda _: per_s)


def diurnal(per_s: float, swing: float = 0.95, noise: float = 0.25) -> Arriving:
    """`per_s` a second over a day, least at midnight and most at noon, by `swing` below and above; each 5 min off by about `noise`."""

    def arrivals(rng: Random, horizon_s: float, rate_scale: float) -> Arrivals:
        factors = [max(0.0, rng.gauss(1.0, noise)) for _ in range(int(horizon_s // 300) + 1)]
        flow = _flow(lambda at_s: per_s * (1 - swing * cos(2 * pi * at_s / DAY_S)) * factors[int(at_s // 300)])
        return flow(rng, horizon_s, rate_scale)

    return arrivals


def bursts(count: int, every_s: float, width_s: float, first_s: float = 0.0) -> Arriving:
    """About `count` messages within `width_s` seconds, every `every_s` seconds."""

    def arrivals(rng: Random, horizon_s: float, rate_scale: float) -> Arrivals:
        found: list[tuple[float, int]] = []
        start_s = first_s
        while start_s < horizon_s:
            shift_s = rng.uniform(0.0, 60.0)
            size = round(count * rate_scale * rng.uniform(0.7, 1.3))
            found += _over(rng, max(1, size), start_s + shift_s, width_s)
            start_s += every_s
        return by_second(found, horizon_s)

    return arrivals


def batch(count: int) -> Arriving:
    """All at once, within the first second."""

    def arrivals(rng: Random, horizon_s: float, rate_scale: float) -> Arrivals:  # noqa: ARG001
        return by_second([(0.0, max(1, round(count * rate_scale)))], horizon_s)

    return arrivals


def trickle(rng: Random, horizon_s: float, rate_scale: float) -> Arrivals:
    """One message every 45 s; a higher scale makes it more often."""
    every_s = TRICKLE_S / rate_scale
    first_s = rng.uniform(0.0, every_s)
    return by_second(((first_s + number * every_s, 1) for number in range(int(horizon_s / every_s) + 1)), horizon_s)


def stampede(count: int, after_s: float, every_s: float) -> Arriving:
    """Every `every_s` seconds a wave of `count` messages, and a second and third one while the workers of the first drain it."""
    first = bursts(count, every_s, 20.0)

    def arrivals(rng: Random, horizon_s: float, rate_scale: float) -> Arrivals:
        found = list(first(rng, horizon_s, rate_scale))
        start_s = 0.0
        while start_s < horizon_s:
            for part in (1.0, 0.5):
                wave_s = start_s + after_s * rng.uniform(0.7, 1.3) / part
                found += _over(rng, max(1, round(count * part * rate_scale)), wave_s, 20.0)
            start_s += every_s
        return by_second(found, horizon_s)

    return arrivals


def retry_storm(count: int, patience_s: float, growth: float, waves: int, every_s: float) -> Arriving:
    """Every `every_s` seconds `count` messages from a producer that has patience for `patience_s` seconds: then it publishes again what is
    not done, and what came meanwhile, so that each of the `waves` is `growth` times the one before. Known in advance, unlike a real storm,
    so that every rival meets the same."""

    def arrivals(rng: Random, horizon_s: float, rate_scale: float) -> Arrivals:
        found: list[tuple[float, int]] = []
        start_s = 0.0
        while start_s < horizon_s:
            shift_s = rng.uniform(0.0, 60.0)
            sizes = [max(number + 1, round(count * growth**number * rate_scale)) for number in range(waves)]
            found += [(start_s + shift_s + number * patience_s, size) for number, size in enumerate(sizes)]
            start_s += every_s
        return by_second(found, horizon_s)

    return arrivals


def _flow(per_s: Callable[[float], float]) -> Arriving:
    def arrivals(rng: Random, horizon_s: float, rate_scale: float) -> Arrivals:
        seconds = range(int(horizon_s) + 1)
        return by_second(((float(at_s), poisson(rng, rate_scale * per_s(at_s))) for at_s in seconds), horizon_s)

    return arrivals


def _over(rng: Random, count: int, start_s: float, width_s: float) -> list[tuple[float, int]]:
    """`count` messages over whole seconds of `width_s`, a Poisson number in all but the last."""
    seconds, left = max(1, int(width_s)), count
    pieces: list[tuple[float, int]] = []
    for second in range(seconds - 1):
        piece = min(left, poisson(rng, count / seconds))
        pieces.append((start_s + second, piece))
        left -= piece
    return [*pieces, (start_s + seconds - 1, left)]


_TWO_S = LogNormal(1.8, 0.45)
_URGENT = Pattern("two-lanes-urgent", bursts(600, 1200.0, 30.0, first_s=300.0), Fixed(1.0))
_TABLE = (
    Pattern("steady", steady(4.0), _TWO_S),
    Pattern("hourly", bursts(3000, HOUR_S, 60.0), _TWO_S, horizon_s=6 * HOUR_S),
    Pattern("diurnal", diurnal(1.0), _TWO_S, horizon_s=DAY_S),
    Pattern("batch", batch(50_000), LogNormal(1.0, 0.45), horizon_s=2 * HOUR_S),
    Pattern("trickle", trickle, _TWO_S, horizon_s=DAY_S),
    Pattern("stampede", stampede(4000, 300.0, 2 * HOUR_S), _TWO_S, horizon_s=6 * HOUR_S),
    Pattern("poison", bursts(4000, HOUR_S, 30.0), HeavyTail(1.8, 0.002, 30.0), failing_share=0.1),
    Pattern("retry-storm", retry_storm(800, 120.0, 1.5, 5, HOUR_S), _TWO_S),
    Pattern("two-lanes", bursts(5000, HOUR_S, 60.0), _TWO_S, beside=(_URGENT,)),
)
PATTERNS: Mapping[str, Pattern] = {pattern.name: pattern for pattern in _TABLE}
"""Those of the benchmark, by name."""
