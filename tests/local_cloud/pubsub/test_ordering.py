"""Ordering keys in the lease model: whatever callers and time do, a key comes in its order, and one key never holds up another."""

from __future__ import annotations

import random

import pytest
from google.pubsub_v1.types import pubsub
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from local_cloud.pubsub.messages.backlog import Backlog
from local_cloud.pubsub.messages.delivery import AckIds, Delivery
from local_cloud.pubsub.messages.message import Message
from local_cloud.pubsub.messages.policy import Policy

LARGE = 10_000_000


def _message(number: int, key: str, published_s: float = 0.0) -> Message:
    return Message(str(number), published_s, pubsub.PubsubMessage.pb()(data=b"x", ordering_key=key).SerializeToString())


def _backlog(keys: str, policy: Policy | None = None) -> Backlog:
    """One message for each character of `keys`, which is its key; a dash stands for none."""
    backlog = Backlog(policy or Policy(is_ordered=True), AckIds(random.Random(1)))
    backlog.offer([_message(number, key.strip("-")) for number, key in enumerate(keys)])
    return backlog


def _take(backlog: Backlog, now_s: float = 0.0, count: int = 100) -> list[Delivery]:
    assert backlog.settle(now_s) == []
    return backlog.take(now_s, count, LARGE)


def _ids(deliveries: list[Delivery]) -> str:
    return " ".join(delivery.message.message_id for delivery in deliveries)


def _ack(backlog: Backlog, *deliveries: Delivery) -> None:
    assert backlog.acknowledge([delivery.ack_id for delivery in deliveries]) == []


def test_a_run_of_a_key_is_handed_out_together_and_the_next_one_waits_for_it() -> None:
    backlog = _backlog("aabb-")
    assert _ids(_take(backlog, count=3)) == "0 1 2"
    backlog.offer([_message(5, "a"), _message(6, "c")])
    assert _ids(_take(backlog)) == "4 6"


def test_when_a_run_is_acknowledged_the_next_one_comes() -> None:
    backlog = _backlog("aaab")
    first, second = _take(backlog, count=2)
    _ack(backlog, first)
    assert _ids(_take(backlog)) == "3"
    _ack(backlog, second)
    assert _ids(_take(backlog)) == "2"


def test_a_nack_brings_back_all_later_ones_of_its_key_in_order_acknowledged_ones_too() -> None:
    backlog = _backlog("aaaab")
    taken = _take(backlog, count=4)
    stale_id = taken[3].ack_id
    _ack(backlog, taken[0], taken[2])
    assert backlog.undelivered_count == 4
    backlog.reject([taken[1].ack_id], 0.0)
    again = _take(backlog)
    assert _ids(again) == "4 1 2 3"
    assert [delivery.failure_count for delivery in again] == [0, 1, 0, 0]
    # The lease of the last one ended with that of the second.
    assert backlog.acknowledge([stale_id]) == [stale_id]
    assert backlog.undelivered_count == 4


def test_an_expiry_in_the_middle_waits_for_those_before_it() -> None:
    backlog = _backlog("aaa")
    first, second, third = _take(backlog)
    backlog.extend([first.ack_id, third.ack_id], 100.0)
    backlog.settle(10.0)
    assert backlog.outstanding_count == 1
    assert _take(backlog, 10.0) == []
    _ack(backlog, first)
    assert _ids(_take(backlog, 10.0)) == "1 2"
    assert (second.failure_count, third.failure_count) == (1, 0)


def test_a_whole_run_that_expired_comes_again_in_order_and_may_still_be_acknowledged_late() -> None:
    backlog = _backlog("aaa")
    taken = _take(backlog)
    backlog.settle(10.0)
    _ack(backlog, taken[1])
    assert backlog.undelivered_count == 3, "out of its order a late acknowledgement has no effect"
    _ack(backlog, taken[0])
    assert backlog.undelivered_count == 2
    assert _ids(_take(backlog, 10.0)) == "1 2"


def test_backoff_delays_the_key_and_no_other() -> None:
    backlog = _backlog("aab", Policy(is_ordered=True, min_backoff_s=10.0, max_backoff_s=600.0))
    taken = _take(backlog, count=2)
    backlog.reject([taken[0].ack_id], 0.0)
    assert _ids(_take(backlog, 9.0)) == "2"
    assert _ids(_take(backlog, 10.0)) == "0 1"


def test_backoff_is_kept_while_the_message_waits_for_those_before_it() -> None:
    backlog = _backlog("aa", Policy(is_ordered=True, min_backoff_s=10.0, max_backoff_s=600.0))
    first, second = _take(backlog)
    backlog.reject([second.ack_id], 0.0)
    _ack(backlog, first)
    assert _take(backlog, 9.0) == []
    assert _ids(_take(backlog, 10.0)) == "1"


def test_a_backoff_that_was_served_delays_nothing_after_it() -> None:
    backlog = _backlog("aa", Policy(is_ordered=True, min_backoff_s=10.0, max_backoff_s=600.0))
    (first,) = _take(backlog, count=1)
    backlog.reject([first.ack_id], 0.0)
    (again,) = _take(backlog, 10.0, count=1)
    _ack(backlog, again)
    assert backlog.has_ready, "a waiting pull has to be woken now"


