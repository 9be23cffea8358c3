"""When a task type is slowed, which of its tasks are tried, how long the others wait, and what ends it."""

from __future__ import annotations

import random
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.worker.admission.slowing import (
    DEFAULT_LIMIT,
    FIRST_DELAY_S,
    LEAST_LIMIT,
    MAX_CHARS,
    Slowed,
    Slowing,
    fingerprint,
    from_json,
    limit_of,
    to_json,
)


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


def fail(
    slowing: Slowing, task_id: str, reason: str = "connection refused", *, again: bool = False, task_type: str = "load"
) -> Slowed | None:
    return slowing.failed(task_type, task_id, "a", "OSError", reason, 0.0, again=again)


def made() -> Slowing:
    return Slowing(limit_of(8, 1000))


def slowed() -> Slowing:
    slowing = made()
    for number in range(DEFAULT_LIMIT):
        fail(slowing, f"t-{number}")
    assert list(slowing.slowed) == ["load"]
    return slowing


numbers = count(1000)


def wait_s(slowing: Slowing, now_s: float = 0.0, *, task_id: str = "", client: str = "a", task_type: str = "load") -> float:
    """Of another task each time, unless it is named."""
    return slowing.wait_s(task_type, task_id or f"t-{next(numbers)}", client, now_s)


def test_a_type_is_slowed_when_so_many_different_tasks_in_a_row_fail_alike() -> None:
    slowing = made()
    told = [fail(slowing, f"t-{number}", f"connection {number} refused") for number in range(DEFAULT_LIMIT - 1)]
    told += [fail(slowing, f"u-{number}", "another") for number in range(DEFAULT_LIMIT)]
    assert told[:-1] == [None] * (2 * DEFAULT_LIMIT - 2)
    assert told[-1] is not None
    assert told[-1].error == "OSError: another"
    assert told[-1].task_count == DEFAULT_LIMIT


def test_fewer_are_enough_that_had_failed_before() -> None:
    slowing = made()
    told = [fail(slowing, f"t-{number}", again=True) for number in range(LEAST_LIMIT)]
    assert told[:-1] == [None] * (LEAST_LIMIT - 1)
    assert told[-1] is not None


def test_one_task_that_fails_again_and_again_slows_nothing() -> None:
    slowing = made()
    for _ in range(1000):
        fail(slowing, "the same", again=True)
    assert not slowing.slowed


def test_one_that_comes_through_begins_the_row_anew_and_other_types_do_not() -> None:
    slowing = made()
    for _ in range(3):
        for number in range(DEFAULT_LIMIT - 1):
            fail(slowing, f"t-{number}")
            slowing.came_through("other")
        assert slowing.came_through("load") is None
    assert not slowing.slowed
    assert not slowing.failing


@given(st.integers(0, 10**9))
def test_ten_percent_of_failing_tasks_never_slow_a_type(seed: int) -> None:
    """In runs of up to 2,000 tasks; 20 in a row of them have a chance of one in 10^20."""
    rng, slowing = random.Random(seed), made()
    for number in range(2000):
        if rng.random() < 0.1:
            fail(slowing, f"t-{number}")
        else:
            slowing.came_through("load")
    assert not slowing.slowed


def test_other_types_never_notice() -> None:
    slowing = slowed()
    assert [wait_s(slowing, task_type="other") for _ in range(100)] == [0.0] * 100


@given(st.integers(1, 100_000))
def test_among_many_few_are_tried_and_a_good_block_beside_them_is_found(bad_count: int) -> None:
    slowing = slowed()
    tried = sum(wait_s(slowing) == 0.0 for _ in range(bad_count))
    assert 1 <= tried <= 50
    good_count = bad_count // 2 + 2
    assert any(wait_s(slowing) == 0.0 for _ in range(good_count))


