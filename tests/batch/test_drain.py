"""Drained is proven by several empty pulls in a row, over a least time, while nothing is held."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from batch.drain import MAX_WAIT_S, DrainProof


def test_three_empty_pulls_over_the_least_time() -> None:
    proof = DrainProof(least_s=5.0)
    for began_s in (100.0, 101.0, 103.0):
        assert not proof.proven(began_s)
        proof.saw_empty(began_s, 0)
    assert not proof.proven(104.9)
    assert proof.proven(105.0)


def test_a_message_in_between_starts_it_anew() -> None:
    proof = DrainProof(least_s=1.0)
    for began_s in (0.0, 1.0, 2.0):
        proof.saw_empty(began_s, 0)
    proof.saw_messages()
    assert not proof.proven(100.0)


def test_an_empty_pull_while_something_is_held_proves_nothing() -> None:
    proof = DrainProof(least_s=1.0)
    for began_s in (0.0, 1.0, 2.0):
        proof.saw_empty(began_s, 1)
    assert not proof.proven(100.0)


def test_a_worker_that_was_promised_messages_asks_until_its_minute_is_over() -> None:
    proof = DrainProof(least_s=1.0, not_before_s=55.0)
    for began_s in (0.0, 1.0, 2.0):
        proof.saw_empty(began_s, 0)
    assert not proof.proven(54.9)
    assert proof.proven(55.0)


@given(st.integers(0, 50), st.floats(0, 60))
def test_waits_grow_and_stay_short_enough_to_be_collected_at_a_stop(empty_count: int, least_s: float) -> None:
    proof = DrainProof(least_s=least_s)
    waits = [proof.next_wait_s]
    for number in range(empty_count):
        proof.saw_empty(float(number), 0)
        waits.append(proof.next_wait_s)
    assert waits == sorted(waits)
    assert 0 < waits[0] <= waits[-1] <= MAX_WAIT_S
