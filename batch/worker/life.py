"""The worker as a whole: in which order its parts begin and end. Ack last, hand back what has not started, always end.

Ending is a sequence: pull no more, give back what has not started, let what runs finish in the time there is, flush
outcomes, acknowledge, write the last progress. Leases are kept through all of it.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any

from batch.events import log
from batch.handling.registry import Registry
from batch.model.clock import Clock
from batch.model.errors import DependencyError, FanoutError
from batch.model.exit import ExitReason
from batch.model.names import progress_object
from batch.model.progress import interval_s
from batch.model.shares import share_left
from batch.services.claims import claim
from batch.services.ports import ObjectStore, Subscription, Topic
from batch.settings import WorkerSettings
from batch.worker.admission import Admission
from batch.worker.assembly import Parts, assembled
from batch.worker.circuit_breaker import CircuitBreaker, limits
from batch.worker.committing.committer import Committer
from batch.worker.committing.verdicts import Verdicts
from batch.worker.executors.overdue import HandlersHang
from batch.worker.finished import Finished
from batch.worker.leases import LeaseKeeper
from batch.worker.progress_writer import ProgressWriter, earlier_tries
from batch.worker.pulling.bounds import PaidMinute, TimeBounds, after_signal_s
from batch.worker.pulling.drain import DrainProof
from batch.worker.pulling.puller import Puller
from batch.worker.pulling.pulls import Pulls
from batch.worker.runner import Runner
from batch.worker.tally import Tally
from batch.worker.watchdog import Watchdog, stacks, within

LAST_FLUSH_S = 2.0
BILLING_RESERVE_S = 5.0
"""A worker that waits for what it was promised, or goes on after its share, ends this much before the paid minute does."""
PROGRESS_WRITER = "progress writer"
STUCK_HAND_BACK_S = 10.0
"""How long a stuck worker tries to hand back its leases."""


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
        rng: random.Random,
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
        self._breaker = CircuitBreaker(*limits(settings.concurrency, settings.share))
        self._watchdog = Watchdog(settings.watchdog_s, clock, self._stuck)
        self._inbox: SimpleQueue[list[Finished] | None] = SimpleQueue()
        verdicts = Verdicts(settings, store, clock, rng, self._breaker.note)
        admission = Admission(settings, registry, store, clock, verdicts, self._bounds.end_s, self._bound_lease)
        self._runner = Runner(admission, verdicts, store, clock)
        self._executors = assembled(Parts(settings, registry, self._runner, self._inbox, self.tally, clock, self._fail, self._breaker.trip))
        self._progress = ProgressWriter(
            store,
            progress_object(settings.execution, settings.index, settings.retry),
            self.tally.progress,
            interval_s(settings.progress_interval_s, settings.count),
            clock,
            rng,
            self._fail,
            lambda again_within_s: self._watchdog.beat(PROGRESS_WRITER, again_within_s),
        )
        self._rng = rng
        self._dead_letters = dead_letters
        self._leases: LeaseKeeper | None = None
        self._committer: Committer | None = None
        self._puller: Puller | None = None
        self._committing = threading.Thread(target=self._commit, name="committer", daemon=True)
        paid_until_s = started_s + max(0.0, settings.billing_floor_s - BILLING_RESERVE_S)
        self._not_before_s = paid_until_s if settings.promised else 0.0
        self._paid = PaidMinute(paid_until_s) if settings.use_paid_minute and settings.decision_id else PaidMinute()
        self._barked, self._last_words = threading.Event(), threading.Event()
        self.on_stuck: Callable[[], None] = lambda: None
        """Called by the watchdog when it has ended this worker: `run` may never return."""

    def stop(self) -> None:
        """End soon: somebody sent SIGTERM."""
        self.stop_asked_s = self.stop_asked_s or self.clock.monotonic()
        self._runner.stopping.set()
        self.stopping.set()
        self._nudge()

    def extend_leases(self) -> None:
        """The machine is about to pause us: make every lease as long as possible."""
        if self._leases is not None:
            self._leases.extend_all()

    def run(self) -> ExitReason:
        """Why this worker ended. A fault in Fanout itself is raised after everything in hand was handed back."""
        settings = self.settings
        log("worker_started", share=settings.share, lane=settings.lane_name, subscription=self._subscription.name)
        self._watchdog.beat("start")
        self._watchdog.start()
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
        self._watchdog.beat("end", max(0.0, self._bounds.end_s - self.clock.monotonic()))
        reason = ExitReason.STUCK if self._barked.is_set() else self._finish(reason)
        if self._barked.is_set():
            # What the watchdog handed back may have let this thread go on: the watchdog has the last word.
            self._last_words.wait()
            return ExitReason.STUCK
        self._watchdog.stop()
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
                log("worker_not_claimed", decision_id=settings.decision_id, holder=holder)
                return ExitReason.NOT_CLAIMED
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
        leases = self._leases = LeaseKeeper(
            self._subscription,
            self.clock,
            self._rng,
            self._fail,
            lambda again_within_s: self._watchdog.beat("lease keeper", again_within_s),
        )
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
            lambda: self._watchdog.beat("committer"),
            self._executors.nudge,
        )
        self._puller = Puller(
            self.settings,
            self._subscription,
            self._executors,
            leases,
            self.tally,
            self._bounds,
            self._paid,
            Pulls(DrainProof(least_s=self.settings.drain_after_s, not_before_s=self._not_before_s), self.settings.max_outstanding_bytes),
            self._breaker,
            self.clock,
            self.stopping,
            lambda: self._watchdog.beat("puller"),
        )
        leases.start()
        self._progress.start()
        self._committing.start()
        self._executors.start()
        self._watchdog.leave("start")
        try:
            reason = self._puller.run()
        finally:
            self._watchdog.leave("puller")
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
        if reason is ExitReason.NOT_CLAIMED:
            return reason
        if self._committer is not None and self._leases is not None:
            if reason is ExitReason.STOPPED:
                log("worker_stopping", held_count=self.tally.held)
            broken = self._breaker.open
            self._give_back_and_flush(self._committer, self._limit(reason))
            self._leases.stop()
            self._watchdog.leave("lease keeper")
            if self._breaker.open and not broken:
                log("worker_broken", error=self._breaker.reason)
                reason = ExitReason.BROKEN
        self._progress.stop()
        self._watchdog.leave(PROGRESS_WRITER)
        if self._barked.is_set():
            return ExitReason.STUCK
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
        committer.nack([delivery.ack_id for delivery in self._executors.close()])
        if self._puller is not None:
            self._puller.collect(until_s, committer.nack)
        if not self.tally.wait_empty(until_s, self._nothing_to_wait_for):
            self._executors.reclaim()
            stuck = self._executors.running()
            committer.abandon([delivery.ack_id for delivery in stuck])
            self._runner.at_end()
            if stuck:
                how_far = {task_id: str(said) for task_id, said in self._runner.how_far.copy().items()}
                log("handler_stuck", message_ids=[delivery.message_id for delivery in stuck], progress=how_far)
        self._inbox.put(None)
        self._committing.join(timeout=max(LAST_FLUSH_S, until_s() + LAST_FLUSH_S - self.clock.monotonic()))
        committer.nack(committer.unwritten())
        self._runner.verdicts.starts.settle()

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
        self._watchdog.leave("committer")

    def _bound_lease(self, ack_id: str, deadline_s: float) -> None:
        """An attempt that must have ended by `deadline_s` needs its lease no longer than until its acknowledgement."""
        if self._leases is not None:
            self._leases.bound(ack_id, deadline_s + self.settings.flush_interval_s + LAST_FLUSH_S)

    def _stuck(self, parts: Sequence[str]) -> None:
        """A thread of ours stands still: say where all are, hand back what is held as far as that can be done, and let the process end.

        Called by the watchdog. Nothing here waits for long, and nothing relies on the thread that stands still.
        """
        self._barked.set()
        self.tally.exit_reason = ExitReason.STUCK.value
        self._runner.stopping.set()
        within(STUCK_HAND_BACK_S, lambda: self._let_go(parts, stacks()))
        within(LAST_FLUSH_S, lambda: log("worker_ended", exit_reason=ExitReason.STUCK.value, **self._facts()))
        self._last_words.set()
        self.on_stuck()

    def _let_go(self, parts: Sequence[str], where: str) -> None:
        """Tell why, hand back every lease, running or not, and say so in the progress."""
        log("worker_stuck", parts=list(parts), after_s=self.settings.watchdog_s, stacks=where, **self._facts())
        leases = self._leases
        if leases is not None:
            leases.end()
            held = leases.held()
            try:
                leases.nack(held, 0.0)
                self.tally.nacked(len(held) - len(self._subscription.nack(held)))
            except FanoutError as error:
                log("nack_failed", message_count=len(held), error=str(error))
        if self._progress.created and PROGRESS_WRITER not in parts:
            self._progress.write()

    def _fail(self, error: BaseException) -> None:
        """A fault in one of our own threads ends the worker."""
        if isinstance(error, HandlersHang):
            # No fault of ours: a service that handlers wait for, or the handlers.
            self._breaker.trip(str(error))
            self._nudge()
            return
        self.fault = self.fault or error
        self._breaker.trip(f"a fault in Fanout: {error!r}")
        self._nudge()

    def _nudge(self) -> None:
        """Whoever waits looks at what has changed."""
        self._executors.nudge()
        self.tally.nudge()

    def _facts(self) -> dict[str, Any]:
        tally = self.tally
        counts = {"taken": tally.taken, "acked": tally.acked, "returned": tally.returned, "delayed": tally.delayed, **tally.outcomes}
        seconds = {"handler_s": round(tally.handler_s, 3), "elapsed_s": round(self.clock.monotonic() - self._bounds.started_s, 3)}
        return {"share": tally.share, **counts, **seconds}
