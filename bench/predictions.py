"""What decisions predict against what happens: real ticks and real workers on the local cloud, drain after drain.

    python -m bench.predictions

takes under three minutes and wants an otherwise quiet machine: workers start on its cores. It writes bench/results/predictions.json,
prints its table and puts it into docs/sizing.md. A lane's first drain teaches it what a message takes and is not counted; each
further launch predicts when its messages are done, and a later tick writes into the lane's history what became of that. Lanes
drain in turn, because what a lane acknowledged shortly before a sample still counts as in it. Nothing here is asserted.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from bench.deployed import Job, deployed, sleeping
from bench.machine import facts, load
from bench.page import RESULTS, ROOT, conditions, grid, put_into
from bench.recording import Measure, Recording, write
from controller.act.history import read_between
from controller.decide.decision import Kind
from controller.decide.ledger import GUARD_S
from controller.tick.outside import Outside
from controller.tick.rounds import tick_lanes
from local_cloud.supervisor.supervisor import LocalCloud, Options

NAME = "predictions"
PAGE = ROOT / "docs" / "sizing.md"
PREDICTED, ACTUAL = "predicted", "happened"
WANTED_PERCENT = 25.0
MOST_WORKERS = 8
DRAIN_LIMIT_S = 60.0
BUCKET = "bench-predictions"
ANNOTATIONS = {"fanout/max-messages": "50", "fanout/max-workers": f"{MOST_WORKERS}", "fanout/drain-within": "8s"}
ENV = {"CONCURRENCY": "2", "BILLING_FLOOR_S": "0"}
"""No worker waits out a minute that nobody bills here."""


@dataclass(frozen=True, slots=True)
class Load:
    """The tasks of one lane: each takes from `least_s` to `most_s`."""

    lane: str
    least_s: float
    most_s: float


LOADS = (Load("quick", 0.2, 0.2), Load("mixed", 0.2, 0.5), Load("middle", 0.35, 0.35), Load("slow", 0.5, 0.5))


def main() -> None:
    options = _options()
    recording = Recording(f"python -m bench.{NAME}", f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", load(), facts(), [], [])
    with tempfile.TemporaryDirectory() as name:
        drains = _drains(Path(name), LOADS[: options.lanes], options.rounds, random.Random(options.seed))
    recording.measures = measures(drains)
    write(recording, options.output)
    shown = text(recording)
    print(shown)
    if options.page:
        options.page.write_text(put_into(options.page.read_text(encoding="utf-8"), NAME, shown), encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m bench.{NAME}", description="What decisions predict against what happens.")
    parser.add_argument("--lanes", type=int, default=len(LOADS), help="lanes, each with a load of its own")
    parser.add_argument("--rounds", type=int, default=3, help="drains of each lane that count, after one that teaches")
    parser.add_argument("--seed", type=int, default=1, help="of how many tasks there are and how long each takes")
    parser.add_argument("--output", type=Path, default=RESULTS / f"{NAME}.json")
    parser.add_argument("--page", type=lambda given: Path(given) if given else None, default=PAGE, help="page to update; empty: none")
    return parser.parse_args()


def measures(launches: Sequence[Mapping[str, Any]]) -> list[Measure]:
    """One for each launch of a history that predicted something and has ended."""
    found: list[Measure] = []
    for entry in launches:
        if entry.get("predicted_drain_s") is None or entry.get("actual_drain_s") is None:
            continue
        tasks, workers = entry["backlog"], entry["workers"]
        name = f"{entry['lane']}, {tasks} tasks, {workers} worker{'s' if workers > 1 else ''}"
        found.append(Measure(name, "s", "", {PREDICTED: [entry["predicted_drain_s"]], ACTUAL: [entry["actual_drain_s"]]}))
    return found


def errors_percent(found: Sequence[Measure]) -> list[float]:
    """How much longer than predicted each took, in per cent."""
    pairs = [(one.runs[PREDICTED][0], one.runs[ACTUAL][0]) for one in found]
    return [100 * (actual - predicted) / predicted for predicted, actual in pairs]


def text(recording: Recording) -> str:
    """The table of a recording, and how many drains were as predicted."""
    errors = errors_percent(recording.measures)
    body = [
        [one.name, f"{one.runs[PREDICTED][0]:.1f} s", f"{one.runs[ACTUAL][0]:.1f} s", f"{error:+.0f} %"]
        for one, error in zip(recording.measures, errors, strict=True)
    ]
    close_count = sum(abs(error) <= WANTED_PERCENT for error in errors)
    middle = f"; half of them by {median(map(abs, errors)):.0f} % or less, the worst by {max(map(abs, errors)):.0f} %" if errors else ""
    return "\n".join(
        [
            f"`{recording.command}`, {recording.taken[:10]}. Each row is one drain; start-up is in both times.",
            "",
            *grid(["drain", PREDICTED, ACTUAL, "longer by"], body),
            "",
            f"{close_count} of {len(errors)} within {WANTED_PERCENT:.0f} %{middle} (wanted: all within {WANTED_PERCENT:.0f} %).",
            "",
            *conditions(recording),
        ]
    )


def _drains(folder: Path, loads: Sequence[Load], rounds: int, rng: random.Random) -> list[Mapping[str, Any]]:
    """Every launch of every lane's history, in the order of their times."""
    with ExitStack() as stack:
        cloud = stack.enter_context(LocalCloud(folder, Options(sample_period_s=0, visibility_lag_s=0)))
        os.environ.update(cloud.environment | {"BUCKET_NAME": BUCKET})
        outside = deployed(stack, [Job(one.lane, ANNOTATIONS, ENV) for one in loads], BUCKET)
        drained_at = {one.lane: 0.0 for one in loads}
        for _ in range(rounds + 1):
            for one in loads:
                time.sleep(max(0.0, drained_at[one.lane] + GUARD_S + 1 - time.time()))
                drained_at[one.lane] = _drain(outside, one, rng.randint(60, 200), rng)
                print(f"{one.lane} drained", flush=True)
        entries = [entry for one in loads for entry in read_between(outside.store, one.lane, 0.0, time.time())]
    return sorted((entry for entry in entries if entry["kind"] == Kind.LAUNCH.value), key=lambda entry: str(entry["decided_at"]))


def _drain(outside: Outside, one: Load, count: int, rng: random.Random) -> float:
    """Publish tasks, tick until all of them are done and the history says so; returns when (Unix seconds) they were."""
    topic = outside.topic(one.lane)
    for _ in range(0, count, 50):
        topic.publish([sleeping(rng, one.lane, round(rng.uniform(one.least_s, one.most_s), 3)) for _ in range(min(50, count))])
        count -= 50
    started_at = time.time()

    def over() -> bool:
        (result,) = tick_lanes(outside, [one.lane]).results
        decisions = read_between(outside.store, one.lane, started_at - 1, time.time())
        launches = [entry for entry in decisions if entry["kind"] == Kind.LAUNCH.value]
        return not result.decision.workers and bool(launches) and all(entry.get("actual_drain_s") for entry in launches)

    _wait_until(over, DRAIN_LIMIT_S, f"{one.lane} is drained")
    return time.time()


def _wait_until(met: Callable[[], bool], limit_s: float, what: str) -> None:
    until_s = time.monotonic() + limit_s
    while not met():
        if time.monotonic() > until_s:
            raise RuntimeError(f"not in {limit_s:.0f} s: {what}")
        time.sleep(0.5)


if __name__ == "__main__":
    main()
