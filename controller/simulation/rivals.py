"""Rivals: how others size workers by a backlog, as pure rules over what each could see. A simulation runs them beside Fanout's own tick.

They read the same gauge, as late as Fanout reads it, and none of them knows when a sample was taken. Every setting is the rival's own and
is meant to be tuned for it: `RIVALS` has several of each.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from itertools import product
from math import ceil

IDLE_S = 5.0
_EPSILON = 1e-9


@dataclass(frozen=True, slots=True)
class Seen:
    """What a rival may look at when it polls, `now_s` seconds after the start. `reading_count` and `oldest_age_s` are the gauges as they
    were at `sampled_at_s`; None: there is no reading. `running` workers are launched and have not ended, `pending` of them have yet to
    start; `executions_running` executions have at least one of them. `arrivals_per_s` is a metric as late as the gauge. `busy_share` is the
    mean share of CPU, 0 to 1, of the workers that have started. `arrived_count` messages came since its last poll: only a rule that is
    called for each message looks at it."""

    now_s: float
    reading_count: int | None
    sampled_at_s: float
    oldest_age_s: float = 0.0
    running: int = 0
    pending: int = 0
    arrivals_per_s: float = 0.0
    busy_share: float = 0.0
    executions_running: int = 0
    arrived_count: int = 0

    @property
    def backlog(self) -> int:
        """The reading; 0 where there is none, as a trigger in error contributes nothing."""
        return self.reading_count or 0


@dataclass(frozen=True, kw_only=True)
class Rival(ABC):
    """A rule that polls every `poll_s` seconds and keeps to `max_workers`. Its workers pull until `idle_s` seconds bring no message, and
    end; with a `share` they end after that many messages too. Those of a pool (`is_pool`) end only when it shrinks, and are billed until
    then."""

    max_workers: int = 100
    poll_s: float = 30.0
    idle_s: float = IDLE_S

    @property
    @abstractmethod
    def kind(self) -> str:
        """The rule's name, whatever its settings."""

    @property
    def share(self) -> int | None:
        """The most messages that one worker takes; None: no bound."""
        return None

    @property
    def is_pool(self) -> bool:
        """Whether `wants` says how many workers there are, also when that is fewer than now."""
        return False

    @property
    def name(self) -> str:
        """The kind and its settings."""
        said = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in ("idle_s", "strategy")}
        return " ".join([self.kind, *(f"{setting}={value:g}" for setting, value in sorted(said.items()))])

    @abstractmethod
    def workers(self, seen: Seen) -> int:
        """How many workers it launches now."""

    def _up_to(self, desired: float, seen: Seen) -> int:
        """What is missing of a desired number of workers."""
        return max(0, min(ceil(desired - _EPSILON), self.max_workers) - seen.running)


class KedaStrategy(StrEnum):
    """`scalingStrategy` of KEDA's ScaledJob."""

    DEFAULT = "default"
    ACCURATE = "accurate"
    EAGER = "eager"


@dataclass(frozen=True)
class Keda(Rival):
    """`getEffectiveMaxScale` of KEDA's executors, a worker for a job, `target` for the trigger's value. While fewer than the minimum run,
    it launches up to the minimum and looks at nothing else."""

    strategy: KedaStrategy
    target: int
    min_workers: int = 0

    @property
    def kind(self) -> str:
        return f"keda-{self.strategy.value}"

    def workers(self, seen: Seen) -> int:
        least = min(self.min_workers, self.max_workers)
        running, pending, most = seen.running - least, seen.pending, self.max_workers - least
        if running < 0:
            return -running
        queue = up_to = seen.backlog
        scale = ceil(min(queue / self.target, most))
        if self.strategy is KedaStrategy.DEFAULT:
            effective = scale - running
        elif self.strategy is KedaStrategy.EAGER:
            effective, up_to = min(most - running - pending, scale), most
        else:
            effective = most - running if scale + running - pending > most else scale - pending
        return max(0, min(up_to, effective)) if queue else 0


@dataclass(frozen=True)
class BacklogPerInstance(Rival):
    """AWS's target tracking: an instance may have a backlog of acceptable latency ÷ seconds a message. `message_s` is an instance's, set by
    hand: with several threads it is a part of what one message takes."""

    latency_s: float
    message_s: float

    @property
    def kind(self) -> str:
        return "backlog-per-instance"

    def workers(self, seen: Seen) -> int:
        return self._up_to(seen.backlog * self.message_s / self.latency_s, seen)


