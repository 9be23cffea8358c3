"""The lease model alone: time comes in as numbers."""

from __future__ import annotations

import random

import pytest

from local_cloud.pubsub.messages.backlog import Backlog
from local_cloud.pubsub.messages.delivery import AckIds, Delivery
from local_cloud.pubsub.messages.message import Message
from local_cloud.pubsub.messages.policy import Policy

LARGE = 10_000_000


def _backlog(policy: Policy | None = None, count: int = 0, published_s: float = 0.0) -> Backlog:
    backlog = Backlog(policy or Policy(), AckIds(random.Random(1)))
    backlog.offer([Message(str(number), published_s, b"x") for number in range(count)])
    return backlog


def _take(backlog: Backlog, now_s: float, count: int = 1) -> list[Delivery]:
    assert backlog.settle(now_s) == []
    return backlog.take(now_s, count, LARGE)


def _ids(deliveries: list[Delivery]) -> list[str]:
    return [delivery.message.message_id for delivery in deliveries]


def _ack_ids(deliveries: list[Delivery]) -> list[str]:
    return [delivery.ack_id for delivery in deliveries]


def test_a_lease_holds_until_its_deadline_and_not_longer() -> None:
    backlog = _backlog(count=1)
    assert _ids(_take(backlog, 0.0)) == ["0"]
    assert backlog.next_due_s() == 10.0
    assert _take(backlog, 9.999) == []
    assert _ids(_take(backlog, 10.0)) == ["0"]


def test_counts_include_what_is_leased_and_what_is_delayed() -> None:
    backlog = _backlog(Policy(min_backoff_s=10.0, max_backoff_s=600.0), count=3)
    taken = _take(backlog, 0.0, 2)
    assert (backlog.undelivered_count, backlog.outstanding_count) == (3, 2)
    backlog.reject([taken[0].ack_id], 0.0)
    assert (backlog.undelivered_count, backlog.outstanding_count) == (3, 1)
    backlog.acknowledge([taken[1].ack_id])
    assert (backlog.undelivered_count, backlog.outstanding_count) == (2, 0)


def test_an_extended_lease_ends_later_and_a_shortened_one_earlier() -> None:
    backlog = _backlog(count=2)
    first, second = _take(backlog, 0.0, 2)
    backlog.extend([first.ack_id], 60.0)
    backlog.extend([second.ack_id], 5.0)
    assert _ids(_take(backlog, 5.0)) == ["1"]
    assert _take(backlog, 14.0) == []
    assert _ids(_take(backlog, 60.0, 2)) == ["1", "0"]


def test_a_late_acknowledgement_works_until_the_message_is_delivered_again() -> None:
    backlog = _backlog(count=2)
    late, later = _take(backlog, 0.0, 2)
    backlog.settle(11.0)
    assert backlog.acknowledge([late.ack_id]) == []
    stale_id = later.ack_id
    assert _ids(_take(backlog, 11.0, 2)) == ["1"]
    assert backlog.acknowledge([stale_id, "never given"]) == [stale_id, "never given"]
    assert backlog.undelivered_count == 1


def test_a_late_extension_does_not_revive_a_lease() -> None:
    backlog = _backlog(count=1)
    taken = _take(backlog, 0.0)
    backlog.settle(10.0)
    backlog.extend(_ack_ids(taken), 100.0)
    assert _ids(_take(backlog, 10.0)) == ["0"]


def test_one_ack_id_named_twice_counts_once() -> None:
    backlog = _backlog(count=1)
    (taken,) = _take(backlog, 0.0)
    backlog.extend([taken.ack_id] * 2, 20.0)
    backlog.reject([taken.ack_id] * 2, 1.0)
    assert taken.failure_count == 1
    assert (backlog.undelivered_count, backlog.outstanding_count) == (1, 0)


@pytest.mark.parametrize("by_expiry", [True, False])
def test_the_fifth_failure_makes_a_dead_letter(by_expiry: bool) -> None:
    backlog = _backlog(Policy(dead_letter_topic="t", max_attempt_count=5), count=1)
    for attempt in range(4):
        (taken,) = _take(backlog, attempt * 10.0)
        assert taken.failure_count == attempt
        if not by_expiry:
            assert backlog.reject([taken.ack_id], attempt * 10.0) == []
    (taken,) = _take(backlog, 40.0)
    dead = backlog.settle(50.0) if by_expiry else backlog.reject([taken.ack_id], 40.0)
    assert dead == [taken]
    assert (backlog.undelivered_count, backlog.outstanding_count, backlog.next_due_s()) == (0, 0, None)
    assert taken.failure_count == 5


