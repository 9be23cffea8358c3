"""Whatever callers and time do to a backlog: no message is lost, none is leased twice at the same time."""

from __future__ import annotations

import random

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from local_cloud.pubsub.messages.backlog import Backlog
from local_cloud.pubsub.messages.delivery import AckIds, Delivery
from local_cloud.pubsub.messages.policy import Policy
from local_cloud.pubsub.messages.publication import Publication


class BacklogMachine(RuleBasedStateMachine):
    """Keeps, beside the backlog, what a caller may believe: who holds which message until when."""

    given = Bundle("given")

    def __init__(self) -> None:
        super().__init__()
        policy = Policy(dead_letter_topic="t", max_attempt_count=5, min_backoff_s=5.0, max_backoff_s=20.0)
        self.backlog = Backlog(policy, AckIds(random.Random(1)))
        self.now_s = 0.0
        self.published = 0
        self.finished: set[str] = set()
        self.leased_until: dict[str, float] = {}
        self.newest_ack_id: dict[str, str] = {}
        self.failures: dict[str, int] = {}

    @rule(count=st.integers(1, 5))
    def publish(self, count: int) -> None:
        self.backlog.publish(Publication([b"x"] * count, self.published, self.now_s))
        self.published += count

    @rule(target=given, count=st.integers(1, 5))
    def take(self, count: int) -> object:
        self._settled()
        taken = self.backlog.take(self.now_s, count, 10_000)
        for delivery in taken:
            message_id = delivery.message.message_id
            assert message_id not in self.leased_until, "leased twice at the same time"
            assert message_id not in self.finished, "delivered after its end"
            assert delivery.failure_count == self.failures.get(message_id, 0)
            self.leased_until[message_id] = self.now_s + 10.0
            self.newest_ack_id[message_id] = delivery.ack_id
        return multiple(*[(delivery.message.message_id, delivery.ack_id) for delivery in taken])

    @rule(lease=given)
    def acknowledge(self, lease: tuple[str, str]) -> None:
        message_id, ack_id = lease
        effective = self.newest_ack_id[message_id] == ack_id and message_id not in self.finished
        assert (self.backlog.acknowledge([ack_id]) == []) == effective
        if effective:
            self.finished.add(message_id)
            self.leased_until.pop(message_id, None)

    @rule(lease=given, seconds=st.integers(1, 30))
    def extend(self, lease: tuple[str, str], seconds: int) -> None:
        self._settled()
        message_id, ack_id = lease
        self.backlog.extend([ack_id], self.now_s + seconds)
        if self.newest_ack_id[message_id] == ack_id and message_id in self.leased_until:
            self.leased_until[message_id] = self.now_s + seconds

    @rule(lease=consumes(given))
    def reject(self, lease: tuple[str, str]) -> None:
        self._settled()
        message_id, ack_id = lease
        held = self.newest_ack_id[message_id] == ack_id and message_id in self.leased_until
        dead = self.backlog.reject([ack_id], self.now_s)
        if held:
            del self.leased_until[message_id]
            self._failed(message_id)
        self._buried(dead)

    @rule(seconds=st.sampled_from([0.5, 3.0, 10.0, 45.0]))
    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds
        self._settled()

    def _settled(self) -> None:
        dead = self.backlog.settle(self.now_s)
        for message_id in [found for found, until_s in self.leased_until.items() if until_s <= self.now_s]:
            del self.leased_until[message_id]
            self._failed(message_id)
        self._buried(dead)

    def _failed(self, message_id: str) -> None:
        self.failures[message_id] = self.failures.get(message_id, 0) + 1

    def _buried(self, dead: list[Delivery]) -> None:
        for delivery in dead:
            message_id = delivery.message.message_id
            assert self.failures[message_id] == 5
            self.finished.add(message_id)

    @invariant()
    def nothing_is_lost(self) -> None:
        assert self.backlog.undelivered_count == self.published - len(self.finished)
        assert self.backlog.outstanding_count == len(self.leased_until)

    def teardown(self) -> None:
        """Whoever goes on long enough gets every message that has not ended."""
        seen: set[str] = set()
        for _ in range(200):
            self.now_s += 31.0
            seen |= {delivery.message.message_id for delivery in self.backlog.settle(self.now_s)}
            taken = self.backlog.take(self.now_s, 100, 1_000_000)
            seen |= {delivery.message.message_id for delivery in taken}
            self.backlog.acknowledge([delivery.ack_id for delivery in taken])
            if not self.backlog.undelivered_count:
                break
        assert seen == {str(number) for number in range(self.published)} - self.finished


BacklogMachine.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
TestBacklog = BacklogMachine.TestCase