@dataclass(frozen=True)
class RateRule(Rival):
    """Arrivals a second ÷ messages a second of a worker, as Temporal's serverless workers have it, and one worker where something waits."""

    worker_per_s: float

    @property
    def kind(self) -> str:
        return "rate-rule"

    def workers(self, seen: Seen) -> int:
        return self._up_to(max(seen.arrivals_per_s / self.worker_per_s, min(1, seen.backlog)), seen)


@dataclass(frozen=True)
class CpuPool(Rival):
    """Workers that are kept at a share of CPU, as Cloud Run's worker pools are and Kubernetes' HPA does: started workers × their CPU ÷ the
    share. An empty pool gets one worker where something waits. It shrinks to the most that it wanted in the last `window_s` seconds."""

    cpu_share: float = 0.6
    window_s: float = 300.0
    min_workers: int = 0

    @property
    def kind(self) -> str:
        return "cpu-pool"

    @property
    def is_pool(self) -> bool:
        return True

    def wants(self, seen: Seen) -> int:
        """How many workers it wants, by what it sees now; see `held`."""
        started = seen.running - seen.pending
        desired = ceil(started * seen.busy_share / self.cpu_share - _EPSILON) if started else max(seen.running, min(1, seen.backlog))
        return min(self.max_workers, max(self.min_workers, desired))

    def workers(self, seen: Seen) -> int:
        return self._up_to(self.wants(seen), seen)


def held(wanted: Iterable[tuple[float, int]], now_s: float, window_s: float) -> int:
    """To how many workers a pool may shrink: the most of what it wanted, (when, workers), in the last `window_s` seconds."""
    return max((workers for at_s, workers in wanted if now_s - at_s <= window_s), default=0)


@dataclass(frozen=True)
class SkipWhileRunning(Rival):
    """One worker for `target` messages, and nothing while any execution runs: the lock of those who know that the gauge is late."""

    target: int

    @property
    def kind(self) -> str:
        return "skip-while-running"

    def workers(self, seen: Seen) -> int:
        return 0 if seen.executions_running else self._up_to(seen.backlog / self.target, seen)


@dataclass(frozen=True)
class JobAMessage(Rival):
    """An execution of one task for each message, by a trigger that is called for each. It sees no gauge and keeps to no limit."""

    max_workers: int = 10**9
    poll_s: float = 1.0

    @property
    def kind(self) -> str:
        return "job-a-message"

    @property
    def share(self) -> int | None:
        return 1

    def workers(self, seen: Seen) -> int:
        return seen.arrived_count


@dataclass(frozen=True)
class Cron(Rival):
    """`number` workers at each time of a schedule, whatever waits or runs. It is polled at those times only."""

    number: int

    @property
    def kind(self) -> str:
        return "cron"

    def workers(self, seen: Seen) -> int:  # noqa: ARG002
        return self.number


_TARGETS, _MAXIMA, _POLLS = (10, 100, 1000), (10, 100), (30.0, 60.0)
_LIMITS = tuple(product(_MAXIMA, _POLLS))
_ALL: tuple[Rival, ...] = (
    *(Keda(kind, n, max_workers=most, poll_s=poll) for kind in KedaStrategy for n in _TARGETS for most, poll in _LIMITS),
    *(BacklogPerInstance(latency, 0.5, max_workers=most, poll_s=60.0) for latency in (60.0, 300.0, 600.0) for most in _MAXIMA),
    *(RateRule(rate, max_workers=most, poll_s=poll) for rate in (1.0, 2.0) for most, poll in _LIMITS),
    *(CpuPool(min_workers=least, max_workers=100, poll_s=15.0) for least in (0, 1)),
    *(SkipWhileRunning(n, max_workers=most, poll_s=60.0) for n in _TARGETS for most in _MAXIMA),
    JobAMessage(),
    *(Cron(number, poll_s=every) for number in (1, 5, 20) for every in (300.0, 600.0, 3600.0)),
)
RIVALS: Mapping[str, Rival] = {rival.name: rival for rival in _ALL}
"""By name: every rule with several settings, of which a comparison takes one for all its cells."""