def test_a_dead_letter_that_could_not_be_forwarded_comes_again() -> None:
    backlog = _backlog(Policy(dead_letter_topic="t", max_attempt_count=5), count=1)
    for _ in range(4):
        backlog.reject(_ack_ids(_take(backlog, 0.0)), 0.0)
    dead = backlog.reject(_ack_ids(_take(backlog, 0.0)), 0.0)
    backlog.put_back(dead, 0.0)
    assert backlog.undelivered_count == 1
    assert _take(backlog, 0.0) == dead


def test_backoff_doubles_up_to_its_maximum() -> None:
    policy = Policy(min_backoff_s=10.0, max_backoff_s=60.0)
    assert [policy.backoff_s(count) for count in (1, 2, 3, 4, 2000)] == [10.0, 20.0, 40.0, 60.0, 60.0]
    assert Policy().backoff_s(3) == 0.0


def test_backoff_delays_after_a_nack_and_after_an_expiry() -> None:
    backlog = _backlog(Policy(min_backoff_s=10.0, max_backoff_s=600.0), count=1)
    backlog.reject(_ack_ids(_take(backlog, 0.0)), 0.0)
    assert backlog.next_due_s() == 10.0
    assert _take(backlog, 9.0) == []
    assert len(_take(backlog, 10.0)) == 1
    # The lease ends at 20, and the second failure costs 20 s more.
    assert _take(backlog, 39.0) == []
    assert len(_take(backlog, 40.0)) == 1


def test_what_was_given_back_is_in_front_again_and_was_no_attempt() -> None:
    backlog = _backlog(Policy(dead_letter_topic="t", max_attempt_count=5), count=3)
    backlog.undo_take(_take(backlog, 0.0, 2))
    assert (backlog.undelivered_count, backlog.outstanding_count) == (3, 0)
    taken = _take(backlog, 0.0, 3)
    assert _ids(taken) == ["0", "1", "2"]
    assert [delivery.failure_count for delivery in taken] == [0, 0, 0]


def test_a_take_stops_at_its_bytes_but_gives_at_least_one() -> None:
    backlog = Backlog(Policy(), AckIds(random.Random(1)))
    backlog.offer([Message(str(number), 0.0, b"x" * 1000) for number in range(5)])
    assert len(backlog.take(0.0, 10, 2_500)) == 2
    assert len(backlog.take(0.0, 10, 10)) == 1
    assert len(backlog.take(0.0, 10, LARGE)) == 2


def test_retention_drops_what_is_ready_but_not_what_is_leased() -> None:
    backlog = _backlog(Policy(retention_s=600.0, ack_deadline_s=300.0), count=3)
    (leased,) = _take(backlog, 500.0)
    backlog.settle(601.0)
    assert backlog.undelivered_count == 1
    assert backlog.oldest_published_s() == 0.0
    assert backlog.acknowledge([leased.ack_id]) == []
    assert backlog.undelivered_count == 0


def test_the_oldest_message_is_found_wherever_it_stands() -> None:
    backlog = _backlog(Policy(min_backoff_s=100.0, max_backoff_s=100.0))
    assert backlog.oldest_published_s() is None
    for published_s in (1.0, 2.0, 3.0):
        backlog.offer([Message(str(published_s), published_s, b"x")])
    first = _take(backlog, 3.0)
    assert backlog.oldest_published_s() == 1.0
    backlog.reject(_ack_ids(first), 3.0)
    assert backlog.oldest_published_s() == 1.0
    backlog.acknowledge(_ack_ids(first))
    assert backlog.oldest_published_s() == 2.0


def test_ack_ids_are_long_and_never_the_same() -> None:
    rng = random.Random(1)
    ids = [ack_ids.make() for ack_ids in (AckIds(rng), AckIds(rng)) for _ in range(100)]
    assert len(set(ids)) == 200
    assert {len(ack_id) for ack_id in ids} == {176}


def test_leases_that_come_and_go_leave_nothing_behind() -> None:
    backlog = _backlog(Policy(ack_deadline_s=600.0))
    for number in range(5_000):
        backlog.offer([Message(str(number), 0.0, b"x")])
        backlog.acknowledge(_ack_ids(backlog.take(float(number) / 100, 1, LARGE)))
    leases = backlog._leases
    assert len(leases._deadlines) <= 1_001
    assert (len(leases), leases._buckets, backlog.undelivered_count) == (0, {}, 0)
