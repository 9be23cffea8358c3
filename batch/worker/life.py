"""The life of a worker: in which order its parts are made and begin, and what ends it. How it ends stands in `shutdown`."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import replace
from queue import SimpleQueue

from batch.events import log
from batch.handling.registry import Registry
from batch.model.clock import Clock
from batch.model.delivery import ORDERED
from batch.model.errors import FanoutError, Unreached
from batch.model.exit import ExitReason
from batch.model.names import progress_object
from batch.model.progress import Progress, interval_s
from batch.model.shares import share_left
from batch.services.claims import claim
from batch.services.drain import DrainProof
from batch.services.leases import LeaseKeeper
from batch.services.network import Network
from batch.services.ports import ObjectStore, Subscription, Topic
from batch.settings import WorkerSettings
from batch.telemetry.ports import AttemptWatch
from batch.worker.admission.admission import Admission
from batch.worker.admission.markers import Markers
from batch.worker.admission.verdicts import Verdicts
from batch.worker.assembly import assembled
from batch.worker.attempt import Finished
from batch.worker.circuit_breaker import CircuitBreaker, limit_of
from batch.worker.committing.committer import Committer
from batch.worker.executors.overdue import HandlersHang
from batch.worker.executors.runner import Parts, Runner
from batch.worker.progress_writer import ProgressWriter, earlier_tries
from batch.worker.pulling.bounds import TimeBounds
from batch.worker.pulling.puller import Puller
from batch.worker.pulling.pulls import Pulls
from batch.worker.shutdown import LAST_FLUSH_S, LEASE_KEEPER, PROGRESS_WRITER, Shutdown, Stages
from batch.worker.tally import Tally
from batch.worker.unstarted import Unstarted

BILLING_RESERVE_S = 5.0
"""A worker that waits for what it was promised, or goes on after its share, ends this much before the paid minute does."""


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
        topics: Callable[[str], Topic] | None = None,
        network: Network | None = None,
        watch: AttemptWatch | None = None,
        last_export: Callable[[float], None] | None = None,
    ) -> None:
        """`topics` makes a topic by the name that the subscription gives; without it nothing can be published again. `network` says when
        the process began; `watch` hears of each attempt; `last_export` may take so many seconds."""
        self._network = network or Network(clock, settings.task_timeout_s)
        started_s = self._network.began_s
        registry = registry.limited(settings.handler_timeout_s)
        self.settings = settings
        self.tally = Tally(clock, settings.share, settings.most)
        self.stopping = threading.Event()
        self.store, self._clock, self._rng = store, clock, rng
        self._subscription, self._dead_letters, self._topics = subscription, dead_letters, topics
        self._bounds = TimeBounds(started_s, settings.task_timeout_s)
        self._paid_until_s = started_s + max(0.0, settings.billing_floor_s - BILLING_RESERVE_S)
        self._go_on_until_s = self._paid_until_s
        self._breaker = CircuitBreaker(limit_of(settings.concurrency, settings.share))
        self._inbox: SimpleQueue[list[Finished] | None] = SimpleQueue()
        self._markers = Markers(settings, store, clock)
        verdicts = Verdicts(settings, store, clock, rng, self._markers, watch)
        self._cancels = verdicts.cancels
        admission = Admission(settings, registry, store, clock, verdicts, self._markers, self._bounds.end_s, self._bound_lease)
        self._runner = Runner(admission, verdicts, store, clock, unable=self._breaker.trip, watch=watch)
        unstarted = Unstarted(self._markers, self._inbox)
        parts = Parts(self._runner, self._inbox, self.tally, clock, self._fail, unstarted)
        self._executors = assembled(settings, registry, self._markers, parts, self._breaker.trip)
        self._progress = self._progress_writer()
        self.shutdown = Shutdown(
            settings,
            subscription,
            self._executors,
            self._runner,
            self._markers,
            unstarted,
            self._inbox,
            self.tally,
            clock,
            self._bounds,
            self._breaker,
            self._progress,
            last_export,
        )
        self._watchdog = self.shutdown.watchdog

    def _progress_writer(self) -> ProgressWriter:
        settings = self.settings
        return ProgressWriter(
            self.store,
            progress_object(settings.execution, settings.index, settings.retry),
            self._current,
            interval_s(settings.progress_interval_s, settings.count),
            self._clock,
            self._rng,
            self._fail,
            lambda again_within_s: self._watchdog.heartbeat(PROGRESS_WRITER, again_within_s),
            self._look_at_cancels,
        )

    def _look_at_cancels(self) -> None:
        try:
            problem = self._cancels.look(self.store, self.settings.lane_name, self._clock.now())
        except FanoutError as error:
            problem = str(error)
        if problem:
            log("cancels_unread", error=problem)

    def _current(self) -> Progress:
        return replace(self.tally.progress(), running=self._executors.longest_running(), shards=self._progress.shards)

    @property
    def outstanding_count(self) -> int:
        return self.tally.outstanding

    def when_stuck(self, call: Callable[[], None]) -> None:
        """Called when the watchdog has ended the worker, and `run` may never come back."""
        self.shutdown.on_stuck = call

    def stop(self) -> None:
        """End soon: somebody sent SIGTERM."""
        self.shutdown.ask()
        self.stopping.set()
        self._network.stop()
        self._nudge()

    def extend_leases(self) -> None:
        """The machine is about to pause this process: make every lease as long as possible."""
        if self.shutdown.stages is not None:
            self.shutdown.stages.leases.extend_all()

    def run(self) -> ExitReason:
        """Why this worker ended. A fault in Fanout itself is raised after every outstanding message was nacked."""
        log("worker_started", share=self.settings.share, lane=self.settings.lane_name, subscription=self._subscription.name)
        self._watchdog.heartbeat("start", self._network.left_s)
        self._watchdog.start()
        try:
            reason = self._before() or self._work()
        except FanoutError as error:  # what a service answered; ServiceRefused too, for a bucket can refuse anything
            reason = ExitReason.BROKEN
            if isinstance(error, Unreached) and self._network.stopped and self.shutdown.stages is None:
                reason = ExitReason.STOPPED  # while it waited for its network: nothing was begun
            else:
                self._breaker.trip(str(error))
        except BaseException as error:  # noqa: BLE001 - raised again below, once every outstanding message was nacked
            self._fail(error)
            reason = ExitReason.BROKEN
        if self._breaker.open:
            reason = ExitReason.BROKEN
        elif self.shutdown.hang:
            reason = ExitReason.STUCK
        reason = self.shutdown.end(reason)
        if self.shutdown.fault is not None and reason is not ExitReason.STUCK:
            raise self.shutdown.fault
        return reason

    def _before(self) -> ExitReason | None:
        """What decides, before the first pull, whether this worker works at all."""
        settings = self.settings
        if settings.decision_id:
            holder = self._network.first(lambda: claim(self.store, settings.decision_id, settings.execution))
            if holder != settings.execution:
                log("worker_not_claimed", decision_id=settings.decision_id, holder=holder)
                return ExitReason.NOT_CLAIMED
        earlier = self._network.first(lambda: earlier_tries(self.store, settings.execution, settings.index, settings.retry))
        acked_before = sum(progress.acked for progress in earlier)
        self.tally.share, self.tally.most = share_left(settings.share, acked_before), share_left(settings.most, acked_before)
        if earlier:  # all tries of a worker have the first one's minute: whether another one is billed for each is not certain
            gone_s = self._clock.now() - earlier[0].started_at
            self._go_on_until_s = min(self._go_on_until_s, self._clock.monotonic() - gone_s + settings.billing_floor_s - BILLING_RESERVE_S)
        self._network.first(self._progress.create)
        if earlier and earlier[-1].exit_reason == ExitReason.BROKEN.value:
            log("predecessor_broken")
            self._breaker.trip("the try before this one ended broken; the next tick decides when to try again")
        return ExitReason.SHARE_DONE if self.tally.share == 0 else None

    def _work(self) -> ExitReason:
        """Asks what the subscription says of itself. Raises DependencyError."""
        if self._network.first(lambda: self._subscription.info).is_ordered:
            self._breaker.trip(ORDERED.format(self._subscription.name))
        if self._breaker.open:
            return ExitReason.BROKEN
        stages = self.shutdown.stages = self._stages()
        stages.leases.start()
        stages.committing.start()
        self._executors.start()
        self._watchdog.leave("start")
        try:
            reason = stages.puller.run()
        finally:
            self._watchdog.leave("puller")
        if reason in (ExitReason.SHARE_DONE, ExitReason.DRAINED):
            self.tally.wait_empty(lambda: self._bounds.end_s, lambda: self.stopping.is_set() or self._breaker.open)
        return self._interrupted(reason)

    def _stages(self) -> Stages:
        """Raises DependencyError."""
        leases = LeaseKeeper(
            self._subscription,
            self._clock,
            self._rng,
            self._fail,
            lambda again_within_s: self._watchdog.heartbeat(LEASE_KEEPER, again_within_s),
        )
        committer = Committer(
            self.settings,
            self._inbox,
            self._subscription,
            self._dead_letters,
            self.store,
            leases,
            self.tally,
            self._breaker,
            self._clock,
            self._runner.given_up,
            self._topics,
            self._executors.flush,
            lambda: self._watchdog.heartbeat("committer"),
            self._executors.nudge,
            self._progress.writes_to,
        )
        committing = threading.Thread(target=self._commit, args=(committer,), name="committer", daemon=True)
        return Stages(leases, self._puller(leases), committer, committing)

    def _puller(self, leases: LeaseKeeper) -> Puller:
        settings = self.settings
        not_before_s = 0.0 if settings.backlog is None else self._paid_until_s  # with a backlog it was promised messages
        proof = DrainProof(least_s=settings.drain_after_s, not_before_s=not_before_s)
        return Puller(
            settings,
            self._subscription,
            self._executors,
            leases,
            self.tally,
            self._bounds,
            self._go_on_until_s,
            Pulls(proof, settings.max_outstanding_bytes),
            self._breaker,
            self._clock,
            self.stopping,
            lambda: self._watchdog.heartbeat("puller"),
            self._progress.start,
        )

    def _interrupted(self, reason: ExitReason) -> ExitReason:
        """A share is done only when all of it is finished: what cut the wait short is the reason then."""
        if self.tally.outstanding == 0:
            return reason
        if self.stopping.is_set():
            return ExitReason.STOPPED
        return ExitReason.OUT_OF_TIME if reason in (ExitReason.SHARE_DONE, ExitReason.DRAINED) else reason

    def _commit(self, committer: Committer) -> None:
        try:
            committer.run()
        except FanoutError as error:
            self._breaker.trip(str(error))
            log("flush_failed", error=str(error))
        except BaseException as error:  # noqa: BLE001 - carried to `run`, which raises it
            self._fail(error)
        self._watchdog.leave("committer")

    def _bound_lease(self, ack_id: str, deadline_s: float) -> None:
        """An attempt that must have ended by `deadline_s` needs its lease no longer than until its acknowledgement."""
        if self.shutdown.stages is not None:
            self.shutdown.stages.leases.bound(ack_id, deadline_s + self.settings.flush_interval_s + LAST_FLUSH_S)

    def _fail(self, error: BaseException) -> None:
        """A fault in one of our own threads ends the worker."""
        if isinstance(error, HandlersHang):
            # No fault of ours, and not known to be a service's: what hangs has spent an attempt, and another process can go on.
            if not self.shutdown.hang:
                self.shutdown.hang = str(error)
                log("handlers_hang", error=str(error))
            self.stop()
            return
        self.shutdown.fault = self.shutdown.fault or error
        self._breaker.trip(f"a fault in Fanout: {error!r}")
        self._nudge()

    def _nudge(self) -> None:
        """Wake what waits for a change, so that it looks at signals and the circuit breaker again."""
        self._executors.nudge()
        self.tally.nudge()
