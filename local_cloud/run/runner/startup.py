"""How long a container takes to start: one delay for all, or a lognormal distribution, drawn once for each try.

A draw depends on the seed and the try alone, never on the order in which tries are drawn: the same seed gives the same delays.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass


@dataclass(frozen=True)
class StartUp:
    """`median_s`: seconds between a worker's slot and its process. `spread`: standard deviation of the delay's logarithm; 0 makes
    every delay the median, at 0.5 one of six takes longer than 1.65 × the median."""

    median_s: float = 0.0
    spread: float = 0.0
    seed: int = 0

    def delay_s(self, execution_number: int, index: int, attempt: int) -> float:
        """Of one try; `execution_number` counts the executions of the server."""
        if not self.spread:
            return self.median_s
        drawn = random.Random(f"{self.seed}/{execution_number}/{index}/{attempt}").gauss(0.0, self.spread)
        return self.median_s * math.exp(drawn)
