"""Drained is proven by several empty pulls, one after the other, over a least time, while nothing is held."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from batch.services.drain import MAX_WAIT_S, DrainProof


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
    assert not proof.proven, "it looked four and a half seconds, not five"


def test_a_worker_that_was_promised_messages_asks_until_its_minute_is_over() -> None:
    proof = DrainProof(least_s=1.0, not_before_s=55.0)
    looked(proof, (1.0, 6.0), (6.0, 11.0), (11.0, 16.0), (50.0, 54.9))
    assert not proof.proven
    assert 0 < proof.next_wait_s(54.5) <= 0.5, "no longer than the minute"
    looked(proof, (54.9, 55.0))
    assert proof.proven


def test_the_time_of_a_pull_that_was_open_before_counts_and_the_pull_does_not() -> None:
    proof = DrainProof(least_s=3.0)
    looked(proof, (98.0, 100.4), (100.4, 101.5), (101.5, 103.0), idle_since_s=100.0)
    assert not proof.proven, "three seconds, but two pulls"
    looked(proof, (103.0, 103.1))
    assert proof.proven


def test_time_that_failed_pulls_took_counts_while_it_is_the_smaller_half() -> None:
    for failed_s, expected in ((2.4, True), (2.6, False)):
        proof = DrainProof(least_s=5.0)
        looked(proof, (100.0, 101.0))
        proof.saw_failure()
        looked(proof, (101.0 + failed_s, 104.0), (104.0, 105.0))
        assert proof.proven is expected
    looked(proof, (105.0, 107.0), (107.0, 108.6))
    assert proof.proven, "five seconds since it began anew"


def test_what_another_pull_saw_while_one_failed_is_not_lost() -> None:
    proof = DrainProof(least_s=5.0)
    looked(proof, (100.0, 101.0))
    proof.saw_failure()
    looked(proof, (100.5, 104.0), (104.0, 105.0))
    assert proof.proven


@given(st.floats(0.3, 60), st.floats(0, 5), st.sampled_from([0.0, 50.0]))
def test_pulls_that_wait_their_time_prove_it_at_the_earliest_moment(least_s: float, held_s: float, not_before_s: float) -> None:
    """Also when the first one began while something was held: at most half a pull later than it could be."""
    proof = DrainProof(least_s=least_s, not_before_s=not_before_s)
    now_s, idle_since_s = 0.0, held_s
    for _ in range(100):
        began_s = now_s
        now_s += proof.next_wait_s(now_s)
        looked(proof, (began_s, now_s), idle_since_s=idle_since_s if now_s >= idle_since_s else None)
        if proof.proven:
            break
    assert proof.proven
    assert now_s <= max(held_s + least_s * 7 / 6, not_before_s) + 0.06


@given(st.integers(0, 50), st.floats(0, 60), st.sampled_from([0.0, 1000.0]))
def test_waits_stay_short_enough_to_be_collected_at_a_stop(empty_count: int, least_s: float, not_before_s: float) -> None:
    proof = DrainProof(least_s=least_s, not_before_s=not_before_s)
    assert 0 < proof.next_wait_s(0.0) <= MAX_WAIT_S
    for number in range(empty_count):
        looked(proof, (float(number), float(number)))
        assert 0 < proof.next_wait_s(float(number)) <= MAX_WAIT_S
