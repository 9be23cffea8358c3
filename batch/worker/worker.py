"""The worker as a whole: in which order its parts begin and end. Ack last, hand back what has not started, always end.

Ending is a sequence: pull no more, give back what has not started, let what runs finish in the time there is, flush
outcomes, acknowledge, write the last progress. Leases are kept through all of it.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from batch.bounds import TimeBounds, after_signal_s
from batch.breaker import Breaker
from batch.clock import Clock
from batch.config import WorkerSettings
from batch.drain import DrainProof
from batch.ends import ExitReason
from batch.errors import DependencyError
from batch.events import log
from batch.fence import claim
from batch.leases import LeaseKeeper
from batch.names import progress_object
from batch.objects import ObjectStore
from batch.progress_writer import ProgressWriter, earlier_tries, interval_s
from batch.registry import Registry
from batch.shares import share_left
from batch.subscription import Subscription, Topic
from batch.worker.admission import Admission
from batch.worker.assembly import Parts, assembled
from batch.worker.committer import Committer
from batch.worker.finished import Finished
from batch.worker.puller import Puller
from batch.worker.runner import Runner
from batch.worker.tally import Tally
from batch.worker.verdicts import Verdicts

BREAKER_LIMIT = 20
LAST_FLUSH_S = 2.0
BILLING_RESERVE_S = 5.0
"""A worker that waits for what it was promised ends this much before the paid minute does."""


class Worker:
    """One try of one worker. `run` blocks until it has ended; `stop` and `extend_leases` may be called from any thread."""

    def __init__(
        self,
        settings: WorkerSettings,
        registry: Registry,
        subscription: Subscription,
        dead_letters: Topic,
        store: ObjectStore,
        clock: Clock,
        chance: random.Random,
    ) -> None:
        started_s = clock.monotonic()
        self.settings = settings
        self.store = store
        self.clock = clock
        self.tally = Tally(clock, settings.share)
        self.stopping = threading.Event()
        self.stop_asked_s: float | None = None
        self.fault: BaseException | None = None
        self._subscription = subscription
        self._bounds = TimeBounds(started_s, settings.task_timeout_s)
        # A share that is smaller than the limit must be able to show that nothing works.
        self._breaker = Breaker(min(max(BREAKER_LIMIT, 2 * settings.concurrency), max(1, settings.share)))
        self._inbox: SimpleQueue[list[Finished] | None] = SimpleQueue()
        verdicts = Verdicts(settings, store, clock, chance)
        self._runner = Runner(Admission(settings, registry, store, clock, verdicts, self._bounds.end_s), verdicts, store, clock)
        self._executors = assembled(Parts(settings, registry, self._runner, self._inbox, self.tally, clock, self._fail))
        self._progress = ProgressWriter(
            store,
            progress_object(settings.execution, settings.index, settings.retry),
            self.tally.progress,
            interval_s(settings.progress_interval_s, settings.count),
            clock,
            chance,
            self._fail,
        )
        self._chance = chance
        self._dead_letters = dead_letters
        self._leases: LeaseKeeper | None = None
        self._committer: Committer | None = None
        self._committing = threading.Thread(target=self._commit, name="committer", daemon=True)
        self._not_before_s = started_s + max(0.0, settings.billing_floor_s - BILLING_RESERVE_S) if settings.promised else 0.0

    def stop(self) -> None:
        """End soon: somebody sent SIGTERM."""
        self.stop_asked_s = self.stop_asked_s or self.clock.monotonic()
        self._runner.stopping.set()
        self.stopping.set()
        self._executors.nudge()
        self.tally.nudge()

    def extend_leases(self) -> None:
        """The machine is about to pause us: make every lease as long as possible."""
        if self._leases is not None:
            self._leases.extend_all()

    def run(self) -> ExitReason:
        """Why this worker ended. A fault in Fanout itself is raised after everything in hand was handed back."""
        settings = self.settings
        log("worker_started", share=settings.share, lane=settings.lane_name, subscription=self._subscription.name)
        try:
            reason = self._before() or self._work()
        except DependencyError as error:
            self._breaker.trip(str(error))
            reason = ExitReason.BROKEN
        except BaseException as error:  # noqa: BLE001 - raised again below, once everything in hand was handed back
            self._fail(error)
            reason = ExitReason.BROKEN
        if self._breaker.open:
            reason = ExitReason.BROKEN
        reason = self._finish(reason)
        log("worker_ended", exit_reason=reason.value, **self._facts())
        if self.fault is not None:
            raise self.fault
        return reason

    def _before(self) -> ExitReason | None:
        """What decides, before the first pull, whether this worker works at all."""
        settings = self.settings
        if settings.decision_id:
            holder = claim(self.store, settings.decision_id, settings.execution)
            if holder != settings.execution:
                log("worker_fenced", decision_id=settings.decision_id, holder=holder)
                return ExitReason.FENCED
        earlier = earlier_tries(self.store, settings.execution, settings.index, settings.retry)
        self.tally.share = share_left(settings.share, sum(progress.acked for progress in earlier))
        self._progress.create()
        if earlier and earlier[-1].exit_reason == ExitReason.BROKEN.value:
            log("predecessor_broken")
            self._breaker.trip("the try before this one ended broken; the next tick decides when to try again")
        return ExitReason.SHARE_DONE if self.tally.share == 0 else None

    def _work(self) -> ExitReason:
        if self._breaker.open:
            return ExitReason.BROKEN
        leases = self._leases = LeaseKeeper(self._subscription, self.clock, self._chance, self._fail)
        self._committer = Committer(
            self.settings,
            self._inbox,
            self._subscription,
            self._dead_letters,
            self.store,
            leases,
            self.tally,
            self._breaker,
            self.clock,
            self._executors.relieve,
        )
        puller = Puller(
            self.settings,
            self._subscription,
            self._executors,
            leases,
            self.tally,
            self._bounds,
            DrainProof(least_s=self.settings.drain_after_s, not_before_s=self._not_before_s),
            self._breaker,
            self.clock,
            self.stopping,
        )
        leases.start()
        self._progress.start()
        self._committing.start()
        self._executors.start()
        reason = puller.run()
        if reason in (ExitReason.SHARE_DONE, ExitReason.DRAINED):
            self.tally.wait_empty(lambda: self._bounds.end_s, lambda: self.stopping.is_set() or self._breaker.open)
        return self._interrupted(reason)

    def _interrupted(self, reason: ExitReason) -> ExitReason:
        """A share is done only when all of it is finished: what cut the wait short is the reason then."""
        if self.tally.held == 0:
            return reason
        if self.stopping.is_set():
            return ExitReason.STOPPED
        return ExitReason.OUT_OF_TIME if reason in (ExitReason.SHARE_DONE, ExitReason.DRAINED) else reason

    def _finish(self, reason: ExitReason) -> ExitReason:
        if reason is ExitReason.BROKEN:
            log("worker_broken", error=self._breaker.reason)
        if reason is ExitReason.FENCED:
            return reason
        if self._committer is not None and self._leases is not None:
            if reason is ExitReason.STOPPED:
                log("worker_stopping", held_count=self.tally.held)
            broken = self._breaker.open
            self._give_back_and_flush(self._committer, self._limit(reason))
            self._leases.stop()
            if self._breaker.open and not broken:
                log("worker_broken", error=self._breaker.reason)
                reason = ExitReason.BROKEN
        self._progress.stop()
        self.tally.exit_reason = reason.value
        if self._progress.created:
            self._progress.write()
        return reason

    def _limit(self, reason: ExitReason) -> Callable[[], float]:
        """Until when handlers may go on: to the end of the time, after a signal as long as its grace; a broken worker as if it had
        been told to stop now, for what its handlers do can hardly be kept."""
        broken_s = self.clock.monotonic() if reason is ExitReason.BROKEN else None

        def until_s() -> float:
            asked_s = broken_s if self.stop_asked_s is None else self.stop_asked_s
            return self._bounds.end_s if asked_s is None else min(self._bounds.end_s, after_signal_s(asked_s))

        return until_s

    def _give_back_and_flush(self, committer: Committer, until_s: Callable[[], float]) -> None:
        self._runner.stopping.set()
        committer.hand_back([delivery.ack_id for delivery in self._executors.close()])
        if not self.tally.wait_empty(until_s, self._nothing_to_wait_for):
            self._executors.reclaim()
            stuck = self._executors.running()
            committer.abandon([delivery.ack_id for delivery in stuck])
            if stuck:
                log("handler_stuck", message_ids=[delivery.message_id for delivery in stuck])
        self._inbox.put(None)
        self._committing.join(timeout=max(LAST_FLUSH_S, until_s() + LAST_FLUSH_S - self.clock.monotonic()))
        committer.hand_back(committer.unwritten())

    def _nothing_to_wait_for(self) -> bool:
        """Whether what is still held can only be given back: a fault, or a breaker that keeps outcomes from being written."""
        return self.fault is not None or (self._breaker.open and not self._executors.running())

    def _commit(self) -> None:
        assert self._committer is not None, "the committer's thread starts after it is made"
        try:
            self._committer.run()
        except DependencyError as error:
            self._breaker.trip(str(error))
            log("flush_failed", error=str(error))
        except BaseException as error:  # noqa: BLE001 - carried to `run`, which raises it
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """A fault in one of our own threads ends the worker."""
        self.fault = self.fault or error
        self._breaker.trip(f"a fault in Fanout: {error!r}")
        self._executors.nudge()
        self.tally.nudge()

    def _facts(self) -> dict[str, Any]:
        tally = self.tally
        counts = {"taken": tally.taken, "acked": tally.acked, "returned": tally.returned, **tally.outcomes}
        seconds = {"handler_s": round(tally.handler_s, 3), "elapsed_s": round(self.clock.monotonic() - self._bounds.started_s, 3)}
        return {"share": tally.share, **counts, **seconds}
