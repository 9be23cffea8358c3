"""A lagging gauge: the real tick, minute by minute, over a queue of 10,000 messages of 1 s. It must not pay for the lag."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import pytest

from batch.model.progress import MARK_EVERY_S
from batch.model.shares import share
from controller.act.state import LaneState, load, save
from controller.decide.rates import Learned, Sample
from controller.model.reading import Value
from controller.tick.results import TickResult
from tests.controller.fakes import World, lane, progress, tick, world, write_progress

BACKLOG = 10_000
START_UP_S = 10.0
TICK_S = 60.0
RETRY_S = 600.0
"""A message that fails at first is handed back to come again after so long."""


@dataclass
class Worker:
    """One message a second from its start on; `fates` are in order, True: acknowledged, False: handed back with a delay."""

    created_at: float
    share: int
    fates: list[bool] = field(default_factory=list)

    @property
    def begins_at(self) -> float:
        return self.created_at + START_UP_S

    @property
    def ends_at(self) -> float:
        return self.begins_at + len(self.fates)

    def done(self, now: float) -> list[bool]:
        return self.fates[: max(0, int(now - self.begins_at))]

    def acked_by(self, now: float) -> int:
        return sum(self.done(now))

    def deferred(self) -> list[int]:
        """When its messages come again, Unix seconds."""
        return [int(self.begins_at + at + 1 + RETRY_S) for at, acked in enumerate(self.fates) if not acked]


class Drain:
    """A queue and its workers. One that finds the queue empty ends; of those messages that were never tried, every `retry_every`th fails
    once and is handed back."""

    def __init__(self, here: World, retry_every: int = 0) -> None:
        self.here = here
        self.retry_every = retry_every
        self.published = self.fresh = BACKLOG
        self.deferred: list[int] = []
        self.workers: dict[str, list[Worker]] = {}

    def publish(self, count: int) -> None:
        self.published += count
        self.fresh += count

    def adopt(self) -> None:
        """Give new executions what is left, worker by worker."""
        for name, info in self.here.runner.all.items():
            if name in self.workers:
                continue
            self.workers[name] = []
            for index in range(info.task_count):
                worker = Worker(info.created_at, share(int(info.env["BACKLOG"]), info.task_count, index))
                self._fill(worker)
                self.workers[name].append(worker)

    def _fill(self, worker: Worker) -> None:
        due = sorted(at for at in self.deferred if at <= worker.begins_at)[: worker.share]
        for at in due:
            self.deferred.remove(at)
        first_tries = min(self.fresh, worker.share - len(due))
        numbers = range(self.published - self.fresh, self.published - self.fresh + first_tries)
        self.fresh -= first_tries
        worker.fates = [True] * len(due) + [not self.retry_every or number % self.retry_every > 0 for number in numbers]
        self.deferred += worker.deferred()

    @property
    def billed_s(self) -> float:
        """Worker-seconds, at least a minute each."""
        return sum(max(60.0, START_UP_S + len(one.fates)) for workers in self.workers.values() for one in workers)

    def undelivered(self, now: float) -> int:
        return self.published - sum(one.acked_by(now) for workers in self.workers.values() for one in workers)

    def write_progress(self, now: float) -> None:
        """What each worker has last written: every 15 s and at its end."""
        for name, workers in self.workers.items():
            for index, one in enumerate(workers):
                written = one.ends_at if now >= one.ends_at else now - now % MARK_EVERY_S
                if written <= one.created_at:
                    continue
                done, acked = one.done(written), one.acked_by(written)
                grid = range(int(one.created_at - one.created_at % MARK_EVERY_S + MARK_EVERY_S), int(written) + 1, MARK_EVERY_S)
                told = progress(
                    one.share,
                    one.begins_at,
                    updated_at=written,
                    taken=len(done),
                    acked=acked,
                    returned=len(done) - acked,
                    handler_s=float(len(done)),
                    marks=tuple((at, one.acked_by(at)) for at in grid)[-40:],
                    deferred=tuple((at, 1) for at in one.deferred()[: len(done) - acked]),
                    exit_reason="" if now < one.ends_at else "share_done" if len(one.fates) == one.share else "drained",
                    last_acked_at=written if acked else 0.0,
                )
                write_progress(self.here.store, name, index, told)
            ended_at = max(one.ends_at for one in workers)
            if now >= ended_at and self.here.runner.all[name].live:
                self.here.runner.complete(name, ended_at)


def drained(
    lag_s: float,
    phase_s: float,
    *,
    retry_every: int = 0,
    jitter_s: float = 0.0,
    minutes: int = 12,
    learned: Learned | None = None,
    **policy: object,
) -> tuple[int, int, float]:
    """Workers launched until the queue is empty, messages assigned to them, worker-seconds that are billed. The gauge is `lag_s` late, and
    up to `jitter_s` older than it says."""
    here, rng = world(), random.Random(f"{lag_s} {phase_s} {jitter_s}")
    drain = Drain(here, retry_every)
    begin = here.clock.now()
    here.clock.advance(lag_s + TICK_S + phase_s)
    if learned is not None:
        save(here.store, LaneState("default", learned=learned), 0, "learned before")
    results: list[TickResult] = []
    for _ in range(minutes):
        now = here.clock.now()
        drain.write_progress(now)
        sampled_at = begin + (now - lag_s - begin) // TICK_S * TICK_S
        here.backlog.reading = Value(drain.undelivered(sampled_at - rng.uniform(0, jitter_s)), sampled_at)
        results.append(tick(lane(**policy), here.outside))
        drain.adopt()
        here.clock.advance(TICK_S)
    assert drain.undelivered(here.clock.now()) == 0
    assert results[-1].decision.workers == 0
    requests = [request for _, request in here.runner.requests]
    assigned = sum(int(request.env["BACKLOG"]) for request in requests)
    return sum(request.task_count for request in requests), assigned, drain.billed_s


@pytest.mark.parametrize("lag_s", [0.0, 60.0, 120.0, 180.0])
@pytest.mark.parametrize("phase_s", [0.0, 25.0, 59.0])
@pytest.mark.parametrize("jitter_s", [0.0, 30.0])
def test_a_lagging_gauge_costs_no_extra_worker(lag_s: float, phase_s: float, jitter_s: float) -> None:
    workers, assigned, billed_s = drained(lag_s, phase_s, jitter_s=jitter_s)
    assert (workers, assigned) == (100, BACKLOG) or jitter_s
    assert billed_s <= (1.02 if jitter_s else 1.0) * (BACKLOG + 100 * START_UP_S)


@pytest.mark.parametrize("lag_s", [0.0, 60.0, 120.0, 180.0])
@pytest.mark.parametrize("jitter_s", [0.0, 30.0])
def test_messages_that_come_again_later_cost_a_fifth_more_at_most(lag_s: float, jitter_s: float) -> None:
    """A tenth comes again after 600 s: 11,000 s of work for 110 workers of 100."""
    workers, assigned, billed_s = drained(lag_s, 25.0, jitter_s=jitter_s, retry_every=10, minutes=24)
    assert 110 <= workers <= 120
    assert assigned == BACKLOG * 11 // 10 or jitter_s
    assert billed_s <= 1.01 * (BACKLOG * 11 // 10 + 111 * START_UP_S)


@pytest.mark.parametrize("lag_s", [60.0, 120.0, 180.0])
def test_a_limit_on_workers_makes_waves_and_no_surplus(lag_s: float) -> None:
    assert drained(lag_s, 25.0, max_workers=30, minutes=24)[:2] == (100, BACKLOG)


@pytest.mark.parametrize("lag_s", [60.0, 120.0, 180.0])
def test_a_gauge_that_is_older_each_time_by_another_time_costs_some_start_ups(lag_s: float) -> None:
    """The worst there is: waves of short workers, none of which waits, and a gauge that is 0 to 30 s older than it says."""
    assert drained(lag_s, 25.0, jitter_s=30.0, max_workers=30, minutes=24)[2] <= 1.08 * (BACKLOG + 100 * START_UP_S)


@pytest.mark.parametrize("lag_s", [0.0, 60.0, 120.0, 180.0])
def test_a_deadline_counts_the_lag_and_assigns_nothing_twice(lag_s: float) -> None:
    """10,000 s of work by workers of one thread; what the lag and the tick have used of 900 s is gone, and so are 10 s to start. They came
    after the last sample that did not show them, 60 s before."""
    before = Learned((Sample(1.0, 100, START_UP_S, 0.0),))
    policy: dict[str, Any] = {"max_messages": BACKLOG, "concurrency": 1, "drain_within_s": 900.0, "task_timeout_s": 3600.0}
    workers, assigned, billed_s = drained(lag_s, 25.0, learned=before, minutes=20, **policy)
    assert (workers, assigned) == (ceil(BACKLOG / int(900 - lag_s - 25 - TICK_S - START_UP_S)), BACKLOG)
    assert drained(lag_s, 25.0, jitter_s=30.0, learned=before, minutes=20, **policy)[2] <= 1.02 * billed_s


def waves(
    late_s: float, second_after_s: float, second: int, *, jitter_s: float = 0.0, minutes: int = 12
) -> tuple[list[tuple[float, int]], float]:
    """A long drain by 20 workers, sampled each minute by a gauge that is `late_s` to `late_s + jitter_s` older than it says, and `second`
    messages more in the midst of it: when what was launched for, after the first tick, and worker-seconds that are billed."""
    here, rng = world(), random.Random(f"{late_s} {jitter_s} {second}")
    drain = Drain(here)
    begin = here.clock.now()
    launches: list[tuple[float, int]] = []
    undelivered = {begin: BACKLOG}
    for minute in range(minutes):
        now = here.clock.now()
        if minute * TICK_S >= second_after_s and drain.published == BACKLOG:
            drain.publish(second)
        drain.write_progress(now)
        then = max(begin, now - late_s - rng.uniform(0, jitter_s))
        # Nothing was published before the wave but the backlog.
        undelivered[now] = drain.undelivered(then) - (second if drain.published > BACKLOG and then < begin + second_after_s else 0)
        here.backlog.reading = Value(undelivered[now], now, None)
        decision = tick(lane(max_messages=500, max_workers=100), here.outside).decision
        if decision.workers and minute:
            launches.append((now - begin, decision.backlog))
        drain.adopt()
        here.clock.advance(TICK_S)
    assert drain.undelivered(here.clock.now()) == 0
    return launches, drain.billed_s


@pytest.mark.parametrize("late_s", [0.0, 20.0])
def test_a_wave_in_the_midst_of_a_drain_is_launched_for_at_the_second_sample(late_s: float) -> None:
    """Fewer messages than the workers acknowledge within the 30 s before a sample: only that they stay tells them apart."""
    launches, billed_s = waves(late_s, 300.0, 250)
    assert sum(count for _, count in launches) == 250 or late_s
    assert billed_s <= 1.02 * (BACKLOG + 250 + 26 * START_UP_S)
    assert launches[-1][0] <= 300.0 + (60 if not late_s else 120)


@pytest.mark.parametrize("late_s", [0.0, 10.0, 30.0])
@pytest.mark.parametrize("jitter_s", [0.0, 10.0, 30.0])
def test_a_gauge_that_is_older_than_it_says_is_launched_for_nothing_in_a_long_drain(late_s: float, jitter_s: float) -> None:
    if late_s + jitter_s > 30.0:
        return
    launches, billed_s = waves(late_s, 1e9, 0, jitter_s=jitter_s)
    assert launches == [] or jitter_s, "it is known how late it is"
    assert billed_s <= 1.015 * (BACKLOG + 24 * START_UP_S)


@pytest.mark.parametrize("accepted", [False, True])
def test_what_comes_after_a_drain_is_not_taken_for_what_was_drained(accepted: bool) -> None:
    here = world()
    drain = Drain(here)
    here.backlog.reading = Value(BACKLOG, here.clock.now(), 0.0)
    tick(lane(), here.outside)
    drain.adopt()
    here.clock.advance(START_UP_S + 100 + 5)  # the last was acknowledged 5 s ago
    drain.write_progress(here.clock.now())
    if accepted:
        here.backlog.reading = Value(0, here.clock.now(), None)
        here.clock.advance(10)
        state, generation = (stored := load(here.store, "default")).state, stored.generation
        save(here.store, state.with_accepted(here.clock.now(), 400, "poke"), generation, "poke")
        assert tick(lane(), here.outside).decision.backlog == 400
        return
    here.backlog.reading = Value(400, here.clock.now(), None)
    first = tick(lane(), here.outside).decision
    here.clock.advance(TICK_S)
    here.backlog.reading = Value(400, here.clock.now(), None)
    second = tick(lane(), here.outside).decision
    assert (first.backlog + second.backlog, second.ledger.guard_count if second.ledger else None) == (400, 0)
