"""What the runner is started with: how many workers at a time, how long their start takes, and what they see of the server's environment.

A worker sees only the names listed here and those passed on request, so that a setting which works locally only because a shell happened
to have it does not go unnoticed.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

INHERITED = ("PATH", "HOME", "LANG", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV")


@dataclass(frozen=True)
class StartUp:
    """How long a container takes to start. A draw depends on the seed and the try alone: the same seed gives the same delays, in whatever
    order tries are drawn. `median_s`: seconds between a worker's slot and its process. `spread`: standard deviation of the delay's
    logarithm; 0 makes every delay the median, at 0.5 one of six takes longer than 1.65 × the median."""

    median_s: float = 0.0
    spread: float = 0.0
    seed: int = 0

    def delay_s(self, execution_number: int, index: int, attempt: int) -> float:
        """The delay of one try; `execution_number` counts the executions of the server."""
        if not self.spread:
            return self.median_s
        drawn = random.Random(f"{self.seed}/{execution_number}/{index}/{attempt}").gauss(0.0, self.spread)
        return self.median_s * math.exp(drawn)


@dataclass(frozen=True)
class Settings:
    """`environment`: what every worker gets. `cwd`: where workers run; a container's `workingDir` is a path inside an image and means
    nothing here."""

    max_process_count: int
    environment: Mapping[str, str]
    cwd: Path
    startup: StartUp = field(default_factory=StartUp)


def base_environment(server: Mapping[str, str], passed: Iterable[str]) -> dict[str, str]:
    """What every worker gets; `passed` are more names to take from `server`, which may be unset there."""
    base = {name: server[name] for name in (*INHERITED, *passed) if name in server}
    base["PYTHONUNBUFFERED"] = "1"  # a killed worker's last lines are in its log
    return base
