"""The world of a simulation: events in order of their time, messages, workers that take them, a gauge that is sampled. Seeded, and exact to
the event; no thread, no real time.

Workers behave as the real ones do, as far as sizes and costs go: a share, the paid minute after it, an end when the queue is empty, the
task timeout. A thread takes several short messages at once, so that a hundred million of them stay possible.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from math import inf

from batch.model.exit import EXIT_OK, ExitReason, exit_code
from batch.model.shares import share as share_of
from batch.services.drain import MAX_WAIT_S
from batch.settings import WorkerSettings
from batch.testing import ManualClock
from batch.worker.life import BILLING_RESERVE_S
from controller.simulation.given.draws import binomial
from controller.simulation.given.scenario import Load, Scenario
from controller.simulation.world.fleet import Execution, Worker
from controller.simulation.world.messages import Cohort, Queue, Taken

BATCH_S = 0.5
"""A thread takes so many messages at a time that they fill this, and at most a part of what there is."""
MANY_THREADS = 4000
"""Where more of them work, each takes as many times more at a time: a run costs no more than so many do. Workers then write their progress
less often, too, so that what is known of them is no coarser for it."""
LATE_S = 1e-6
PATIENCE = 10
"""So many deadlines after the horizon nothing is waited for any more."""


@dataclass(slots=True)
class Count:
    """What came of a lane. `late_count` messages were done later than their deadline after they could first be taken; `cost_s` are the
    worker-seconds that are paid for, `waste_count` the workers that did nothing."""

    done_count: int = 0
    late_count: int = 0
    dead_count: int = 0
    cost_s: float = 0.0
    worker_count: int = 0
    launch_count: int = 0
    waste_count: int = 0
    work_s: float = 0.0
    last_done_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Sample:
    """What the gauge of a lane saw at `at`, and when a reader can see that; `arrived_count` is what a rate of arrivals is made from."""

    at: float
    visible_at: float
    undelivered_count: int
    oldest_at: float | None
    arrived_count: int


@dataclass(slots=True, eq=False)
class LaneWorld:
    """One lane: its queue and its executions, newest last. `availabilities` are when messages became available, retries too: what a bound
    of the cost is computed from."""

    load: Load
    job: str
    drain_within_s: float
    queue: Queue = field(default_factory=Queue)
    executions: list[Execution] = field(default_factory=list)
    live: dict[Worker, None] = field(default_factory=dict)
    idle: deque[tuple[Worker, int]] = field(default_factory=deque)
    samples: list[Sample] = field(default_factory=list)
    availabilities: list[tuple[float, int]] = field(default_factory=list)
    count: Count = field(default_factory=Count)
    ended_count: int = 0

    @property
    def alive_count(self) -> int:
        """Workers that are paid for now: begun or not."""
        return self.count.worker_count - self.ended_count

    def paid_from(self, execution: Execution, now: float) -> float:
        """Since when (Unix seconds) its workers are paid for."""
        if not self.load.is_delayed:
            return execution.created_at
        return now if execution.begun_at is None else execution.begun_at

    @property
    def leaving_count(self) -> int:
        """Those of them that end by themselves."""
        return self.alive_count - sum(worker.stays for worker in self.live)


class World:
    """Run it with `run`; launch workers with `launch`. All times are Unix seconds of `clock`."""

    def __init__(self, scenario: Scenario, drain_within_s: Mapping[str, float]) -> None:
        self.scenario, self.clock = scenario, ManualClock()
        self.start_at = self.clock.now()
        self._rng = random.Random(scenario.seed)
        self._gauge_rng, self._start_rng = random.Random(scenario.seed + 1), random.Random(scenario.seed + 2)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self.stop_at = self.start_at + scenario.horizon_s + max(scenario.horizon_s, PATIENCE * max(drain_within_s.values(), default=0.0))
        base = "projects/simulated/locations/simulated/jobs"
        self.lanes = {load.name: LaneWorld(load, f"{base}/{load.name}", drain_within_s[load.name]) for load in scenario.loads}
        every_s = scenario.gauge_every_s
        for lane in self.lanes.values():
            self._next_arrival(lane, 0)
            phase_s = self._gauge_rng.uniform(0, every_s) if scenario.gauge_phase_s is None else scenario.gauge_phase_s
            self._every(every_s, partial(self._sample, lane), first_s=phase_s)

    # --- events

    def at(self, when: float, call: Callable[[], None]) -> None:
        """Call it at that time."""
        self._number += 1
        heapq.heappush(self._events, (when, self._number, call))

    def every(self, seconds: float, call: Callable[[], None]) -> None:
        """Call it again and again, from the start on, as long as there is something to do."""
        self._every(seconds, call, first_s=0.0)

    def _every(self, seconds: float, call: Callable[[], None], first_s: float) -> None:
        def again(when: float) -> None:
            # Before the call: a rule that launches whatever there is would never let it be over.
            if not self.is_over:
                call()
                self.at(when + seconds, lambda: again(when + seconds))

        self.at(self.start_at + first_s, lambda: again(self.start_at + first_s))

    @property
    def is_over(self) -> bool:
        """Whether the horizon has passed and everything is done, or it has taken far too long."""
        now = self.clock.now()
        if now < self.start_at + self.scenario.horizon_s:
            return False
        return now >= self.stop_at or not any(lane.queue.unacked_count or lane.leaving_count for lane in self.lanes.values())

    def run(self) -> None:
        """Until nothing is left to happen. What is still alive then is paid for until then."""
        while self._events:
            when, _, call = heapq.heappop(self._events)
            if when > self.stop_at:
                break
            if (later_s := when - self.clock.now()) > 0:
                self.clock.advance(later_s)
            call()
        for lane in self.lanes.values():
            lane.count.late_count += lane.queue.unacked_count
            for worker in list(lane.live):
                self._end(lane, worker, ExitReason.STOPPED)

    # --- messages

    def _next_arrival(self, lane: LaneWorld, number: int) -> None:
        if number < len(lane.load.arrivals):
            at_s, count = lane.load.arrivals[number]
            self.at(self.start_at + at_s, lambda: self._arrive(lane, count, number + 1))

    def _arrive(self, lane: LaneWorld, count: int, following: int) -> None:
        cohort = self._publish(lane, count)
        self._look_again(lane, cohort)
        self._next_arrival(lane, following)

    def _publish(self, lane: LaneWorld, count: int) -> Cohort:
        now = self.clock.now()
        cohort = lane.queue.publish(now, count)
        lane.availabilities.append((now - self.start_at, count))
        self._wake(lane)
        return cohort

    def _look_again(self, lane: LaneWorld, cohort: Cohort) -> None:
        if lane.load.republish_after_s is not None:
            self.at(self.clock.now() + lane.load.republish_after_s, lambda: self._republish(lane, cohort))

    def _republish(self, lane: LaneWorld, cohort: Cohort) -> None:
        """Its producer waits for what it published first, not for the copies."""
        if cohort.left:
            self._publish(lane, cohort.left)
            self._look_again(lane, cohort)

    def _again(self, lane: LaneWorld, cohort: Cohort) -> None:
        lane.queue.give(cohort, cohort.left)
        self._wake(lane)

    def _sample(self, lane: LaneWorld) -> None:
        now, queue = self.clock.now(), lane.queue
        late_s = self.scenario.lag.draw(self._gauge_rng)
        if late_s is not None:
            at = now + self.scenario.gauge_older_s
            lane.samples.append(Sample(at, at + late_s, queue.unacked_count, queue.oldest_at(), queue.arrived_count))

    # --- workers

    def launch(
        self,
        lane: LaneWorld,
        count: int,
        env: Mapping[str, str],
        *,
        backlog: int | None = None,
        limit: int | None = None,
        stays: bool = False,
    ) -> Execution:
        """An execution of `count` workers that share `backlog` messages, or, None, go on until the queue is empty; those of a pool stay."""
        now = self.clock.now()
        name = f"{lane.load.name}-{len(lane.executions):05d}"
        execution = Execution(f"{lane.job}/executions/{name}", now, env)
        together_s = self.scenario.start_up.draw(self._start_rng) if lane.load.is_delayed else None
        for index in range(count):
            own = None if backlog is None else share_of(backlog, count, index)
            worker = Worker(execution, index, lane.load.concurrency, own, limit, stays)
            execution.workers.append(worker)
            start_s = self.scenario.start_up.draw(self._start_rng) if together_s is None else together_s
            self.at(now + start_s, partial(self._begin, lane, worker))
        lane.executions.append(execution)
        lane.count.worker_count += count
        lane.count.launch_count += 1
        return execution

    def stop(self, lane: LaneWorld, worker: Worker, reason: ExitReason = ExitReason.STOPPED) -> None:
        """End it now; what it holds waits again."""
        if worker.ended_at is None:
            self._end(lane, worker, reason)

    def _begin(self, lane: LaneWorld, worker: Worker) -> None:
        if worker.ended_at is not None:
            return
        now = self.clock.now()
        worker.begin(now, self._start_rng.random(), self.scenario.flush_s)
        if worker.share is not None:
            worker.paid_until = now - self.scenario.process_s + max(0.0, self.scenario.floor_s - BILLING_RESERVE_S)
        worker.execution.begun_count += 1
        worker.execution.begun_at = min(now, worker.execution.begun_at or inf)
        lane.live[worker] = None
        self.at(now + lane.load.task_timeout_s, lambda: self._out_of_time(lane, worker))
        for thread in range(worker.threads):
            self._next(lane, worker, thread)

    def _room(self, worker: Worker, message_s: float) -> int:
        """How many messages it may take now; 0: it has had its share."""
        if not worker.has_had_share:
            return 10**9 if worker.share is None else worker.share - worker.taken
        if worker.is_quiet or self.clock.now() + message_s + WorkerSettings.prefetch_s >= worker.paid_until:
            return 0
        return 10**9 if worker.limit is None else max(0, worker.limit - worker.taken)

    def _next(self, lane: LaneWorld, worker: Worker, thread: int) -> None:
        if worker.ended_at is not None:
            return
        now, durations = self.clock.now(), lane.load.durations
        message_s = durations.mean(now - self.start_at)
        room = self._room(worker, message_s)
        if not room:
            self._retire(lane, worker)
            return
        part = max(1, min(room, lane.queue.waiting_count) // (4 * worker.threads))
        batch_s = BATCH_S * max(1.0, len(lane.live) * worker.threads / MANY_THREADS)
        taken = lane.queue.take(min(room, part, max(1, int(batch_s / message_s)) if message_s > 0 else part))
        if not taken:
            worker.idle.add(thread)
            lane.idle.append((worker, thread))
            if worker.has_had_share:
                self._look_once(lane, worker)
            self._maybe_end(lane, worker)
            return
        count = sum([many for _, many in taken])
        worker.roll(now)
        worker.taken += count
        worker.busy[thread] = (now, taken)
        seconds = durations.draw_sum(self._rng, count, now - self.start_at)
        self.at(now + seconds, lambda: self._done(lane, worker, thread, taken, seconds))

    def _done(self, lane: LaneWorld, worker: Worker, thread: int, taken: Taken, seconds: float) -> None:
        if worker.ended_at is not None:
            return
        now, total = self.clock.now(), lane.count
        worker.roll(now)
        del worker.busy[thread]
        worker.handle(now, sum(many for _, many in taken), seconds)
        total.work_s += seconds
        failures, acked_count = lane.load.failures, 0
        for cohort, many in taken:
            failed = binomial(self._rng, many, failures.share)
            if failed and cohort.runs + 1 < failures.attempts:
                later = lane.queue.defer(cohort, failed, now + failures.after_s)
                worker.returned += failed
                worker.deferred.append((int(later.available_at), failed))
                lane.availabilities.append((later.available_at - self.start_at, failed))
                self.at(later.available_at, partial(self._again, lane, later))
            elif failed:
                total.dead_count += failed
                many, failed = many, 0
            done = many - failed
            lane.queue.ack(cohort, done)
            acked_count += done
            if now - cohort.available_at > lane.drain_within_s + LATE_S:
                total.late_count += done
        worker.acked += acked_count
        total.done_count += acked_count
        if acked_count:
            worker.last_acked_at = total.last_done_at = now
        self._next(lane, worker, thread)

    def _look_once(self, lane: LaneWorld, worker: Worker) -> None:
        """A worker that has had its share goes on until a pull finds nothing."""
        taken_count = worker.taken

        def ended() -> None:
            if worker.ended_at is None and worker.taken == taken_count:
                worker.is_quiet = True
                worker.retired += len(worker.idle)
                worker.idle.clear()
                self._maybe_end(lane, worker)

        self.at(self.clock.now() + MAX_WAIT_S, ended)

    def _retire(self, lane: LaneWorld, worker: Worker) -> None:
        worker.retired += 1
        self._maybe_end(lane, worker)

    def _maybe_end(self, lane: LaneWorld, worker: Worker) -> None:
        """When all its threads are without work, it ends after its idle tail; one that is owed messages, with its paid minute; one that has
        had them, as soon as it takes no more."""
        if worker.stays or len(worker.idle) + worker.retired < worker.threads:
            return
        if worker.has_had_share:
            if worker.retired:
                self._end(lane, worker, ExitReason.SHARE_DONE)
            return
        worker.woken += 1
        woken = worker.woken

        def end() -> None:
            if worker.ended_at is None and worker.woken == woken and len(worker.idle) + worker.retired == worker.threads:
                self._end(lane, worker, ExitReason.DRAINED)

        self.at(max(self.clock.now() + self.scenario.idle_tail_s, worker.paid_until), end)

    def _wake(self, lane: LaneWorld) -> None:
        while lane.queue.waiting_count and lane.idle:
            worker, thread = lane.idle.popleft()
            if worker.ended_at is None and thread in worker.idle:
                worker.idle.discard(thread)
                worker.woken += 1
                self._next(lane, worker, thread)

    def _out_of_time(self, lane: LaneWorld, worker: Worker) -> None:
        if worker.ended_at is None:
            self._end(lane, worker, ExitReason.OUT_OF_TIME)

    def _end(self, lane: LaneWorld, worker: Worker, reason: ExitReason) -> None:
        now, execution = self.clock.now(), worker.execution
        worker.roll(now)
        for _, taken in worker.busy.values():
            lane.queue.put_back(taken)
            worker.returned += sum(many for _, many in taken)
        worker.busy.clear()
        worker.end(now, reason)
        lane.live.pop(worker, None)
        execution.begun_count += not worker.begun_at
        execution.ended_count += 1
        execution.failed_count += exit_code(reason) != EXIT_OK
        if execution.ended_count == len(execution.workers):
            execution.completed_at = now
        lane.ended_count += 1
        lane.count.cost_s += max(self.scenario.floor_s, now - lane.paid_from(execution, now))
        lane.count.waste_count += not worker.taken
        self._wake(lane)
