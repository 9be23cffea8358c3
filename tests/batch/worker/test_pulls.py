"""Several pulls are open at a time, never for more than the share or the memory has room for; drained is never said in error."""

from __future__ import annotations

import random
import threading
from collections import Counter, deque
from contextlib import suppress
from typing import Any

import pytest

from batch.model.delivery import Delivery
from batch.model.errors import DependencyUnavailable
from batch.model.exit import ExitReason
from batch.model.message import Task
from batch.services.drain import MAX_WAIT_S, DrainProof
from batch.worker.flow import FIRST_PULL, MAX_OPEN_PULLS
from batch.worker.pulling.pulls import MAX_PULL_FAILURES, Need, Pull, Pulls
from tests.batch.worker.broker_sim import Simulation
from tests.batch.worker.plant import Plant, ended, in_thread

# --- the table of open pulls


def pulls(least_s: float = 5.0, max_bytes: int = 10**9) -> Pulls:
    return Pulls(DrainProof(least_s=least_s), max_bytes)


def opened(table: Pulls, now_s: float, need: Need) -> list[Pull]:
    found = []
    while (pull := table.begin(now_s, need)) is not None:
        found.append(pull)
    return found


def test_the_first_pull_is_small_and_alone() -> None:
    table = pulls()
    assert [pull.max_messages for pull in opened(table, 0.0, Need(1000, 0, 1000))] == [FIRST_PULL]


def test_after_short_answers_several_are_open_and_after_an_empty_one_a_single_one() -> None:
    table = pulls()
    need = Need(1000, 0, 10_000)
    (first,) = opened(table, 0.0, need)
    table.ended(first, 0.1, 2, 400, None)
    several = opened(table, 0.1, need)
    assert len(several) == MAX_OPEN_PULLS
    for pull in several:
        table.ended(pull, 0.2, 0, 0, 0.1)
    assert opened(table, 0.2, need) == [], "an empty answer before its time: the next look is at another moment"
    assert len(opened(table, 5.0, need)) == 1


def test_nothing_is_drained_while_a_pull_is_open_that_may_still_bring_something() -> None:
    table = pulls(least_s=0.5)
    need = Need(1000, 0, 10_000)
    (first,) = opened(table, 0.0, need)
    table.ended(first, 0.1, 1, 200, None)
    *others, last = opened(table, 0.1, need)
    for pull, ended_s in zip(others, (0.3, 0.6, 1.1), strict=True):
        table.ended(pull, ended_s, 0, 0, 0.1)
    assert table.proof.proven
    assert not table.drained
    table.ended(last, 1.2, 5, 1000, None)
    assert not table.drained


def test_failures_of_pulls_that_were_open_together_are_one() -> None:
    table = pulls()
    need = Need(1000, 0, 10_000)
    (first,) = opened(table, 0.0, need)
    table.ended(first, 0.1, 2, 400, None)
    for pull in opened(table, 0.1, need):
        table.failed(pull, 0.3)
    assert (table.failure_count, table.broken) == (1, False)
    assert opened(table, 0.4, need) == [], "the next try waits"
    now_s = 2.0
    for _ in range(MAX_PULL_FAILURES - 1):
        (pull,) = opened(table, now_s, need)
        now_s += 20.0 + table.failed(pull, now_s + 0.1)
    assert table.broken


def test_where_most_pulls_fail_the_proof_begins_anew() -> None:
    table = pulls(least_s=2.0)
    need, now_s = Need(10, 0, 10), 100.0
    while not table.drained:
        (pull,) = opened(table, now_s, need)
        now_s += pull.wait_s
        if 100.7 < now_s < 102.5:
            now_s += table.failed(pull, now_s)
        else:
            table.ended(pull, now_s, 0, 0, 100.0)
    assert now_s > 102.5 + 2.0, "what it saw before it could not look counts no more"


def test_a_pull_ends_before_the_worker_has_to() -> None:
    table = pulls()
    (pull,) = opened(table, 11.0, Need(10, 0, 10, until_s=12.0))
    assert pull.wait_s == 1.0
    assert opened(pulls(), 12.0, Need(10, 0, 10, until_s=12.0)) == []


def test_large_messages_are_pulled_in_small_numbers() -> None:
    table = pulls(max_bytes=32_000_000)
    (first,) = opened(table, 0.0, Need(8, 0, 1000))
    table.ended(first, 0.1, 3, 27_000_000, None)
    assert opened(table, 0.1, Need(8, 0, 1000, outstanding_bytes=27_000_000)) == []
    after = opened(table, 0.2, Need(8, 0, 1000, outstanding_bytes=9_000_000))
    assert sum(pull.max_messages for pull in after) == 2
    (alone,) = opened(pulls(max_bytes=1), 0.0, Need(8, 0, 1000))
    assert alone.max_messages == 1, "one that is larger than the limit is worked on alone"


# --- under simulated time

SEEDS = 1000


@pytest.mark.slow
def test_drained_is_never_wrong_and_no_share_exceeded_in_a_thousand_histories() -> None:
    """Short and false empty answers, several pulls, messages that go back, pulls that fail: at the end nothing is left, or the share is
    done; and where few pulls fail the end takes no more than twice as long as the proof must."""
    ends: Counter[str] = Counter()
    most_open, longest_s = 0, 0.0
    for seed in range(SEEDS):
        rng = random.Random(seed)
        backlog, share = rng.choice([0, 1, 7, 60, 300]), rng.choice([5, 100, 1000])
        least_s, fails = rng.choice([0.5, 5.0, 12.0, 60.0]), rng.choice([0.0, 0.05, 0.2])
        simulation = Simulation(rng, backlog, share, least_s=least_s, fails=fails).run()
        ends[simulation.ended] += 1
        most_open = max(most_open, simulation.most_open)
        assert simulation.most_asked <= share, f"seed {seed}"
        if simulation.ended == "drained":
            assert (simulation.backlog, simulation.held) == (0, 0), f"seed {seed} left messages"
            if least_s == 5.0 and fails <= 0.05:
                longest_s = max(longest_s, simulation.idle_s)
    assert min(ends["drained"], ends["share_done"]) > 100
    assert most_open == MAX_OPEN_PULLS
    assert 5.0 < longest_s <= 10.0


