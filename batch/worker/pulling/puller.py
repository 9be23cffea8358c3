"""The puller: decides when to pull and how much, and when this worker has seen enough.

A few threads wait for the service, so that several pulls are open at a time. Who comes back with messages hands them on and decides, one
at a time, what to ask for next: a thread that it had to wake would wait for the interpreter first. One more thread decides when time
passes and nothing comes. A pull is always waited for: one that is abandoned would swallow messages until their deadline.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue

from batch.events import log
from batch.model.clock import Clock
from batch.model.delivery import Delivery
from batch.model.errors import DependencyUnavailable
from batch.model.exit import ExitReason
from batch.services.leases import LeaseKeeper
from batch.services.ports import Subscription
from batch.settings import WorkerSettings
from batch.worker.circuit_breaker import CircuitBreaker
from batch.worker.dispatch import Executors
from batch.worker.flow import MAX_OPEN_PULLS, MAX_OUTSTANDING_COUNT, wanted_count
from batch.worker.pulling.bounds import TimeBounds
from batch.worker.pulling.pulls import Need, Pull, Pulls
from batch.worker.tally import Tally

LATE_S = 30.0
LOOK_AGAIN_S = 0.2
"""How long a puller that has nothing to do waits at most before it looks at time, signals and breaker again."""


@dataclass(frozen=True, slots=True)
class Brought:
    """How a pull ended: with deliveries, or with an error."""

    pull: Pull
    deliveries: Sequence[Delivery] = ()
    error: BaseException | None = None


@dataclass(slots=True)
class Puller:
    """`run` returns why no more is pulled, `collect` then waits for what is still open; one round of `run` is `step`. `paid_until_s`
    (monotonic) ends the least time that Cloud Run bills, in which a worker whose share is done may go on; long past for others. `begun` is
    called once, when the first pull is on its way."""

    settings: WorkerSettings
    subscription: Subscription
    executors: Executors
    leases: LeaseKeeper
    tally: Tally
    bounds: TimeBounds
    paid_until_s: float
    pulls: Pulls
    breaker: CircuitBreaker
    clock: Clock
    stopping: threading.Event
    heartbeat: Callable[[], None] = lambda: None
    begun: Callable[[], None] = lambda: None
    _orders: SimpleQueue[Pull | None] = field(default_factory=SimpleQueue, init=False)
    _brought: SimpleQueue[Brought] = field(default_factory=SimpleQueue, init=False)
    """What is left to the thread that ends: errors, and what comes once it has decided that this is the end."""
    _deciding: threading.Lock = field(default_factory=threading.Lock, init=False)
    _over: bool = field(default=False, init=False)

    def run(self) -> ExitReason:
        """Raises DependencyMissing and DependencyForbidden, which no second try can mend."""
        for number in range(MAX_OPEN_PULLS):
            threading.Thread(target=self._wait_for_service, name=f"pull-{number}", daemon=True).start()
        try:
            reason = self.step()
            self.begun()
            while reason is None:
                reason = self.step()
            return reason
        finally:
            with self._deciding:
                self._over = True

    def step(self) -> ExitReason | None:
        """One round: end, open pulls, or wait. Raises what a pull was answered that nothing can mend."""
        opened = False
        with self._deciding:
            self._watched()
            while not self._brought.empty():
                self._take_in(self._brought.get())
            ended = self._ended()
            if ended is not None:
                return ended
            while (pull := self._begun()) is not None:
                self._orders.put(pull)
                opened = True
        if not opened:
            self.executors.changes.wait(LOOK_AGAIN_S, self._something_to_do)
        return None

    def collect(self, until_s: Callable[[], float], nack: Callable[[Sequence[Delivery]], object]) -> None:
        """Wait for the open pulls, until `until_s()` (monotonic) at the latest; what they bring goes back at once."""
        while self.pulls.open:
            left_s = until_s() - self.clock.monotonic()
            if left_s <= 0:
                log("pull_abandoned", pull_count=len(self.pulls.open), message_count=self.pulls.asked)
                break
            try:
                brought = self._brought.get(timeout=min(left_s, LOOK_AGAIN_S))
            except Empty:
                continue
            self.pulls.ended(brought.pull, self.clock.monotonic(), len(brought.deliveries), 0, None)
            self.tally.took(len(brought.deliveries))
            nack(brought.deliveries)
        for _ in range(MAX_OPEN_PULLS):
            self._orders.put(None)

    def _watched(self) -> None:
        """Come round, unless a pull has not: each has a deadline, and one that outlives it by far will never end."""
        late_s = self.clock.monotonic() - min(LATE_S, self.settings.watchdog_s)
        if not any(pull.began_s + pull.wait_s < late_s for pull in self.pulls.open):
            self.heartbeat()

    def _ended(self) -> ExitReason | None:
        now_s = self.clock.monotonic()
        if self.stopping.is_set():
            return ExitReason.STOPPED
        if self.breaker.open:
            return ExitReason.BROKEN
        if self.tally.share_left == 0 and not self.pulls.open and not self._goes_on(now_s):
            return ExitReason.SHARE_DONE
        if now_s >= self._pull_until_s():
            return ExitReason.OUT_OF_TIME
        return ExitReason.DRAINED if self.pulls.drained else None

    def _goes_on(self, now_s: float) -> bool:
        """Whether more may be pulled although the share is done."""
        return self.tally.beyond_left > 0 and not self.pulls.proof.quiet and now_s < self._pull_beyond_until_s()

    def _pull_beyond_until_s(self) -> float:
        """When to pull nothing more beyond the share: what was pulled must have ended by `paid_until_s`."""
        return self.paid_until_s - self.settings.prefetch_s - self.tally.longest_s

    def _pull_until_s(self) -> float:
        return self.bounds.stop_pulling_s(self.tally.longest_s, self.settings.prefetch_s)

    def _need(self) -> Need:
        executors, tally = self.executors, self.tally
        wanted = wanted_count(
            concurrency=executors.concurrency, busy=executors.busy_count, mean_s=tally.mean_s, prefetch_s=self.settings.prefetch_s
        )
        until_s = self._pull_until_s()
        allowed = tally.share_left
        if allowed == 0:
            # Beyond the share only in small steps, of what starts at once and ends in time, as far as that is known.
            until_s = min(until_s, self._pull_beyond_until_s())
            allowed = 0 if tally.mean_s is None or self.pulls.proof.quiet else min(wanted, tally.beyond_left)
        allowed = min(allowed, max(0, MAX_OUTSTANDING_COUNT - tally.outstanding))
        return Need(wanted, executors.waiting_count, allowed, self.leases.byte_count, until_s)

    def _begun(self) -> Pull | None:
        """The pull to open now, if any."""
        pull = self.pulls.begin(self.clock.monotonic(), self._need())
        self.executors.changes.busy = len(self.pulls.open) >= MAX_OPEN_PULLS
        return pull

    def _something_to_do(self) -> bool:
        if self.stopping.is_set() or not self._brought.empty():
            return True
        # Without the lock: who holds it may be waiting to tell the one who asks this. What changes after it was asked is told.
        return self.pulls.size(self.clock.monotonic(), self._need()) > 0 or self._ended() is not None

    def _wait_for_service(self) -> None:
        pull: Pull | None = None
        while pull is not None or (pull := self._orders.get()) is not None:
            pull = self._served(pull)

    def _served(self, pull: Pull) -> Pull | None:
        """Wait for one pull and hand on what it brings; the next one for this thread, if there is one to open now."""
        try:
            brought = Brought(pull, self.subscription.pull(pull.max_messages, pull.wait_s))
        except BaseException as error:  # noqa: BLE001 - carried to the thread that ends
            brought = Brought(pull, error=error)
        following = None
        try:
            with self._deciding:
                if self._over or not isinstance(brought.error, DependencyUnavailable | None):
                    self._brought.put(brought)
                else:
                    self._take_in(brought)
                    following = None if self._ended() else self._begun()
        except BaseException as error:  # noqa: BLE001 - as above
            self._brought.put(Brought(pull, error=error))
        if following is None:
            self.executors.nudge()
        return following

    def _take_in(self, brought: Brought) -> None:
        pull, deliveries, now_s = brought.pull, brought.deliveries, self.clock.monotonic()
        if isinstance(brought.error, DependencyUnavailable):
            wait_s = self.pulls.failed(pull, now_s)
            log("pull_failed", failure_count=self.pulls.failure_count, again_after_s=round(wait_s, 1), error=str(brought.error))
            if self.pulls.broken:
                self.breaker.trip(str(brought.error))
            return
        sizes = [len(one.data) for one in deliveries]
        if deliveries:
            if deliveries[0].delivery_attempt == 0 and not self.tally.taken:
                log("deliveries_not_counted", subscription=self.subscription.name)
            self.tally.took(len(deliveries))
            self.leases.hold([one.ack_id for one in deliveries], pull.began_s, sizes)
            self.executors.put(deliveries)
        self.pulls.ended(pull, now_s, len(deliveries), sum(sizes), self.tally.idle_since_s)
        if brought.error is not None:
            raise brought.error
