"""Two versions of the worker, side by side: this checkout and another one, in interleaved pairs on the same servers.

    python -m bench.pairs /path/to/the/other/checkout --pairs 9

The other checkout has its own `.venv`. A pair measures both, one after the other, and the next pair begins with the other one, so that
what disturbs the machine disturbs both alike. What is printed is the ratio of each pair, this one to the other, larger is better: its
geometric mean and the 95 % interval (Student's t on logarithms). A measure is worse when its whole interval lies below 0.97.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median, stdev

from bench.servers import google_pubsub, local_service

ROOT = Path(__file__).resolve().parent.parent
WORSE_BELOW = 0.97
T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
"""Student's t for a two-sided interval of 95 %, by the number of pairs."""
MEASURES = ("N1", "N2", "N3", "N4", "N5", "N6", "N15")
RUN_LIMIT_S = 900
ONE = """
import itertools, json, sys
from bench.worker import lane, measures as m
from bench.worker.bench import Bench, Servers
from bench.worker.contenders import CONTENDERS, FANOUT, GROUPED
pubsub, storage, wanted, run_number = json.loads(sys.argv[1])
lane._numbers = itertools.count(1000 * run_number)
bench = Bench(Servers({m.GOOGLE: pubsub}, storage, lambda address, _delay: address), 1.0)
by_name = {one.name: one for one in CONTENDERS}
if "N1" in wanted: bench._contender(by_name[FANOUT], m.GOOGLE, 0)
if "N2" in wanted: bench._contender(by_name[GROUPED], m.GOOGLE, 0)
if "N3" in wanted: bench._waits(m.GOOGLE)
if "N4" in wanted: bench._starts()
if "N5" in wanted: bench._memory(m.GOOGLE, (m.SMALL, m.LARGE))
if "N6" in wanted: bench._tail(m.GOOGLE)
if "N15" in wanted: bench._files(m.GOOGLE)
found = {f"{one.name} | {who}": [one.unit, values] for one in bench.measures for who, values in one.runs.items()}
print(json.dumps({"found": found, "notes": bench.notes}))
"""
"""Run in a checkout, with its own code: what its own benchmark measures, once."""
LARGER_IS_BETTER = ("messages/s", "tasks/s", "% of concurrency ÷ time")
LEFT_OUT = ("Cloud Run,", "from the start of the process | Python alone", "from the start of the process | `from google")


def main() -> None:
    options = _options()
    pairs: list[tuple[Mapping[str, float], Mapping[str, float]]] = []
    units: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder, google_pubsub() as pubsub, local_service("storage", Path(folder)) as storage:
        for number in range(options.pairs):
            both: dict[Path, Mapping[str, float]] = {}
            for turn, checkout in enumerate((ROOT, options.other) if number % 2 else (options.other, ROOT)):
                call = [pubsub.address, storage.address, options.measures, 2 * number + turn + 1]
                both[checkout], found_units = measured(checkout, call)
                units.update(found_units)
            pairs.append((both[ROOT], both[options.other]))
            print(f"pair {number + 1} of {options.pairs}", file=sys.stderr, flush=True)
    print("\n".join(table(pairs, units)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.pairs", description="Two checkouts of the worker in interleaved pairs.")
    parser.add_argument("other", type=Path, help="the other checkout; its .venv/bin/python runs it")
    parser.add_argument("--pairs", type=int, default=9, choices=sorted(T_95), help="how many pairs (default: 9)")
    parser.add_argument("--measures", type=lambda given: given.split(","), default=list(MEASURES[:4]), help="default: N1 to N4")
    return parser.parse_args()


def measured(checkout: Path, call: Sequence[object]) -> tuple[dict[str, float], dict[str, str]]:
    """The median of each measure in one run of a checkout, and its unit. Raises RuntimeError when it cannot be measured."""
    command = [str(checkout / ".venv/bin/python"), "-c", ONE, json.dumps(call)]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False, timeout=RUN_LIMIT_S)
    if done.returncode != 0:
        raise RuntimeError(f"{checkout} could not be measured:\n{done.stderr[-2000:]}")
    body = json.loads(done.stdout.splitlines()[-1])
    if body["notes"]:
        raise RuntimeError(f"{checkout} was not measured whole: {body['notes']}")
    found = {name: (unit, median(values)) for name, (unit, values) in body["found"].items() if not name.startswith(LEFT_OUT)}
    return {name: value for name, (_, value) in found.items()}, {name: unit for name, (unit, _) in found.items()}


def ratios(pairs: Sequence[tuple[Mapping[str, float], Mapping[str, float]]], name: str, unit: str) -> list[float]:
    """Of each pair, this one to the other, so that above 1 is better."""
    return [here[name] / other[name] if unit in LARGER_IS_BETTER else other[name] / here[name] for here, other in pairs]


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Geometric mean of ratios, and the 95 % interval around it."""
    logs = [math.log(one) for one in values]
    half = T_95[len(logs)] * stdev(logs) / math.sqrt(len(logs))
    return math.exp(fmean(logs)), math.exp(fmean(logs) - half), math.exp(fmean(logs) + half)


def table(pairs: Sequence[tuple[Mapping[str, float], Mapping[str, float]]], units: Mapping[str, str]) -> list[str]:
    """A row for each measure that both have: medians, ratio, interval, verdict."""
    lines = ["| measure | unit | other | this | ratio (95 % interval) | |", "| --- | --- | --- | --- | --- | --- |"]
    for name, unit in units.items():
        if not all(name in here and name in other for here, other in pairs):
            continue
        mean, low, high = interval(ratios(pairs, name, unit))
        here, other = median(one[name] for one, _ in pairs), median(one[name] for _, one in pairs)
        verdict = "worse" if high < WORSE_BELOW else ""
        lines.append(
            f"| {name.replace(' | ', ', ')} | {unit} | {other:,.4g} | {here:,.4g} | {mean:.3f} ({low:.3f}–{high:.3f}) | {verdict} |"
        )
    return lines


if __name__ == "__main__":
    main()