def test_a_dead_letter_leaves_its_key_and_the_others_go_on() -> None:
    backlog = _backlog("aa", Policy(is_ordered=True, dead_letter_topic="t", max_attempt_count=1))
    first, second = _take(backlog)
    assert backlog.reject([first.ack_id], 0.0) == [first]
    assert _take(backlog) == [second]
    assert backlog.undelivered_count == 1


def test_what_was_given_back_stands_in_front_of_its_key() -> None:
    backlog = _backlog("aaa")
    backlog.undo_take(_take(backlog, count=2))
    assert (backlog.undelivered_count, backlog.outstanding_count) == (3, 0)
    assert _ids(_take(backlog)) == "0 1 2"


def test_a_key_stops_at_the_bytes_of_a_take() -> None:
    backlog = _backlog("-aaa")
    assert len(backlog.take(0.0, 10, 10)) == 1
    assert len(backlog.take(0.0, 10, 450)) == 2


def test_retention_drops_from_the_front_of_a_key() -> None:
    backlog = Backlog(Policy(is_ordered=True, retention_s=600.0), AckIds(random.Random(1)))
    backlog.offer([_message(0, "a", 0.0), _message(1, "a", 500.0)])
    assert _ids(_take(backlog, 700.0)) == "1"
    assert backlog.undelivered_count == 1


@pytest.mark.parametrize("policy", [Policy(), Policy(is_ordered=True, is_exactly_once=True)], ids=["unordered", "exactly once"])
def test_without_ordering_or_with_exactly_once_an_acknowledgement_counts_at_once(policy: Policy) -> None:
    backlog = _backlog("aaa", policy)
    taken = _take(backlog)
    _ack(backlog, taken[2])
    backlog.reject([taken[0].ack_id], 0.0)
    assert backlog.undelivered_count == 2
    _ack(backlog, *(delivery for delivery in taken[:2] if delivery.state))
    seen = _ids(_take(backlog))
    assert seen == ("0" if not policy.is_ordered else "0 1")


class OrderedMachine(RuleBasedStateMachine):
    """Keeps the order of each key and which of it is finished: what was acknowledged with everything before it."""

    def __init__(self) -> None:
        super().__init__()
        self.backlog = Backlog(Policy(is_ordered=True, min_backoff_s=3.0, max_backoff_s=10.0), AckIds(random.Random(1)))
        self.now_s = 0.0
        self.published = 0
        self.lines: dict[str, list[str]] = {}
        self.out: dict[str, dict[str, Delivery]] = {}

    @rule(keys=st.text("abc", min_size=1, max_size=6))
    def publish(self, keys: str) -> None:
        self.backlog.offer([_message(self.published + number, key, self.now_s) for number, key in enumerate(keys)])
        for number, key in enumerate(keys):
            self.lines.setdefault(key, []).append(str(self.published + number))
        self.published += len(keys)

    @rule(count=st.integers(1, 6))
    def take(self, count: int) -> None:
        self._settle()
        runs: dict[str, list[Delivery]] = {}
        for delivery in self.backlog.take(self.now_s, count, LARGE):
            runs.setdefault(delivery.message.opened().ordering_key, []).append(delivery)
        for key, run in runs.items():
            assert not self.out.get(key), "a second run of a key that is out"
            assert [delivery.message.message_id for delivery in run] == self.lines[key][: len(run)], "out of order, or a gap"
            self.out[key] = {delivery.message.message_id: delivery for delivery in run}

    @rule(key=st.sampled_from("abc"), position=st.integers(0, 5))
    def acknowledge(self, key: str, position: int) -> None:
        delivery = self._chosen(key, position)
        if delivery is None:
            return
        self.backlog.acknowledge([delivery.ack_id])
        run, line = self.out[key], self.lines[key]
        while line and line[0] in run and run[line[0]].state not in (0, 1):
            del run[line.pop(0)]

    @rule(key=st.sampled_from("abc"), position=st.integers(0, 5))
    def reject(self, key: str, position: int) -> None:
        delivery = self._chosen(key, position)
        if delivery is not None:
            self.backlog.reject([delivery.ack_id], self.now_s)
            self._called_back()

    @rule(seconds=st.sampled_from([1.0, 4.0, 11.0]))
    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds
        self._settle()

    def _settle(self) -> None:
        assert self.backlog.settle(self.now_s) == []
        self._called_back()

    def _called_back(self) -> None:
        for run in self.out.values():
            for message_id in [message_id for message_id, delivery in run.items() if delivery.state == 0]:
                del run[message_id]

    def _chosen(self, key: str, position: int) -> Delivery | None:
        run = list(self.out.get(key, {}).values())
        return run[position % len(run)] if run and run[position % len(run)].state == 1 else None

    @invariant()
    def nothing_is_lost(self) -> None:
        assert self.backlog.undelivered_count == sum(len(line) for line in self.lines.values())

    def teardown(self) -> None:
        """Whoever goes on long enough gets every key to its end, in order."""
        for _ in range(100):
            self.now_s += 31.0
            self.backlog.settle(self.now_s)
            taken = self.backlog.take(self.now_s, 100, LARGE)
            for delivery in taken:
                assert self.lines[delivery.message.opened().ordering_key].pop(0) == delivery.message.message_id
            self.backlog.acknowledge([delivery.ack_id for delivery in taken])
            if not self.backlog.undelivered_count:
                break
        assert not any(self.lines.values())
        assert not self.backlog._ordered


OrderedMachine.TestCase.settings = settings(
    max_examples=80, stateful_step_count=40, deadline=None, database=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
TestOrdered = OrderedMachine.TestCase
