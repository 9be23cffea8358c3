"""What draining costs beside what it could cost at least, and beside others' rules: the real ticks in a simulated world.

    python -m bench.sizing                     # all patterns, lags and rivals; half an hour on two cores
    python -m bench.sizing --quick             # one seed, no rivals; two minutes

Nothing runs but arithmetic, so the machine may be busy. It writes bench/results/sizing.json, prints its tables and puts them into
docs/sizing.md. Costs are worker-seconds that are billed, at least 60 a worker, as a multiple of the clairvoyant bound.
"""

from __future__ import annotations

import argparse
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing import Pool
from statistics import mean

from batch.model.clock import iso
from bench.machine import facts, load
from bench.page import RESULTS, ROOT, conditions, grid, put_into
from bench.recording import Measure, Recording, write
from controller.simulation.delays import Lag, StartUp
from controller.simulation.patterns import PATTERNS
from controller.simulation.rival_runs import run_rival
from controller.simulation.rivals import RIVALS
from controller.simulation.running import Run, run_fanout
from controller.simulation.trials import ANNOTATIONS, Setting, least_cost_s, scenario_of

NAME = "sizing"
PAGE = ROOT / "docs" / "sizing.md"
LAGS_S = (60.0, 120.0, 180.0)
SEEDS = (1, 2, 3)
START_UP = StartUp(4.0, 12.0)
PATIENT, DEFAULT = "fanout", "fanout, max-wait by default"
PATIENCE = {PATIENT: {"fanout/max-wait": "10m"}, DEFAULT: {}}
AIM, TRICKLE_AIM, DEADLINES_AIM = 1.10, 1.50, 0.99


@dataclass(frozen=True, slots=True)
class Result:
    """One run: its cost beside the bound, and its deadlines."""

    pattern: str
    lag_s: float
    seed: int
    who: str
    ratio: float
    in_time: float
    waste_count: int
    worker_count: int


def results_of(cell: tuple[str, float, int, Sequence[str]]) -> list[Result]:
    """One pattern at one lag with one seed, by everybody."""
    pattern, lag_s, seed, rivals = cell
    found = []
    for who, patience in PATIENCE.items():
        scenario = scenario_of(PATTERNS[pattern], Setting(Lag(lag_s), START_UP, {**ANNOTATIONS, **patience}), seed)
        found.append(_result(run_fanout(scenario), cell, who))
    scenario = scenario_of(PATTERNS[pattern], Setting(Lag(lag_s), START_UP), seed)
    found += [_result(run_rival(scenario, RIVALS[name]), cell, name) for name in rivals]
    return found


def _result(run: Run, cell: tuple[str, float, int, Sequence[str]], who: str) -> Result:
    pattern, lag_s, seed, _ = cell
    ratio = run.cost_s / least_cost_s(run, START_UP.low_s)
    return Result(pattern, lag_s, seed, who, ratio, run.in_time_share, run.waste_count, sum(one.worker_count for one in run.counts.values()))
