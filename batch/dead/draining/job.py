"""The dead-letters job: `python -m batch dead-letters`. It drains the dead-letter subscription into the log; the first worker of an
execution also goes on with replays that were interrupted, and applies the lanes' retry rules.
"""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache

from batch.dead.draining.drain import Drain
from batch.dead.draining.settings import DeadLetterSettings
from batch.dead.lanes import UNKNOWN_LANE, LaneFacts, read_lanes, without_topic
from batch.dead.replaying import replay, resume_stalled
from batch.events import log
from batch.handling.cancels import Cancels
from batch.model.clock import Clock
from batch.model.errors import FanoutError, SettingsError, Unreached
from batch.model.exit import ExitReason
from batch.services.network import LOOK_S, Network
from batch.services.ports import ObjectStore, Subscription, Topic

LAST_S = 60.0
"""So much of the task timeout is left for what is under way; of a short one a quarter."""
WHY = "retry rules"


@dataclass(frozen=True, slots=True)
class UntilStopped:
    """A clock for work that has a time to end by: once `stopping` is set, that time has come."""

    clock: Clock
    stopping: threading.Event

    def now(self) -> float:
        return self.clock.now()

    def monotonic(self) -> float:
        return math.inf if self.stopping.is_set() else self.clock.monotonic()

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        return self.clock.wait(event, timeout_s)


@dataclass(slots=True)
class Job:
    """One try of one worker of the job. `run` blocks until it has ended; `stop` and `extend_leases` may be called from any thread."""

    settings: DeadLetterSettings
    subscription: Subscription
    topics: Callable[[str], Topic]
    store: ObjectStore
    clock: Clock
    rng: random.Random
    network: Network
    stopping: threading.Event = field(default_factory=threading.Event)
    replayed_count: int = 0
    _drain: Drain | None = None
    _problems: list[str] = field(default_factory=list)

    @property
    def outstanding_count(self) -> int:
        return self._drain.outstanding_count if self._drain else 0

    def stop(self) -> None:
        """Somebody sent SIGTERM: what is not written is nacked."""
        self.stopping.set()
        self.network.stop()

    def extend_leases(self) -> None:
        """The machine is about to pause this process."""
        if self._drain is not None:
            self._drain.leases.extend_all()

    def when_stuck(self, call: Callable[[], None]) -> None:
        """It has no watchdog: each request ends within its time, and Cloud Run bounds the whole."""

    def run(self) -> ExitReason:
        """Why it ended."""
        timeout_s = self.settings.task_timeout_s
        end_s = self.network.began_s + timeout_s - min(LAST_S, timeout_s / 4)
        error = ""
        try:
            reason = self._work(end_s)
        except FanoutError as failure:  # what a service answered
            reason, error = ExitReason.BROKEN, str(failure)
            if isinstance(failure, Unreached) and self.network.stopped and self._drain is None:
                reason = ExitReason.STOPPED  # while it waited for its network
        drain = self._drain
        if reason is ExitReason.BROKEN:
            error = error or (drain.problem if drain else "")
            log("worker_broken", error=error)
        counts = {f"{name}_count": drain.counts[name] if drain else 0 for name in ("logged", "returned", "settled", "nacked")}
        log("dead_letters_ended", exit_reason=reason.value, **counts, replayed_count=self.replayed_count)
        return reason

    def _work(self, end_s: float) -> ExitReason:
        """Raises FanoutError."""
        lanes = self.network.first(lambda: read_lanes(self.store))
        _ = self.network.first(lambda: self.subscription.info)
        if not lanes:
            # What the net caught would be kept for a person, in the log of no lane.
            raise SettingsError([f"bucket {self.store.bucket_name} names no lanes yet: run `fanout tick`, which writes them down"])
        clock = UntilStopped(self.clock, self.stopping)
        logs = {**lanes, UNKNOWN_LANE: without_topic(UNKNOWN_LANE)}
        self._of_each(logs, lambda lane: resume_stalled(self.store, self.topics, lane, clock=clock, rng=self.rng, until_s=end_s))
        self._drain = Drain(self.settings, self.subscription, self.topics, self.store, lanes, self.clock, self.rng, self.stopping, end_s)
        reason = self._drain.run()
        self._of_each(lanes, lambda lane: self._apply_rules(lane, clock, end_s) if lane.rules.errors else None)
        if self._problems:
            raise FanoutError("; ".join(self._problems))
        return ExitReason.STOPPED if self.stopping.is_set() and reason is ExitReason.DRAINED else reason

    def _of_each(self, lanes: Mapping[str, LaneFacts], call: Callable[[LaneFacts], object]) -> None:
        """What the first worker does beside draining. What is wrong with one lane holds up no other, nor the draining."""
        for lane in lanes.values():
            if self.settings.index == 0 and not self.stopping.is_set():
                try:
                    call(lane)
                except FanoutError as error:
                    self._problems.append(f"lane {lane.name}: {error}")

    def _apply_rules(self, lane: LaneFacts, clock: Clock, end_s: float) -> None:
        """Replay what is due now; the log tells by which rules. What clients have cancelled since it died waits for a person: a replay runs
        in spite of an earlier entry. Raises DependencyError."""
        rules, now_s, cancels = lane.rules, self.clock.now(), Cancels()
        cancels.look(self.store, lane.name, now_s)
        found = replay(
            self.store,
            self.topics,
            lane,
            lambda one: rules.due(one, now_s) and cancels.entry_for(one.task_id, one.submission_id, one.attributes) is None,
            details={"rules": asdict(rules)},
            rate=rules.rate,
            clock=clock,
            rng=self.rng,
            who=f"{self.settings.job}, execution {self.settings.execution}",
            why=WHY,
            until_s=end_s,
        )
        if found.action_id:
            self.replayed_count += found.done_count
            log("rules_applied", lane=lane.name, letter_count=found.done_count, action_id=found.action_id)


def built(settings: DeadLetterSettings, clock: Clock, rng: random.Random, network: Network) -> Job:
    """The job with the real clients. Raises DependencyForbidden when there are no credentials, Unreached when they may yet come."""
    from batch.dead.draining.drain import READS_IN_FLIGHT
    from batch.services.objects import GoogleObjectStore
    from batch.services.pubsub import GoogleSubscription
    from batch.services.topic import GoogleTopic

    subscription = GoogleSubscription(settings.project, settings.subscription_name, look_within_s=LOOK_S)
    store = GoogleObjectStore(
        settings.bucket_name,
        project=settings.project,
        pool_size=2 * READS_IN_FLIGHT,
        reached_within_s=LOOK_S,
        billing_project=settings.billing_project,
    )
    return Job(settings, subscription, cache(lambda name: GoogleTopic(settings.project, name)), store, clock, rng, network)
