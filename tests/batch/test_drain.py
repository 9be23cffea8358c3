"""Drained is proven by several empty pulls, one after the other, over a least time, while nothing is held."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from batch.drain import MAX_WAIT_S, DrainProof


def looked(proof: DrainProof, *pulls: tuple[float, float], idle_since_s: float | None = 0.0) -> None:
    """Empty pulls that began and ended at these times."""
    for began_s, ended_s in pulls:
        proof.saw_empty(began_s, ended_s, idle_since_s)


def test_three_empty_pulls_over_the_least_time() -> None:
    proof = DrainProof(least_s=5.0)
    for began_s, ended_s in ((100.0, 101.0), (101.0, 103.0)):
        looked(proof, (began_s, ended_s))
        assert not proof.proven
    looked(proof, (103.0, 104.9))
    assert not proof.proven, "three, but in less than 5 s"
    looked(proof, (104.9, 105.0))
    assert proof.proven


def test_time_that_nobody_looked_at_proves_nothing() -> None:
    proof = DrainProof(least_s=5.0)
    looked(proof, (100.0, 100.1), (100.1, 100.2), (100.2, 100.3))
    assert not proof.proven, "however late it is now"


def test_pulls_that_are_open_at_the_same_time_are_one_look() -> None:
    proof = DrainProof(least_s=1.0)
    looked(proof, (100.0, 101.2), (100.0, 101.2), (100.0, 101.2), (100.1, 101.3))
    assert not proof.proven
    looked(proof, (101.3, 101.9), (101.9, 102.8))
    assert proof.proven


def test_of_a_long_pull_the_time_counts_that_none_before_it_covered() -> None:
    proof = DrainProof(least_s=5.0)
    proof.saw_messages(102.0)
    looked(proof, (100.0, 105.0))  # watched 3 s after the last message: as good as the first pull that would be asked for
    looked(proof, (105.0, 107.5), (107.5, 110.0))
    assert proof.proven


def test_a_message_in_between_starts_it_anew() -> None:
    proof = DrainProof(least_s=1.0)
    looked(proof, (0.0, 1.0), (1.0, 2.0), (2.0, 3.0))
    assert proof.proven
    proof.saw_messages(3.0)
    assert not proof.proven


def test_an_empty_pull_while_something_is_held_proves_nothing() -> None:
    proof = DrainProof(least_s=1.0)
    looked(proof, (0.0, 1.0), (1.0, 2.0), (2.0, 3.0), idle_since_s=None)
    assert not proof.proven


def test_time_counts_from_when_nothing_was_held() -> None:
    proof = DrainProof(least_s=5.0)
    looked(proof, (100.0, 105.0), (105.0, 107.5), (107.5, 109.0), idle_since_s=103.0)
    assert proof.proven
    proof = DrainProof(least_s=5.0)
    looked(proof, (100.0, 105.0), (105.0, 107.5), (107.5, 109.0), idle_since_s=104.5)
    assert not proof.proven, "it looked half a second, not five"


def test_a_worker_that_was_promised_messages_asks_until_its_minute_is_over() -> None:
    proof = DrainProof(least_s=1.0, not_before_s=55.0)
    looked(proof, (1.0, 6.0), (6.0, 11.0), (11.0, 16.0), (50.0, 54.9))
    assert not proof.proven
    assert proof.next_wait_s(54.5) == 0.5, "no longer than the minute"
    looked(proof, (54.9, 55.0))
    assert proof.proven


@given(st.integers(0, 50), st.floats(0, 60))
def test_waits_grow_and_stay_short_enough_to_be_collected_at_a_stop(empty_count: int, least_s: float) -> None:
    proof = DrainProof(least_s=least_s)
    assert 0 < proof.next_wait_s(0.0) <= MAX_WAIT_S
    waits = []
    for number in range(empty_count):
        looked(proof, (float(number), float(number)))
        waits.append(proof.next_wait_s(float(number)))
    assert waits == sorted(waits)
    assert all(0 < wait_s <= MAX_WAIT_S for wait_s in waits)
