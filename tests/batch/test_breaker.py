"""The breaker tells what fails for everybody from broken tasks."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.worker.attempt import Failure
from batch.worker.circuit_breaker import DEFAULT_LIMIT, LEAST_COMMON_LIMIT, MAX_CHARS, CircuitBreaker, fingerprint, limits


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("no row 17 in table 3", "no row 4 in table 12"),
        ("task 0b9c3a1e-1f6e-4c63-9a3b-6f0f5a0f2a11 failed", "task ffffffff-1f6e-4c63-9a3b-000000000001 failed"),
        ("timeout after 1.25 s", "timeout after 30.5 s"),
        ("out/task-1 at 0x7fe2f63bd0d0", "out/task-999 at 0x7fe2f63be850"),
    ],
)
def test_errors_that_differ_by_numbers_and_ids_are_the_same(one: str, other: str) -> None:
    assert fingerprint("ValueError", one) == fingerprint("ValueError", other)


def test_errors_that_differ_otherwise_are_not() -> None:
    assert fingerprint("ValueError", "no row 1") != fingerprint("KeyError", "no row 1")
    assert fingerprint("ValueError", "no row 1") != fingerprint("ValueError", "no table 1")
    assert len(fingerprint("ValueError", "x" * 10**6)) < 2 * MAX_CHARS


def fail(breaker: CircuitBreaker, task_id: str, reason: str = "connection refused", *, dead: bool = False) -> None:
    failure = Failure(task_id, "OSError", reason, again=False)
    if dead:
        breaker.ended(failure)
    else:
        breaker.went_back(failure)


def made() -> CircuitBreaker:
    return CircuitBreaker(*limits(8, 1000))


def test_it_opens_when_so_many_different_tasks_in_a_row_fail_alike() -> None:
    breaker = made()
    opened = []
    for number in range(DEFAULT_LIMIT - 1):
        fail(breaker, f"t-{number}", f"connection {number} refused", dead=number % 3 == 0)
        opened.append(breaker.open)
    for number in range(DEFAULT_LIMIT):
        fail(breaker, f"u-{number}")  # another error
        opened.append(breaker.open)
    assert opened == [False] * (2 * DEFAULT_LIMIT - 2) + [True]
    assert breaker.reason.startswith("most tasks fail with OSError: connection refused (20 different tasks in a row")


def test_what_fails_again_says_nothing_new() -> None:
    """It neither counts nor ends the row: a tail of broken tasks can end, and a service that is down is still seen."""
    breaker = made()
    for number in range(DEFAULT_LIMIT):
        assert not breaker.open
        for again in range(3):
            failure = Failure(f"again-{number}-{again}", "OSError", "connection refused", again=True)
            if again:
                breaker.went_back(failure)
            else:
                breaker.ended(failure)
        assert not breaker.open
        fail(breaker, f"t-{number}")
    assert breaker.open


def test_one_task_that_fails_again_and_again_does_not_open_it() -> None:
    breaker = made()
    for _ in range(1000):
        fail(breaker, "the same")
    assert not breaker.open


@pytest.mark.parametrize("between", ["success", "snooze"])
def test_one_that_does_as_it_should_begins_the_row_anew(between: str) -> None:
    breaker = made()
    for number in range(DEFAULT_LIMIT - 1):
        fail(breaker, f"t-{number}")
    if between == "success":
        breaker.ended()
    else:
        breaker.went_back(snoozed=True)
    for number in range(DEFAULT_LIMIT - 1):
        fail(breaker, f"u-{number}")
    assert not breaker.open


def test_messages_that_never_ran_say_nothing() -> None:
    breaker = made()
    for number in range(DEFAULT_LIMIT):
        breaker.went_back()
        fail(breaker, f"t-{number}")
    assert breaker.open


def test_bad_input_and_permanent_failures_never_open_it() -> None:
    breaker = made()
    for _ in range(1000):
        breaker.ended()
    assert not breaker.open


@given(st.integers(0, 10**9))
def test_ten_percent_of_failing_tasks_never_open_it(seed: int) -> None:
    """In runs of up to 2,000 tasks; 20 in a row of them have a chance of one in 10^20."""
    rng, breaker = random.Random(seed), made()
    for number in range(2000):
        if rng.random() < 0.1:
            fail(breaker, f"t-{number}")
        else:
            breaker.ended()
    assert not breaker.open


def test_dependency_failures_count_by_themselves() -> None:
    breaker = made()
    for number in range(DEFAULT_LIMIT - 1):
        breaker.went_back(dependency="the bucket is closed")
        fail(breaker, f"t-{number // 2}")
    assert not breaker.open
    breaker.went_back(dependency="the bucket is closed")
    assert breaker.reason == "the bucket is closed"


@given(st.integers(1, 1000), st.integers(0, 10_000))
def test_a_small_share_can_open_it_but_not_by_a_few_tasks(concurrency: int, share: int) -> None:
    dependency, common = limits(concurrency, share)
    assert 1 <= dependency <= max(1, share)
    assert LEAST_COMMON_LIMIT <= common <= max(DEFAULT_LIMIT, 2 * concurrency)
    assert common <= max(LEAST_COMMON_LIMIT, share)
