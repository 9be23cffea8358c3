"""The circuit breaker opens for what a service did, and for nothing else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from batch.worker.circuit_breaker import DEFAULT_LIMIT, CircuitBreaker, limit_of


def made() -> CircuitBreaker:
    return CircuitBreaker(limit_of(8, 1000))


def test_dependency_failures_in_a_row_open_it() -> None:
    breaker = made()
    for _ in range(DEFAULT_LIMIT - 1):
        breaker.failed("the bucket is closed")
    assert not breaker.open
    breaker.failed("the bucket is closed")
    assert breaker.reason == "the bucket is closed"
    breaker.failed("another")
    assert breaker.reason == "the bucket is closed"


def test_one_task_that_has_an_outcome_begins_the_row_anew() -> None:
    breaker = made()
    for _ in range(100):
        for _ in range(DEFAULT_LIMIT - 1):
            breaker.failed("the bucket is closed")
        breaker.ended()
    assert not breaker.open


@given(st.integers(1, 1000), st.integers(0, 10_000))
def test_a_small_share_can_open_it(concurrency: int, share: int) -> None:
    assert 1 <= limit_of(concurrency, share) <= max(1, share)