def test_a_failed_pull_costs_its_own_time_and_a_short_pause() -> None:
    table = pulls(least_s=5.0)
    need, now_s = Need(10, 0, 10), 100.0
    for number in range(10):
        (pull,) = opened(table, now_s, need)
        now_s += pull.wait_s
        if number == 1:
            now_s += table.failed(pull, now_s)
        else:
            table.ended(pull, now_s, 0, 0, 100.0)
        if table.drained:
            break
    assert 105.0 <= now_s <= 107.0


# --- a worker


@pytest.fixture
def plant() -> Plant:
    made = Plant()

    @made.registry.task("note")
    def note(task: Task, ctx: Any) -> None:
        return None

    return made


class Gate:
    """Stands before a subscription's `pull`: sees how many are open, and how much all have asked for."""

    def __init__(self, plant: Plant) -> None:
        self.most_open = self.most_asked = self._open = self._asked = self._brought = 0
        self._lock = threading.Lock()
        self._pull = plant.subscription.pull
        plant.subscription.pull = self.pull  # type: ignore[method-assign]

    def pull(self, max_messages: int, timeout_s: float) -> list[Delivery]:
        with self._lock:
            self._open += 1
            self._asked += max_messages
            self.most_open = max(self.most_open, self._open)
            self.most_asked = max(self.most_asked, self._asked + self._brought)
        deliveries: list[Delivery] = []
        try:
            self.before()
            deliveries = self._pull(max_messages, timeout_s)
        finally:
            with self._lock:
                self._open -= 1
                self._asked -= max_messages
                self._brought += len(deliveries)
        return deliveries

    def before(self) -> None:
        """What happens in an open pull."""


def test_four_pulls_are_open_while_each_brings_little(plant: Plant) -> None:
    plant.subscription.most_per_pull = 10
    together = threading.Barrier(MAX_OPEN_PULLS)

    class Waiting(Gate):
        def before(self) -> None:
            if self._brought >= 20 and not together.broken:
                with suppress(threading.BrokenBarrierError):
                    together.wait(10)
                together.abort()

    gate = Waiting(plant)
    plant.submit(2000, "note")
    assert plant.worker(BACKLOG=2000).run() is ExitReason.SHARE_DONE
    assert gate.most_open == MAX_OPEN_PULLS
    assert gate.most_asked <= 2000, "all pulls together asked for more than the share"
    assert plant.subscription.backlog == 0


def test_shares_are_exact_with_short_answers_and_a_larger_backlog(plant: Plant) -> None:
    plant.subscription.most_per_pull = 7
    gate = Gate(plant)
    plant.submit(700, "note")
    assert plant.worker(MAX_MESSAGES=333).run() is ExitReason.SHARE_DONE
    assert plant.progress().taken == gate.most_asked == 333
    assert plant.subscription.backlog == 700 - 333


def test_what_an_open_pull_brings_after_a_stop_goes_back_at_once(plant: Plant) -> None:
    inside, may_go = threading.Event(), threading.Event()

    class Slow(Gate):
        def before(self) -> None:
            inside.set()
            assert may_go.wait(10)

    Slow(plant)
    plant.submit(30, "note")
    worker = plant.worker(MAX_MESSAGES=1000)
    thread, reasons = in_thread(worker)
    assert inside.wait(60)
    worker.stop()
    may_go.set()
    ended(thread)
    assert reasons == [ExitReason.STOPPED]
    progress = plant.progress()
    assert progress.taken == progress.returned > 0
    assert (plant.subscription.backlog, plant.subscription.leased) == (30, 0)


def test_held_data_stays_within_its_limit(plant: Plant) -> None:
    most_bytes = 0
    size = 100_000

    @plant.registry.task("large")
    def large(task: Task, ctx: Any) -> None:
        nonlocal most_bytes
        most_bytes = max(most_bytes, plant.subscription.leased * size)

    plant.submit(200, "large", blob="x" * size)
    assert plant.worker(BACKLOG=200, CONCURRENCY=4, MAX_OUTSTANDING_BYTES=12 * size).run() is ExitReason.SHARE_DONE
    assert len(plant.final()) == 200
    assert 4 * size <= most_bytes <= 12 * size


def test_a_message_larger_than_the_limit_is_worked_on(plant: Plant) -> None:
    plant.submit(3, "note", blob="x" * 10_000)
    assert plant.worker(BACKLOG=3, MAX_OUTSTANDING_BYTES=100).run() is ExitReason.SHARE_DONE


def test_pulls_that_fail_together_are_tried_again(plant: Plant) -> None:
    plant.subscription.most_per_pull = 10
    failures = deque(range(3))

    class Busy(Gate):
        def before(self) -> None:
            if self._brought >= 10 and failures:
                failures.pop()
                raise DependencyUnavailable("busy")

    Busy(plant)
    plant.submit(500, "note")
    assert plant.worker(BACKLOG=500).run() is ExitReason.SHARE_DONE
    assert len(plant.final()) == 500


def test_waits_of_pulls_end_within_the_grace_of_a_stop() -> None:
    assert MAX_WAIT_S <= 5.0
