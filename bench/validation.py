"""Whether the simulation is true: the same arrivals on the local cloud, with real ticks and real workers in real time, and in the model.

    python -m bench.validation [--only NAME ...] [--record]

takes about ten minutes and wants an otherwise quiet machine. Before each case an execution that is launched by hand tells how long a
worker of this machine needs to start, to end, and for a message beside its sleep; the model is given these three and nothing of the run
that it is compared with. A tick and a sample come every 5 s, not every minute. Both begin at the same phase of the marks that workers
leave every 15 s, and of the samples. The exit code is 1 if drain times are off by more than 10 % in the middle or 20 % at worst, or
numbers of workers differ.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import floor
from pathlib import Path
from statistics import median

from batch.model.errors import DependencyError
from batch.model.names import progress_folder
from batch.model.progress import MARK_EVERY_S, Progress, from_metadata
from batch.testing.clock import START_S
from bench.deployed import Job, deployed, sleeping
from bench.machine import facts, load
from bench.page import RESULTS, ROOT, conditions, grid, put_into
from bench.recording import Measure, Recording, write
from controller.model.execution import ExecutionInfo
from controller.observe.jobs import RunRequest
from controller.simulation.given.delays import Lag, StartUp
from controller.simulation.given.durations import Fixed
from controller.simulation.given.scenario import Load, Scenario
from controller.simulation.running import run_fanout
from controller.tick.outside import Outside
from controller.tick.rounds import tick_lanes
from local_cloud.supervisor.supervisor import LocalCloud, Options

NAME = "validation"
PAGE = ROOT / "docs" / "sizing.md"
REAL, MODEL = "local cloud", "model"
MIDDLE_PERCENT, WORST_PERCENT = 10.0, 20.0
TICK_S, SAMPLE_S, LAG_S = 5.0, 5.0, 4.0
"""A sample becomes visible a second before a tick, and a second after that messages come: nothing depends on who is first."""
FLOOR_S, FLUSH_S = 60.0, 0.5
CONCURRENCY = 4
START_UP_S = 4.0
"""Of the local cloud, to which comes what a process takes: workers begin between two ticks, not at one."""
SEEDS = (1, 2, 3, 4, 5)
AFTER_S = 20.0
"""For so long after the last message is done it is watched whether more workers are launched."""
MOST_S = 400.0
BUCKET = "bench-validation"
CALIBRATION = "calibration"
MAX_WORKERS = "fanout/max-workers"


@dataclass(frozen=True, slots=True)
class Case:
    """One lane: what comes (seconds after the start, count), in order, and what each message takes."""

    name: str
    arrivals: tuple[tuple[float, int], ...]
    message_s: float
    annotations: Mapping[str, str]

    @property
    def count(self) -> int:
        """Messages in all."""
        return sum(count for _, count in self.arrivals)

    @property
    def first_s(self) -> float:
        """When the first one comes."""
        return self.arrivals[0][0]


def _policy(drain_within: str, max_workers: int) -> Mapping[str, str]:
    return {"fanout/drain-within": drain_within, MAX_WORKERS: str(max_workers), "fanout/max-wait": "0s"}


CASES = (
    Case("batch", ((1.0, 96),), 3.0, _policy("40s", 5)),
    Case("waves", ((1.0, 60), (71.0, 150)), 1.5, _policy("40s", 4)),
    Case("flow", tuple((1.0 + 2.0 * at, 10) for at in range(45)), 1.0, _policy("100s", 4)),
    Case("slow", ((1.0, 20),), 14.0, _policy("60s", 3)),
    Case("bound", ((1.0, 200),), 2.0, _policy("40s", 2)),
)


@dataclass(frozen=True, slots=True)
class Machine:
    """What a worker takes here: from its launch to its first message, from its last acknowledgement to its end, and for each message
    beside its sleep. Seconds."""

    start_up_s: float
    idle_tail_s: float
    overhead_s: float


@dataclass(slots=True)
class Drain:
    """What came of one case: seconds from the first message to the last acknowledgement; workers, and the launches they came in as (seconds
    after the start, workers)."""

    drain_s: float
    workers: int
    launches: list[tuple[float, int]] = field(default_factory=list)


def main() -> None:
    options = _options()
    cases = [one for one in CASES if not options.only or one.name in options.only]
    recording = Recording(f"python -m bench.{NAME}", f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", load(), facts(), [], [])
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        cloud = LocalCloud(Path(folder), Options(sample_period_s=SAMPLE_S, visibility_lag_s=LAG_S, startup_delay_s=START_UP_S))
        os.environ.update(stack.enter_context(cloud).environment | {"BUCKET_NAME": BUCKET})
        outside = deployed(stack, [job_of(one) for one in (*cases, Case(CALIBRATION, ((0.0, 1),), 0.0, _policy("60s", 3)))], BUCKET)
        for case in cases:
            machine = calibrated(outside, workers=int(case.annotations[MAX_WORKERS]))
            print(f"a worker of this machine: {machine}", flush=True)
            seen, models = on_local_cloud(outside, case), [simulated(case, machine, seed) for seed in SEEDS]
            recording.measures = [*recording.measures, *measures(case, seen, models)]
            print(f"{case.name}: {seen}\n    {models[0]}", flush=True)
    found = compared(recording.measures)
    shown = text(recording)
    print(shown)
    if options.record:
        write(recording, options.output)
        PAGE.write_text(put_into(PAGE.read_text(encoding="utf-8"), NAME, shown), encoding="utf-8")
    sys.exit(0 if found.holds else 1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m bench.{NAME}", description="The model of the simulation beside the local cloud.")
    parser.add_argument("--only", nargs="+", choices=[one.name for one in CASES], default=[], help="these cases alone")
    parser.add_argument("--record", action="store_true", help="keep the result, and put it into docs/sizing.md")
    parser.add_argument("--output", type=Path, default=RESULTS / f"{NAME}.json")
    return parser.parse_args()


# --- the comparison


@dataclass(frozen=True, slots=True)
class Row:
    """One case: the model's values are the medians of its seeds."""

    name: str
    workers: tuple[float, float]
    drains_s: tuple[float, float]

    @property
    def off_percent(self) -> float:
        """How much longer than in truth the model's drain takes."""
        real_s, model_s = self.drains_s
        return 100 * (model_s - real_s) / real_s


