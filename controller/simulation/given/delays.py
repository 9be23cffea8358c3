"""How late things are: the gauge of the backlog, and workers that start. Pure: a seeded generator comes in with each draw."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

_HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Lag:
    """A sample of the gauge can be read `base_s` seconds after it was taken, up to `jitter_s` sooner or later; the share `gap_share` of the
    samples can never be read."""

    base_s: float
    jitter_s: float = 0.0
    gap_share: float = 0.0

    def draw(self, rng: Random) -> float | None:
        """Seconds until one sample can be read, 0 or more; None: never."""
        late_s = max(0.0, self.base_s + rng.uniform(-self.jitter_s, self.jitter_s))
        return None if rng.random() < self.gap_share else late_s


@dataclass(frozen=True, slots=True)
class StartUp:
    """From a launch to a worker's first pull it takes from `low_s` to `high_s` seconds, each as likely as the next."""

    low_s: float
    high_s: float

    def draw(self, rng: Random) -> float:
        """Seconds that one worker takes to start."""
        return rng.uniform(self.low_s, self.high_s)

    @property
    def mean_s(self) -> float:
        """Seconds in the long run."""
        return (self.low_s + self.high_s) / 2


START_UPS: Mapping[str, StartUp] = {
    "ordinary": StartUp(4.0, 12.0),
    "direct-vpc": StartUp(20.0, 90.0),
    "delayed": StartUp(0.0, 12 * _HOUR_S),
}
"""By name: an ordinary job; one whose connections wait for Direct VPC egress; a delayed job, which Cloud Run starts when it likes."""
