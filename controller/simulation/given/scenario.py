"""What is simulated: lanes with their arrivals and message times, a gauge that lags, workers that start late. Values, in seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from batch.prices import WORKER_FLOOR_S
from batch.settings import WorkerSettings
from controller.decide.budget import Quotas
from controller.decide.waits import TICK_EVERY_S
from controller.model.reading import SAMPLED_EVERY_S
from controller.simulation.given.arrivals import Arrivals
from controller.simulation.given.delays import Lag, StartUp
from controller.simulation.given.durations import Durations


@dataclass(frozen=True, slots=True)
class Failures:
    """`share` of the runs fail; a message that failed comes again `after_s` later, and dies with its `attempts`-th run."""

    share: float = 0.0
    after_s: float = 300.0
    attempts: int = 3


NO_FAILURES = Failures()


@dataclass(frozen=True, slots=True)
class Load:
    """One lane: `annotations` as an operator writes them (without those that name the subscription and its topic), what its job says, what
    comes, and how long it takes. A producer publishes again what is not done after `republish_after_s`. `is_taught`: the lane has drained
    before, so that how long its messages take is known. `within_s` is what counts as in time; None: the lane's `drain-within`.
    `is_delayed`: its executions may start hours late, and the lane knows."""

    arrivals: Arrivals
    durations: Durations
    annotations: Mapping[str, str] = field(default_factory=dict)
    name: str = "default"
    concurrency: int = 4
    task_timeout_s: float = 3600.0
    failures: Failures = NO_FAILURES
    republish_after_s: float | None = None
    is_taught: bool = True
    within_s: float | None = None
    is_delayed: bool = False


@dataclass(frozen=True, slots=True)
class Scenario:
    """What happens to these lanes within `horizon_s`, and until all is done, but no longer than twice that, or ten deadlines more. The
    same `seed` gives the same run. A worker is paid for `floor_s` at least."""

    name: str
    loads: tuple[Load, ...]
    lag: Lag
    start_up: StartUp
    horizon_s: float
    seed: int = 1
    quotas: Quotas = field(default_factory=Quotas)
    tick_every_s: float = TICK_EVERY_S
    floor_s: float = WORKER_FLOOR_S
    idle_tail_s: float = 3.0
    process_s: float = 1.0
    """How much of a start-up is the worker's own: its minute begins with its process."""
    flush_s: float = WorkerSettings.flush_interval_s
    gauge_every_s: float = SAMPLED_EVERY_S
    gauge_phase_s: float | None = None
    """When each lane's first sample is taken; None: at a random moment of the period."""
    gauge_older_s: float = 0.0
    """By how much each sample is older than it says."""
