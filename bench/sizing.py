"""What draining costs beside what it could cost at least, and beside others' rules: the real ticks in a simulated world.

    python -m bench.sizing                     # all patterns, lags and rivals; a quarter of an hour on two cores
    python -m bench.sizing --rivals none       # without rivals; some minutes

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
from pathlib import Path
from statistics import mean

from bench.machine import facts, load
from bench.page import RESULTS, ROOT, conditions, grid, put_into
from bench.recording import Measure, Recording, write
from controller.simulation.given.delays import Lag, StartUp
from controller.simulation.given.patterns import PATTERNS
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
EVEN = 0.005
"""Costs that differ by less of the bound are the same."""
AIM, TRICKLE_AIM, DEADLINES_AIM = 1.10, 1.50, 0.99
RATIO, IN_TIME, WASTE = "cost, as a multiple of the bound", "done in time, percent", "workers without work"


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
    return Result(pattern, lag_s, seed, who, ratio, run.in_time_share, run.waste_count)


def _cells(seeds: Sequence[int], rivals: Sequence[str]) -> list[tuple[str, float, int, Sequence[str]]]:
    """Rivals, of which there are many settings, meet the first seed only."""
    return [(pattern, lag_s, seed, rivals if seed == 1 else ()) for pattern in PATTERNS for lag_s in LAGS_S for seed in seeds]


def run(seeds: Sequence[int], rivals: Sequence[str]) -> list[Result]:
    """Every cell, two at a time."""
    with Pool(os.cpu_count()) as pool:
        return [one for found in pool.imap_unordered(results_of, _cells(seeds, rivals)) for one in found]


Cells = Mapping[tuple[str, float], Mapping[str, Sequence[Result]]]


def by_cell(results: Sequence[Result]) -> Cells:
    """Results by pattern and lag, then by who; the seeds together."""
    found: dict[tuple[str, float], dict[str, list[Result]]] = defaultdict(lambda: defaultdict(list))
    for one in results:
        found[one.pattern, one.lag_s][one.who].append(one)
    return found


def ratio_of(results: Sequence[Result]) -> float:
    return mean(one.ratio for one in results)


def met_by(results: Sequence[Result]) -> float:
    return mean(one.in_time for one in results)


def in_time_of(results: Sequence[Result]) -> float:
    return min(one.in_time for one in results)


def own_table(cells: Cells) -> list[list[str]]:
    """A row for each pattern: cost beside the bound and the worst deadlines at each lag."""
    rows = []
    for pattern in dict.fromkeys(pattern for pattern in PATTERNS if (pattern, LAGS_S[0]) in cells):
        row = [pattern]
        for who in PATIENCE:
            row += [f"{ratio_of(cells[pattern, lag_s][who]):.2f}" for lag_s in LAGS_S]
        worst = min(in_time_of(cells[pattern, lag_s][who]) for lag_s in LAGS_S for who in PATIENCE)
        waste = sum(one.waste_count for lag_s in LAGS_S for who in PATIENCE for one in cells[pattern, lag_s][who])
        rows.append([*row, f"{100 * worst:.1f} %", str(waste)])
    return rows


def beaten_by(cells: Cells, rival: str) -> list[tuple[str, float]]:
    """Where a rival is cheaper at deadlines that are as good or better."""
    return [
        cell
        for cell, found in cells.items()
        for own in [[one for one in found[PATIENT] if one.seed == 1]]
        if ratio_of(found[rival]) < ratio_of(own) - EVEN and met_by(found[rival]) >= met_by(own)
    ]


def rival_table(cells: Cells, rivals: Sequence[str]) -> list[list[str]]:
    """For each kind of rival its best setting: cheapest in the mean among those that meet most deadlines."""
    rows = []
    for kind in dict.fromkeys(RIVALS[name].kind for name in rivals):
        own = [name for name in rivals if RIVALS[name].kind == kind]
        met = {name: mean(one.in_time for found in cells.values() for one in found[name]) for name in own}
        best_met = max(met.values())
        ratios = {name: mean(ratio_of(found[name]) for found in cells.values()) for name in own}
        best = min((name for name in own if met[name] >= min(DEADLINES_AIM, best_met)), key=ratios.__getitem__)
        cheaper = {name: beaten_by(cells, name) for name in own}
        most = max(own, key=lambda name: len(cheaper[name]))
        where = ", ".join(sorted({f"{pattern} {lag_s:.0f} s" for pattern, lag_s in cheaper[most]})) or "nowhere"
        rows.append([best, f"{ratios[best]:.2f}", f"{100 * met[best]:.1f} %", where])
    return rows


def measures(cells: Cells) -> list[Measure]:
    """For each cell the costs of everybody beside the bound, the deadlines, and workers that found nothing; a run for each seed."""
    found: list[Measure] = []
    for (pattern, lag_s), results in sorted(cells.items()):
        aims = {
            RATIO: f"at most {TRICKLE_AIM if pattern == 'trickle' else AIM:g}",
            IN_TIME: f"at least {100 * DEADLINES_AIM:g}",
            WASTE: "0",
        }
        own = {unit: Measure(f"{pattern}, lag {lag_s:.0f} s", unit, aim) for unit, aim in aims.items()}
        for who, runs in results.items():
            for one in sorted(runs, key=lambda one: one.seed):
                own[RATIO].add(who, one.ratio)
                own[IN_TIME].add(who, 100 * one.in_time)
                own[WASTE].add(who, one.waste_count)
        found += own.values()
    return found


def cells_of(recording: Recording) -> Cells:
    """What `measures` recorded, by cell."""
    results = []
    by_unit = {(one.name, one.unit): one.runs for one in recording.measures}
    for name in dict.fromkeys(one.name for one in recording.measures):
        pattern, _, lag = name.partition(", lag ")
        for who, ratios in by_unit[name, RATIO].items():
            told = zip(ratios, by_unit[name, IN_TIME][who], by_unit[name, WASTE][who], strict=True)
            for seed, (ratio, percent, waste_count) in enumerate(told, 1):
                results.append(Result(pattern, float(lag.split()[0]), seed, who, ratio, percent / 100, int(waste_count)))
    return by_cell(results)


def text(recording: Recording) -> str:
    """The tables of a recording."""
    cells = cells_of(recording)
    rivals = [name for name in RIVALS if any(name in found for found in cells.values())]
    seed_count = max(len(runs) for one in recording.measures for runs in one.runs.values())
    lags = [f"lag {lag_s:.0f} s" for lag_s in LAGS_S]
    head = ["pattern", *lags, *(f"{lag}, default" for lag in lags), "in time, worst", "workers without work"]
    waits = "first with `fanout/max-wait` as long as `fanout/drain-within`, then with its default, half of it"
    mean_of = f"the mean of {seed_count} seeds" if seed_count > 1 else "one seed"
    lines = [
        f"`{recording.command}`, {recording.taken[:10]}. Costs are multiples of the bound, {mean_of}: {waits}.",
        "",
        *grid(head, own_table(cells)),
    ]
    if rivals:
        said = "Rivals, with the first seed: of each kind the cheapest setting of those that meet 99 %, or most, of the deadlines."
        head = ["rival", "cost", "in time", "any setting cheaper at no worse deadlines"]
        lines += ["", said, "", *grid(head, rival_table(cells, rivals))]
    return "\n".join([*lines, "", *conditions(recording)])


def main() -> None:
    options = _options()
    rivals = [] if options.rivals == "none" else [name for name, one in RIVALS.items() if options.rivals in ("all", one.kind)]
    rivals = [name for name in rivals if RIVALS[name].max_workers >= options.rival_workers]
    recording = Recording(f"python -m bench.{NAME}", f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", load(), facts(), [], [])
    recording.measures = measures(by_cell(run(range(1, options.seeds + 1), rivals)))
    write(recording, options.output)
    shown = text(recording)
    print(shown)
    if options.page:
        options.page.write_text(put_into(options.page.read_text(encoding="utf-8"), NAME, shown), encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m bench.{NAME}", description="What draining costs beside what it could cost at least.")
    parser.add_argument("--rivals", default="all", help="all, none, or a kind of them")
    parser.add_argument("--rival-workers", type=int, default=100, help="only settings that may have so many workers")
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="of each pattern and lag")
    parser.add_argument("--output", type=Path, default=RESULTS / f"{NAME}.json")
    parser.add_argument("--page", type=lambda given: Path(given) if given else None, default=PAGE, help="page to update; empty: none")
    return parser.parse_args()


if __name__ == "__main__":
    main()
