"""A recorded benchmark: its measures, the machine they were taken on, and the JSON file that keeps both.

It holds every single run; the median is computed from them and never stored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median


@dataclass(slots=True)
class Measure:
    """`runs` by the name of who was measured, in `unit`; `aim` says what the first of them is to reach."""

    name: str
    unit: str
    aim: str
    runs: dict[str, list[float]] = field(default_factory=dict)

    def add(self, who: str, value: float) -> None:
        self.runs.setdefault(who, []).append(round(value, 3))

    def middle(self, who: str) -> float | None:
        """The median of the runs; None if it was not measured."""
        return median(self.runs[who]) if self.runs.get(who) else None


@dataclass(slots=True)
class Recording:
    """`taken` is the UTC time of the start; `load` how many processes wanted a core in the minute before."""

    command: str
    taken: str
    load: float
    machine: Mapping[str, str]
    measures: Sequence[Measure]
    notes: Sequence[str] = ()


def write(recording: Recording, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(recording), indent=1) + "\n", encoding="utf-8")


def read(path: Path) -> Recording:
    """Raises TypeError or KeyError on a file of another layout."""
    body = json.loads(path.read_text(encoding="utf-8"))
    return Recording(**{**body, "measures": [Measure(**measure) for measure in body["measures"]]})
