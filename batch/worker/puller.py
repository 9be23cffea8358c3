"""The puller: decides when to pull and how much, and when this worker has seen enough."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from batch.bounds import TimeBounds
from batch.breaker import Breaker
from batch.clock import Clock
from batch.config import WorkerSettings
from batch.drain import DrainProof
from batch.ends import ExitReason
from batch.errors import DependencyError, DependencyUnavailable
from batch.events import log
from batch.flow import MAX_READY_BYTES, pull_size
from batch.leases import LeaseKeeper
from batch.subscription import Subscription
from batch.worker.executors import Executors
from batch.worker.tally import Tally

MAX_PULL_FAILURES = 5
"""Failed pulls in a row, with waits of 1, 2, 4, 8 s between them, before the subscription counts as broken."""
LOOK_AGAIN_S = 0.2
"""How long a puller that wants nothing waits at most before it looks at time, signals and breaker again."""


@dataclass(slots=True)
class Puller:
    """`run` returns why no more is pulled; one round is `step`."""

    settings: WorkerSettings
    subscription: Subscription
    executors: Executors
    leases: LeaseKeeper
    tally: Tally
    bounds: TimeBounds
    proof: DrainProof
    breaker: Breaker
    clock: Clock
    stopping: threading.Event
    _failure_count: int = field(default=0, init=False)

    def run(self) -> ExitReason:
        while True:
            reason = self.step()
            if reason is not None:
                return reason

    def step(self) -> ExitReason | None:
        """One round: end, wait, or pull. Raises DependencyMissing and DependencyForbidden, which no second try can mend."""
        ended = self._ended()
        if ended is not None:
            return ended
        wanted = self._wanted()
        if wanted == 0:
            self.executors.wait_change(LOOK_AGAIN_S)
            return None
        self._pull(wanted)
        return None

    def _ended(self) -> ExitReason | None:
        now_s = self.clock.monotonic()
        if self.stopping.is_set():
            return ExitReason.STOPPED
        if self.breaker.open:
            return ExitReason.BROKEN
        if self.tally.share_left == 0:
            return ExitReason.SHARE_DONE
        if now_s >= self.bounds.stop_pulling_s(self.tally.longest_s, self.settings.start_within_s):
            return ExitReason.OUT_OF_TIME
        return ExitReason.DRAINED if self.proof.proven(now_s) else None

    def _wanted(self) -> int:
        if self.executors.waiting_bytes >= MAX_READY_BYTES:
            return 0
        return pull_size(
            slots=self.executors.place_count,
            busy=self.executors.busy_count,
            ready=self.executors.waiting_count,
            share_left=self.tally.share_left,
            mean_s=self.tally.mean_s,
            start_within_s=self.settings.start_within_s,
        )

    def _pull(self, wanted: int) -> None:
        """Pull once. A pull is always waited for: one that is left open would swallow messages until their deadline."""
        began_s = self.clock.monotonic()
        try:
            deliveries = self.subscription.pull(wanted, self.proof.next_wait_s)
        except DependencyUnavailable as error:
            self._failed(error)
            return
        self._failure_count = 0
        if not deliveries:
            self.proof.saw_empty(began_s, self.tally.held)
            return
        self.tally.took(len(deliveries))
        self.leases.hold([delivery.ack_id for delivery in deliveries], began_s)
        self.proof.saw_messages()
        self.executors.put(deliveries)

    def _failed(self, error: DependencyError) -> None:
        self._failure_count += 1
        log("pull_failed", failure_count=self._failure_count, error=str(error))
        if self._failure_count >= MAX_PULL_FAILURES:
            self.breaker.trip(str(error))
            return
        self.clock.wait(self.stopping, 2.0 ** (self._failure_count - 1))