@dataclass(frozen=True, slots=True)
class Compared:
    """All cases."""

    rows: Sequence[Row]

    @property
    def middle_percent(self) -> float:
        """The median of how much they are off, either way."""
        return median(abs(one.off_percent) for one in self.rows)

    @property
    def worst_percent(self) -> float:
        """The largest of it."""
        return max(abs(one.off_percent) for one in self.rows)

    @property
    def holds(self) -> bool:
        """Whether the model is as true as it has to be."""
        same = all(one.workers[0] == one.workers[1] for one in self.rows)
        return same and self.middle_percent <= MIDDLE_PERCENT and self.worst_percent <= WORST_PERCENT


def measures(case: Case, seen: Drain, models: Sequence[Drain]) -> list[Measure]:
    """Drain time and workers of a case, each run by itself."""
    drains = {REAL: [round(seen.drain_s, 3)], MODEL: [round(one.drain_s, 3) for one in models]}
    workers = {REAL: [float(seen.workers)], MODEL: [float(one.workers) for one in models]}
    return [Measure(case.name, "s", "", drains), Measure(case.name, "workers", "", workers)]


def compared(found: Sequence[Measure]) -> Compared:
    """From recorded measures, in their order."""
    pairs = {(one.name, one.unit): (median(one.runs[REAL]), median(one.runs[MODEL])) for one in found}
    return Compared([Row(name, pairs[name, "workers"], pair) for (name, unit), pair in pairs.items() if unit == "s"])


def text(recording: Recording) -> str:
    """The table of a recording."""
    found = compared(recording.measures)
    body = [
        [one.name, *(f"{each:g}" for each in one.workers), *(f"{each:.1f} s" for each in one.drains_s), f"{one.off_percent:+.0f} %"]
        for one in found.rows
    ]
    wanted = f"(wanted: {MIDDLE_PERCENT:.0f} %, {WORST_PERCENT:.0f} %, and the same numbers of workers)"
    return "\n".join(
        [
            f"`{recording.command}`, {recording.taken[:10]}. A drain is from the first message to the last acknowledgement.",
            "",
            *grid(["case", f"workers, {REAL}", f"workers, {MODEL}", f"drain, {REAL}", f"drain, {MODEL}", "off by"], body),
            "",
            f"Off by {found.middle_percent:.0f} % in the middle, {found.worst_percent:.0f} % at worst {wanted}.",
            "",
            *conditions(recording),
        ]
    )


# --- the model


def scenario(case: Case, machine: Machine, seed: int) -> Scenario:
    """The case as the model is told it. Nothing in it comes from the run that it is compared with."""
    lane = Load(case.arrivals, Fixed(case.message_s + machine.overhead_s), case.annotations, case.name, CONCURRENCY, 600.0, is_taught=False)
    return Scenario(
        case.name,
        (lane,),
        lag=Lag(LAG_S),
        start_up=StartUp(machine.start_up_s, machine.start_up_s),
        horizon_s=MOST_S / 2,
        seed=seed,
        tick_every_s=TICK_S,
        floor_s=FLOOR_S,
        idle_tail_s=machine.idle_tail_s,
        process_s=max(0.0, machine.start_up_s - START_UP_S),
        flush_s=FLUSH_S,
        gauge_every_s=SAMPLE_S,
        gauge_phase_s=0.0,
    )


