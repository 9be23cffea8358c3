"""A lane: a topic, its subscription, the job that drains it, and its policy, as a decision needs them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from batch.dead.rules import NO_RULES, Rules
from batch.formats.forms import Forms
from batch.prices import LIST_PERCENT
from batch.settings import WorkerSettings
from controller.model.schedule import Schedule

DEFAULT_CALLBACKS = "default"
START_WITHIN_S = 600.0
DELAYED_START_WITHIN_S = 12 * 3600.0
"""How late Cloud Run may start an execution of a delayed job."""
SLOW_START_S = 300.0


class Strategy(StrEnum):
    """How a launch is sized; the values are those of the annotation `fanout/strategy`."""

    DEADLINE = "deadline"
    SHARE = "share"
    FIXED = "fixed"

    @property
    def sizes_by_work(self) -> bool:
        """Whether the work decides how many workers there are: then it may wait, and caps that ask for more workers (timeout, share,
        minimum) apply too."""
        return self in (Strategy.DEADLINE, Strategy.SHARE)


@dataclass(frozen=True, slots=True)
class Policy:
    """What an operator decides about a lane. One worker takes `max_messages` at most; None: what fits into its time. While nothing is
    learned of how long a message takes it is assigned `first_share` at most. `max_workers` counts all that are alive at
    a time, `min_workers` bounds one launch from below, `floor` workers of a shared budget are reserved for this lane. `max_in_flight`
    messages at a time and `rate` messages a second are what a dependency of the handlers can take; None: no bound. `replay_*` are the
    retry rules of dead letters. Workers of the lane `callbacks` fire the ends of this lane's submissions.
    Messages come in the forms that `accept` names; those without a task type are tasks of `default_type`, and of a bucket's notifications
    only `event_types` are run. Messages may wait to fill a worker, `max_wait_s` at most; None: half of the time to drain in, 0: never.
    `start_within_s`: how late an execution may start; None: as the job says."""

    max_messages: int | None = None
    min_workers: int = 0
    max_workers: int = 100
    drain_within_s: float = 600.0
    weight: float = 1.0
    paused: bool = False
    strategy: Strategy = Strategy.DEADLINE
    fixed_workers: int = 0
    max_in_flight: int | None = None
    rate: float | None = None
    first_share: int = 1000
    min_backlog: int = 0
    max_wait_s: float | None = None
    floor: int = 0
    probe_after_s: float = 600.0
    replay_errors: tuple[str, ...] = NO_RULES.errors
    replay_after_s: float = NO_RULES.after_s
    replay_times: int = NO_RULES.times
    replay_rate: float = NO_RULES.rate
    callbacks: str = DEFAULT_CALLBACKS
    accept: tuple[str, ...] = WorkerSettings.accept
    default_type: str = ""
    event_types: tuple[str, ...] = WorkerSettings.event_types
    start_within_s: float | None = None
    schedules: tuple[Schedule, ...] = ()

    @property
    def unlearned_share(self) -> int:
        """The most messages that a worker is assigned while nothing is learned; by share, it is the share that was asked for."""
        if self.max_messages is None:
            return self.first_share
        return self.max_messages if self.strategy is Strategy.SHARE else min(self.max_messages, self.first_share)

    @property
    def rules(self) -> Rules:
        """Which dead letters are replayed without a person."""
        return Rules(self.replay_errors, self.replay_after_s, self.replay_times, self.replay_rate)


@dataclass(frozen=True, slots=True)
class Lane:
    """A topic, its subscription, the job that drains it (`job` is its full name), and its policy; and what a decision needs of the job:
    timeout, retries, the worker's `container` where there are several, how many tasks a worker runs at a time (`concurrency`), the size of
    a worker, what it costs of the list price, how late an execution may start. `problems`: rules that the job breaks; nothing is launched
    for it."""

    name: str
    job: str
    subscription: str
    topic: str
    policy: Policy = Policy()
    task_timeout_s: float = 600.0
    max_retries: int = 1
    container: str = ""
    concurrency: int = WorkerSettings.concurrency
    vcpu: float = 1.0
    memory_gib: float = 0.5
    start_within_s: float = START_WITHIN_S
    is_delayed: bool = False
    price_percent: float = LIST_PERCENT
    problems: tuple[str, ...] = ()

    @property
    def forms(self) -> Forms:
        """Those of its messages."""
        return Forms(self.policy.accept, self.policy.default_type, self.policy.event_types, self.subscription)

    @property
    def slow_start_s(self) -> float:
        """From when on an execution that has started no worker is noted as slow to start."""
        return self.start_within_s / 2 if self.is_delayed else min(SLOW_START_S, self.start_within_s / 2)
