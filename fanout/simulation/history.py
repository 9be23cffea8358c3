"""What is known of a lane for a simulation: what came, how long its messages took, what it launched itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import log
from typing import Any, Protocol

from batch.model.clock import iso
from batch.model.errors import SettingsError
from batch.prices import worker_usd_per_s
from controller.act.history import read_between
from controller.act.state import load
from controller.decide.decision import Kind
from controller.decide.rates import Learned, Spread
from controller.lanes.annotations import SCHEDULE
from controller.lanes.lanes import lanes_named
from controller.model.lane import Lane
from controller.observe.jobs import LANE_PREFIX
from controller.simulation.given.arrivals import Arrivals, arrivals_from_series
from controller.simulation.given.delays import START_UPS, StartUp
from controller.simulation.given.durations import Durations, Fixed, LogNormal
from controller.tick.outside import Outside

_NOT_OF_SIZES = frozenset({"subscription", "topic", "paused", "callbacks", "accept", "default-type", "event-types"})
_UPPER = 0.8416
"""So many standard deviations above the middle lies what four of five do not exceed."""
_LEAST_SIGMA, _MOST_SIGMA = 0.05, 1.5


class ArrivalsReader(Protocol):
    """See `controller.observe.arrivals`."""

    def read(self, subscription: str, since: float, until: float) -> list[tuple[float, int]]:
        """(Unix seconds, count), in order. Raises DependencyError."""


@dataclass(frozen=True, slots=True)
class Itself:
    """What the lane launched in that time: `cost_usd` is what its decisions predicted, or came to; None if that is not known of each."""

    launch_count: int
    worker_count: int
    cost_usd: float | None


@dataclass(frozen=True, slots=True)
class Recorded:
    """A lane and its past. `durations` and `start_up` are None where nothing is learned."""

    lane: Lane
    annotations: Mapping[str, str]
    arrivals: Arrivals
    durations: Durations | None
    start_up: StartUp | None
    itself: Itself

    @property
    def usd_per_s(self) -> float:
        """What a worker of the lane costs."""
        return worker_usd_per_s(self.lane.vcpu, self.lane.memory_gib, self.lane.price_percent)


def recorded(outside: Outside, reader: ArrivalsReader, name: str, since: float, until: float) -> Recorded:
    """The lane of that name, from `since` to `until` (Unix seconds). Raises SettingsError where nothing came, DependencyError,
    StateUnreadable."""
    jobs = list(outside.runner.jobs())
    (lane,) = lanes_named(jobs, [name], outside.home)
    points = reader.read(lane.subscription, since, until)
    arrivals = arrivals_from_series(points)
    if not arrivals:
        why = "no message came" if points else "Cloud Monitoring has no point of its subscription"
        raise SettingsError([f"lane {name}: {why} from {iso(since)} to {iso(until)}; --since says from when on to look"])
    state = load(outside.store, lane.name).state
    job = next(job for job in jobs if job.full_name == lane.job)
    return Recorded(
        lane,
        {key: value for key, value in job.annotations.items() if _is_of_sizes(key)},
        arrivals,
        durations_from(state.learned),
        START_UPS["delayed"] if lane.is_delayed else start_up_from(state.learned),
        itself_from(read_between(outside.store, lane.name, since, until)),
    )


def durations_from(learned: Learned) -> Durations | None:
    """From the means of the workers that have ended: what one message takes, more or less. Their spread is less than that of messages."""
    if not learned.samples:
        return None
    means = Spread((one.message_s, one.acked_count) for one in learned.samples)
    middle_s, upper_s = means.quantile(0.5), means.quantile(0.8)
    sigma = min(_MOST_SIGMA, log(upper_s / middle_s) / _UPPER) if middle_s > 0 else 0.0
    return LogNormal(middle_s, float(f"{sigma:.3g}")) if sigma > _LEAST_SIGMA else Fixed(middle_s)


def start_up_from(learned: Learned) -> StartUp | None:
    """What four of five workers took, without the quickest fifth."""
    known = [(one.start_up_s, 1.0) for one in learned.samples if one.start_up_s is not None]
    return StartUp(Spread(known).quantile(0.2), Spread(known).quantile(0.8)) if known else None


def itself_from(decisions: Iterable[Mapping[str, Any]]) -> Itself:
    """Of decisions as they are kept; those that no controller writes are left out."""
    launches = [launch for one in decisions if one.get("kind") == Kind.LAUNCH and (launch := _launch(one)) is not None]
    costs = [cost for _, cost in launches if cost is not None]
    return Itself(len(launches), sum(workers for workers, _ in launches), sum(costs) if launches and len(costs) == len(launches) else None)


def _launch(kept: Mapping[str, Any]) -> tuple[int, float | None] | None:
    """Workers and cost of a launch; None if it is damaged."""
    predicted = kept.get("predicted_cost_usd")
    cost = kept.get("actual_cost_usd") if predicted is None else predicted
    try:
        return int(kept["workers"]), None if cost is None else float(cost)
    except (KeyError, TypeError, ValueError):
        return None


def _is_of_sizes(key: str) -> bool:
    name = key.removeprefix(LANE_PREFIX)
    return key.startswith(LANE_PREFIX) and name not in _NOT_OF_SIZES and not name.startswith("replay-") and not key.startswith(SCHEDULE)