def simulated(case: Case, machine: Machine, seed: int) -> Drain:
    """One run of the model."""
    run = run_fanout(scenario(case, machine, seed))
    count = run.counts[case.name]
    launches = [(round(one.decided_at - START_S, 1), one.workers) for one in run.decisions if one.workers]
    return Drain(count.last_done_at - START_S - case.first_s, count.worker_count, launches)


# --- the local cloud


def job_of(case: Case) -> Job:
    """Its lane's; a calibration ends as soon as it has seen that nothing is left."""
    floor_s = 0.0 if case.name == CALIBRATION else FLOOR_S
    env = {"CONCURRENCY": str(CONCURRENCY), "BILLING_FLOOR_S": f"{floor_s:g}", "FLUSH_INTERVAL_S": f"{FLUSH_S:g}"}
    return Job(case.name, case.annotations, env)


def calibrated(outside: Outside, workers: int, rounds: int = 5, sleep_s: float = 1.0) -> Machine:
    """By one execution whose workers are promised more than there is: they do `rounds` of messages each, then see that nothing is left."""
    count = workers * rounds * CONCURRENCY
    job = f"{outside.runner.jobs()[0].full_name.rpartition('/')[0]}/{CALIBRATION}"
    _publish(outside, CALIBRATION, count, sleep_s)
    execution = outside.runner.run(job, RunRequest(workers, {"BACKLOG": str(2 * count)}))
    until_s = time.monotonic() + 60
    while (found := outside.runner.execution(execution.full_name)) is None or found.live:
        if time.monotonic() > until_s:
            raise RuntimeError("the calibration has not ended within 60 s")
        time.sleep(0.2)
    worked = _progress(outside, found)
    each_s = sum(one.handler_s for one in worked) / sum(one.acked for one in worked)
    start_ups = [one.last_acked_at - found.created_at - one.acked / CONCURRENCY * each_s for one in worked]
    tail_s = median((found.completed_at or 0.0) - one.last_acked_at for one in worked)
    return Machine(round(median(start_ups), 2), round(tail_s, 2), round(each_s - sleep_s, 4))


def on_local_cloud(outside: Outside, case: Case) -> Drain:
    """Publish when it is time, tick on the grid, until all is done and no worker is left."""
    job = f"{outside.runner.jobs()[0].full_name.rpartition('/')[0]}/{case.name}"
    start_at = (floor(time.time() / MARK_EVERY_S) + 1) * float(MARK_EVERY_S)
    left, next_tick_s, done_at = list(case.arrivals), 0.0, None
    while done_at is None or time.time() < done_at + AFTER_S or any(one.live for one in outside.runner.executions(job)):
        now_s = time.time() - start_at
        if now_s > MOST_S:
            raise RuntimeError(f"{case.name} has not ended within {MOST_S:.0f} s")
        due_s = min(next_tick_s, left[0][0] if left else MOST_S)
        if now_s < due_s:
            time.sleep(due_s - now_s)
        if left and due_s == left[0][0]:
            _publish(outside, case.name, left.pop(0)[1], case.message_s)
            continue
        with suppress(DependencyError):  # as for a controller, the next tick is soon
            tick_lanes(outside, [case.name])
        next_tick_s += TICK_S
        worked = [each for one in outside.runner.executions(job) for each in _progress(outside, one)]
        if done_at is None and not left and sum(one.acked for one in worked) >= case.count:
            done_at = max(one.last_acked_at for one in worked)
    executions = sorted(outside.runner.executions(job), key=lambda one: one.created_at)
    launches = [(round(one.created_at - start_at, 1), one.task_count) for one in executions]
    last_acked_at = max(each.last_acked_at for one in executions for each in _progress(outside, one))
    return Drain(last_acked_at - start_at - case.first_s, sum(one.task_count for one in executions), launches)


def _progress(outside: Outside, execution: ExecutionInfo) -> list[Progress]:
    return [from_metadata(one.metadata) for one in outside.store.list(progress_folder(execution.name))]


def _publish(outside: Outside, lane: str, count: int, sleep_s: float) -> None:
    rng = random.Random(time.time_ns())
    topic = outside.topic(lane)
    topic.publish([sleeping(rng, lane, sleep_s) for _ in range(count)])


if __name__ == "__main__":
    main()
