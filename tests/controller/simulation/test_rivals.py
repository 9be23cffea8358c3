"""Rivals: KEDA's formulas, row by row as its ScaledJob executor has them, and the other rules by their words."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.simulation.rivals import (
    RIVALS,
    BacklogPerInstance,
    CpuPool,
    Cron,
    JobAMessage,
    Keda,
    KedaStrategy,
    RateRule,
    Rival,
    Seen,
    SkipWhileRunning,
    held,
)

NOTHING = Seen(now_s=600.0, reading_count=0, sampled_at_s=480.0)
DEFAULT, ACCURATE, EAGER = KedaStrategy.DEFAULT, KedaStrategy.ACCURATE, KedaStrategy.EAGER


def keda(strategy: KedaStrategy, queue: int, running: int, pending: int, most: int, *, least: int = 0, target: int = 1) -> int:
    rival = Keda(strategy, target=target, min_workers=least, max_workers=most)
    return rival.workers(replace(NOTHING, reading_count=queue, running=running, pending=pending))


@pytest.mark.parametrize(
    ("strategy", "queue", "running", "pending", "most", "expected"),
    [
        (DEFAULT, 3, 2, 0, 100, 1),
        (DEFAULT, 2, 0, 0, 5, 2),
        (DEFAULT, 2, 3, 0, 5, 0),
        (DEFAULT, 50, 0, 0, 5, 5),
        (ACCURATE, 3, 2, 0, 5, 3),
        (ACCURATE, 5, 2, 0, 5, 3),
        (ACCURATE, 3, 2, 2, 10, 1),
        (ACCURATE, 5, 4, 2, 10, 3),
        (EAGER, 4, 3, 0, 10, 4),
        (EAGER, 10, 3, 2, 10, 5),
        (EAGER, 4, 9, 3, 10, 0),
        (EAGER, 0, 0, 0, 10, 0),
    ],
)
def test_rows_of_kedas_table(strategy: KedaStrategy, queue: int, running: int, pending: int, most: int, expected: int) -> None:
    assert keda(strategy, queue, running, pending, most) == expected


def test_a_poll_that_finds_fewer_than_the_minimum_makes_up_for_that_only() -> None:
    assert keda(DEFAULT, 500, 2, 0, 20, least=5) == 3
    assert keda(DEFAULT, 500, 5, 0, 20, least=5) == 15  # the maximum is reduced by the minimum, and so is what runs


@settings(max_examples=50)
@given(
    st.sampled_from(KedaStrategy), st.integers(0, 5000), st.integers(0, 300), st.integers(0, 300), st.integers(1, 300), st.integers(1, 100)
)
def test_kedas_table_by_its_words(strategy: KedaStrategy, queue: int, running: int, pending: int, most: int, target: int) -> None:
    max_scale = ceil(min(queue / target, most))
    if strategy is DEFAULT:
        effective, scale_to = max_scale - running, queue
    elif strategy is EAGER:
        effective, scale_to = min(most - running - pending, max_scale), most
    else:
        effective, scale_to = (most - running if max_scale + running - pending > most else max_scale - pending), queue
    created = 0 if effective <= 0 or queue == 0 else min(scale_to, effective)
    assert keda(strategy, queue, running, pending, most, target=target) == created


def test_backlog_per_instance_is_latency_by_seconds_a_message() -> None:
    rule = BacklogPerInstance(latency_s=10.0, message_s=0.1, max_workers=100)  # the worked example of the documentation
    assert rule.workers(replace(NOTHING, reading_count=1500, running=10)) == 5
    assert rule.workers(replace(NOTHING, reading_count=1500, running=20)) == 0
    assert rule.workers(replace(NOTHING, reading_count=10**6)) == 100


def test_a_rate_rule_sees_arrivals_and_one_worker_where_something_waits() -> None:
    rule = RateRule(worker_per_s=2.0, max_workers=100)
    assert rule.workers(replace(NOTHING, reading_count=50, arrivals_per_s=7.0, running=1)) == 3
    assert rule.workers(replace(NOTHING, reading_count=50)) == 1
    assert rule.workers(replace(NOTHING, reading_count=0)) == 0
    assert rule.workers(replace(NOTHING, reading_count=None, arrivals_per_s=7.0)) == 4


def test_a_pool_grows_by_its_cpu_and_shrinks_after_the_window() -> None:
    pool = CpuPool(max_workers=100)
    assert pool.is_pool
    assert pool.wants(replace(NOTHING, reading_count=5)) == 1
    assert pool.wants(replace(NOTHING, reading_count=None)) == 0
    assert pool.wants(replace(NOTHING, running=10, busy_share=1.0)) == 17
    assert pool.wants(replace(NOTHING, running=10, busy_share=0.6)) == 10
    assert pool.wants(replace(NOTHING, running=10, busy_share=0.0)) == 0
    assert pool.wants(replace(NOTHING, running=100, busy_share=1.0)) == 100
    assert pool.wants(replace(NOTHING, running=3, pending=3)) == 3, "it waits for those that start"
    assert pool.workers(replace(NOTHING, running=10, busy_share=1.0)) == 7
    wanted = [(0.0, 9), (200.0, 4), (290.0, 1)]
    assert held(wanted, 300.0, 300.0) == 9
    assert held(wanted, 301.0, 300.0) == 4
    assert held([], 301.0, 300.0) == 0
    assert CpuPool(min_workers=1).wants(NOTHING) == 1


def test_skip_while_running_counts_executions() -> None:
    rule = SkipWhileRunning(target=100, max_workers=10)
    assert rule.workers(replace(NOTHING, reading_count=250)) == 3
    assert rule.workers(replace(NOTHING, reading_count=25000)) == 10
    assert rule.workers(replace(NOTHING, reading_count=250, executions_running=1)) == 0


def test_a_job_a_message_sees_each_message_once() -> None:
    rule = JobAMessage()
    assert rule.share == 1
    assert rule.workers(replace(NOTHING, reading_count=500, arrived_count=7, running=90)) == 7


def test_a_cron_does_not_look() -> None:
    rule = Cron(3, poll_s=600.0)
    assert rule.poll_s == 600.0
    assert rule.workers(NOTHING) == rule.workers(replace(NOTHING, reading_count=10**6, running=50)) == 3


@pytest.mark.parametrize("rival", RIVALS.values(), ids=lambda rival: rival.name)
def test_no_rival_of_the_table_goes_below_zero_or_beyond_its_limit(rival: Rival) -> None:
    for count in (None, 0, 1, 10**7):
        for running in (0, 7, 10_000):
            seen = replace(NOTHING, reading_count=count, running=running, arrivals_per_s=1.0, busy_share=0.9)
            launched = rival.workers(seen)
            assert launched >= 0
            assert launched == 0 or launched + running <= max(rival.max_workers, running + getattr(rival, "number", 0))
    assert rival.idle_s > 0


def test_each_kind_has_several_settings_under_names_of_their_own() -> None:
    kinds = [rival.kind for rival in RIVALS.values()]
    assert len(set(kinds)) == 9
    assert all(kinds.count(kind) > 1 for kind in set(kinds) - {"job-a-message"})
    assert all(name == rival.name for name, rival in RIVALS.items())
