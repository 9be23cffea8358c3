"""How a worker ends: in order, or by the watchdog when one of its threads stands still.

In order: pull no more, nack what has not started, let what runs finish in the time there is, flush outcomes, acknowledge, write the last
progress. Leases are kept through all of it. A worker always ends: nothing here waits without a limit.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import wait
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

from batch.events import log
from batch.model.clock import Clock
from batch.model.errors import FanoutError
from batch.model.exit import ExitReason
from batch.printed import end_printed_lines
from batch.services.leases import LeaseKeeper
from batch.services.ports import Subscription
from batch.settings import SIGTERM_GRACE_S, WorkerSettings
from batch.worker.admission.markers import UNMARK_S, Markers
from batch.worker.attempt import Attempt, Finished, Nack, Work
from batch.worker.circuit_breaker import CircuitBreaker
from batch.worker.committing.committer import Committer
from batch.worker.dispatch import Executors
from batch.worker.executors.overdue import does_not_fit
from batch.worker.executors.runner import Runner
from batch.worker.progress_writer import ProgressWriter
from batch.worker.pulling.bounds import TimeBounds, after_signal_s
from batch.worker.pulling.puller import Puller
from batch.worker.tally import Tally
from batch.worker.unstarted import Unstarted
from batch.worker.watchdog import Watchdog, stacks, within

LAST_FLUSH_S = 2.0
LAST_REMOVALS_S = 10.0
"""How long the end waits for the removal of markers, where there is so much time."""
STUCK_NACK_S = 10.0
"""How long a stuck worker tries to nack what it holds."""
EXPORT_S = 6.0
"""For the last export of telemetry: Cloud Monitoring wants 5 s between two points."""
SIGNALLED_EXPORT_S = 2.0
PROGRESS_WRITER = "progress writer"
LEASE_KEEPER = "lease keeper"


@dataclass(frozen=True, slots=True)
class Stages:
    """What works from the first pull on."""

    leases: LeaseKeeper
    puller: Puller
    committer: Committer
    committing: threading.Thread


@dataclass(slots=True)
class Shutdown:
    """The end of one worker try. `asked_s` (monotonic) is when somebody asked the worker to stop; `fault` is what broke one of its own
    threads; `hang` says that as many handlers hang as it can bear. `on_stuck` is called when the watchdog has ended the
    worker, whose own thread may never return."""

    settings: WorkerSettings
    subscription: Subscription
    executors: Executors
    runner: Runner
    markers: Markers
    unstarted: Unstarted
    inbox: SimpleQueue[list[Finished] | None]
    tally: Tally
    clock: Clock
    bounds: TimeBounds
    breaker: CircuitBreaker
    progress: ProgressWriter
    last_export: Callable[[float], None] | None = None
    watchdog: Watchdog = field(init=False)
    stages: Stages | None = None
    asked_s: float | None = None
    fault: BaseException | None = None
    hang: str = ""
    on_stuck: Callable[[], None] = lambda: None
    _fired: threading.Event = field(default_factory=threading.Event)
    _last_words: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.watchdog = Watchdog(self.settings.watchdog_s, self.clock, self._stuck)

    def ask(self) -> None:
        """Somebody asks the worker to stop: handlers hear of it, and their time is short from now on."""
        self.asked_s = self.asked_s or self.clock.monotonic()
        self.runner.stopping.set()

    def end(self, reason: ExitReason) -> ExitReason:
        """Why the worker has ended: `reason`, unless the end itself brought another one. The last log line says it."""
        self.watchdog.heartbeat("end", max(0.0, self.bounds.end_s - self.clock.monotonic()))
        if not self._fired.is_set():
            reason = self._in_order(reason)
        if self._fired.is_set():
            # What the watchdog nacked may have let this thread go on: the watchdog has the last word.
            self._last_words.wait()
            return ExitReason.STUCK
        self.watchdog.stop()
        end_printed_lines()
        self._export()
        log("worker_ended", exit_reason=reason.value, **self._facts())
        return reason

    def _export(self) -> None:
        """Traces and metrics: after all that matters, within the time that there is."""
        if self.last_export is not None:
            left_s = EXPORT_S if self.asked_s is None else self.asked_s + SIGTERM_GRACE_S - 2.0 - self.clock.monotonic()
            self.last_export(min(EXPORT_S if self.asked_s is None else SIGNALLED_EXPORT_S, max(0.0, left_s)))

    def _in_order(self, reason: ExitReason) -> ExitReason:
        if reason is ExitReason.BROKEN:
            log("worker_broken", error=self.breaker.reason)
        if reason is ExitReason.NOT_CLAIMED:
            return reason
        if self.stages is not None:
            if reason is ExitReason.STOPPED:
                log("worker_stopping", outstanding_count=self.tally.outstanding)
            broken = self.breaker.open
            self._nack_and_flush(self.stages, self.until_s(reason))
            self.stages.leases.stop()
            self.watchdog.leave(LEASE_KEEPER)
            if self.breaker.open and not broken:
                log("worker_broken", error=self.breaker.reason)
                reason = ExitReason.BROKEN
        self.progress.stop()
        self.watchdog.leave(PROGRESS_WRITER)
        if self._fired.is_set():
            return ExitReason.STUCK
        self.tally.exit_reason = reason.value
        self.tally.broken_by = self.breaker.reason if reason is ExitReason.BROKEN else ""
        if self.progress.created:
            self.progress.write()
        return reason

    def until_s(self, reason: ExitReason) -> Callable[[], float]:
        """Until when (monotonic) handlers may go on: to the end of the time, after a signal as long as its grace; a broken worker as if it
        had been told to stop now, for what its handlers do can hardly be kept."""
        broken_s = self.clock.monotonic() if reason is ExitReason.BROKEN else None

        def until_s() -> float:
            asked_s = broken_s if self.asked_s is None else self.asked_s
            return self.bounds.end_s if asked_s is None else min(self.bounds.end_s, after_signal_s(asked_s))

        return until_s

    def _nack_and_flush(self, stages: Stages, until_s: Callable[[], float]) -> None:
        committer = stages.committer
        self.runner.stopping.set()
        committer.nack(self.executors.close())
        stages.puller.collect(until_s, committer.nack)
        if not self.tally.wait_empty(until_s, self._nothing_to_wait_for):
            running = self.executors.running()
            stuck = [(work, one.began_s) for one in running for work in one.works]
            committer.abandon(work for work, _ in stuck)
            whole = self._of_whole_time(stuck)
            committer.nack_abandoned([work for work, _ in stuck if work.ack_id not in whole])
            self.executors.shut_down()
            if whole:
                for works in (one.works for one in running if len(one.works) > 1):
                    for work in works:
                        if isinstance(work, Attempt):
                            work.counts_as = works[0].message_id  # one call, one failure
                self._record(whole.values(), committer)
            self.unstarted.join()
            self.markers.unmark_all()
            if stuck:
                how_far = {task_id: str(said) for task_id, said in self.runner.how_far.copy().items()}
                log("handler_stuck", message_ids=[work.message_id for work, _ in stuck], progress=how_far)
        self.inbox.put(None)
        stages.committing.join(timeout=max(LAST_FLUSH_S, until_s() + LAST_FLUSH_S - self.clock.monotonic()))
        committer.nack_unwritten()
        self.markers.settle(max(UNMARK_S, min(LAST_REMOVALS_S, until_s() - self.clock.monotonic())))

    def _of_whole_time(self, stuck: Sequence[tuple[Work, float]]) -> dict[str, tuple[Work, float]]:
        """By ack id those, with the seconds that they ran, which had a whole worker's time: none where something else than its end cut them
        short."""
        now_s = self.clock.monotonic()
        if self.asked_s is not None or self.breaker.open or now_s < self.bounds.end_s:
            return {}
        ran = [(work, now_s - began_s) for work, began_s in stuck if self.bounds.is_whole(now_s - began_s)]
        return {work.ack_id: (work, ran_s) for work, ran_s in ran}

    def _record(self, whole: Iterable[tuple[Work, float]], committer: Committer) -> None:
        """An attempt of each is spent: several at a time, for as long as the last flush can wait. The others are nacked."""
        judging = {self.markers.pool.submit(self._judged, work, ran_s): work for work, ran_s in whole}
        done, late = wait(judging, timeout=max(0.0, self.bounds.record_until_s() - self.clock.monotonic()))
        committer.settle([one.result() for one in done])
        committer.nack_abandoned([judging[one] for one in late])

    def _judged(self, work: Work, ran_s: float) -> Finished:
        attempt = work if isinstance(work, Attempt) else self.runner.decoded(work)
        if not isinstance(attempt, Attempt):
            return attempt
        if attempt.claim is not None and not attempt.claimed():
            return Nack(attempt)
        return self.runner.judged(attempt, does_not_fit(self.settings.task_timeout_s, ran_s))

    def _nothing_to_wait_for(self) -> bool:
        """Whether outstanding messages can only be nacked: after a fault, or when the circuit breaker keeps outcomes from being written."""
        return self.fault is not None or (self.breaker.open and not self.executors.running())

    # --- by the watchdog

    def _stuck(self, parts: Sequence[str]) -> None:
        """A thread of ours stands still: say where all are, nack what is outstanding as far as that can be done, and let the process end.

        Called by the watchdog. Nothing here waits for long, and nothing relies on the thread that stands still.
        """
        self._fired.set()
        self.tally.exit_reason = ExitReason.STUCK.value
        self.runner.stopping.set()
        within(STUCK_NACK_S, lambda: self._nack_all(parts, stacks()))
        within(LAST_FLUSH_S, lambda: log("worker_ended", exit_reason=ExitReason.STUCK.value, **self._facts()))
        self._last_words.set()
        self.on_stuck()

    def _nack_all(self, parts: Sequence[str], where: str) -> None:
        """Tell why, nack every message, running or not, and say so in the progress."""
        log("worker_stuck", parts=list(parts), after_s=self.settings.watchdog_s, stacks=where, **self._facts())
        if self.stages is not None:
            leases = self.stages.leases
            leases.end()
            ack_ids = leases.ack_ids()
            try:
                leases.forget(ack_ids, 0.0)
                self.tally.nacked(len(ack_ids) - len(self.subscription.nack(ack_ids)))
            except FanoutError as error:
                log("nack_failed", message_count=len(ack_ids), error=str(error))
        if self.progress.created and PROGRESS_WRITER not in parts:
            self.progress.write()

    def _facts(self) -> dict[str, Any]:
        tally = self.tally
        counts = {"taken": tally.taken, "acked": tally.acked, "returned": tally.returned, "delayed": tally.delayed, **tally.outcomes}
        seconds = {"handler_s": round(tally.handler_s, 3), "elapsed_s": round(self.clock.monotonic() - self.bounds.started_s, 3)}
        return {"share": tally.share, **counts, **seconds}