def test_the_first_task_of_another_client_is_tried_at_once() -> None:
    slowing = slowed()
    for _ in range(1000):
        wait_s(slowing, client="a")
    assert wait_s(slowing, client="b") == 0.0
    assert wait_s(slowing, client="b") > 0.0
    tried = sum(wait_s(slowing, client=f"c-{number}") == 0.0 for number in range(1000))
    assert tried < 2 * DEFAULT_LIMIT


def test_the_delay_grows_one_is_tried_at_each_step_and_more_when_it_is_at_its_longest() -> None:
    slowing = slowed()
    for _ in range(2000):
        wait_s(slowing)
    assert wait_s(slowing) == FIRST_DELAY_S
    now_s, delays, tried = 0.0, [], []
    for _ in range(10):
        now_s = slowing.slowed["load"].next_s
        tried.append(sum(wait_s(slowing, now_s) == 0.0 for _ in range(100)))
        delays.append(wait_s(slowing, now_s))
    assert delays == [20.0, 40.0, 80.0, 160.0, 320.0, 600.0, 600.0, 600.0, 600.0, 600.0]
    assert tried == [1, 1, 1, 1, 1, 1, 2, 4, 8, 16], "a broken handler's tasks come to their end"


def test_all_of_the_type_come_back_when_the_next_is_tried() -> None:
    slowing = slowed()
    for _ in range(2000):
        wait_s(slowing, 7.0)
    assert wait_s(slowing, 7.0) == FIRST_DELAY_S - 7.0
    assert wait_s(slowing, 9.9) == 1.0


def test_each_try_is_another_tasks_and_one_that_failed_is_tried_when_no_other_comes() -> None:
    slowing = slowed()
    assert wait_s(slowing, task_id="t-1") == 2 * FIRST_DELAY_S
    state = slowing.slowed["load"]
    assert wait_s(slowing, state.next_s, task_id="t-1") > 0.0
    assert wait_s(slowing, state.next_s, task_id="new") == 0.0
    assert wait_s(slowing, state.next_s, task_id="new") > 0.0
    assert wait_s(slowing, state.next_s + state.delay_s, task_id="t-1") == 0.0


def test_what_is_kept_for_the_next_worker_is_read_again_and_other_bytes_are_refused() -> None:
    slowing = slowed()
    for _ in range(100):
        wait_s(slowing)
    state = slowing.slowed["load"]
    assert from_json(to_json(state)) == state
    for data in (b"", b"[]", b"{}", b"null", b'{"error": 1}', b"\xff"):
        with pytest.raises(ValueError):  # noqa: PT011 - whichever way it is damaged
            from_json(data)
    later = made()
    later.recall("load", from_json(to_json(state)))
    assert wait_s(later) > 0.0
    assert later.came_through("load") is not None
    assert wait_s(later) == 0.0


def test_what_fails_while_its_type_is_slowed_waits_as_long_as_the_others() -> None:
    slowing = slowed()
    assert slowing.least_wait_s("load", "another", 0.0) == FIRST_DELAY_S
    assert slowing.least_wait_s("load", "t-1", 0.0) == 2 * FIRST_DELAY_S
    assert slowing.least_wait_s("other", "another", 0.0) == 0.0


def test_a_different_failure_does_not_end_it_but_any_other_end_does() -> None:
    slowing = slowed()
    fail(slowing, "t-100", "another")
    assert slowing.slowed
    ended = slowing.came_through("load")
    assert ended is not None
    assert ended.error == "OSError: connection refused"
    assert not slowing.slowed
    assert not slowing.failing


@given(st.integers(1, 1000), st.integers(0, 10_000))
def test_a_small_share_can_slow_a_type_but_not_by_a_few_tasks(concurrency: int, share: int) -> None:
    assert LEAST_LIMIT <= limit_of(concurrency, share) <= max(DEFAULT_LIMIT, 2 * concurrency)
    assert limit_of(concurrency, share) <= max(LEAST_LIMIT, share)
