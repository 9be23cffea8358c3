"""The thread that watches the time: it is told what becomes due, and it wakes who waits for it."""

from __future__ import annotations

import queue
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from google.pubsub_v1.types import pubsub

from local_cloud.pubsub.messages.policy import Policy
from local_cloud.pubsub.model.deadline_thread import DeadlineThread
from local_cloud.pubsub.model.pubsub import PubSub
from local_cloud.pubsub.model.refusal import Refusal
from local_cloud.pubsub.model.subscription import Subscription
from tests.local_cloud.manual_clock import ManualClock

TOPIC = "projects/p/topics/tasks"


class PlanClock(ManualClock):
    """Tells until when the deadline thread is about to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.plans: queue.Queue[float | None] = queue.Queue()

    def wait_until(self, condition: threading.Condition, until: float | None) -> None:
        self.plans.put(until)
        super().wait_until(condition, until)


class Patient:
    """A caller who stays for as long as the tests could run."""

    def is_connected(self) -> bool:
        return True

    def wait_limit_s(self) -> float:
        return 60.0

    def on_disconnect(self, wake: Callable[[], None]) -> None:
        return None


@pytest.fixture
def clock() -> PlanClock:
    return PlanClock()


@pytest.fixture
def model(clock: PlanClock) -> Iterator[PubSub]:
    """With a running deadline thread and one topic."""
    model = PubSub(clock, random.Random(1))
    deadlines = DeadlineThread(model, clock)
    model.create_topic(TOPIC, b"")
    deadlines.start()
    assert clock.plans.get(timeout=60) is None
    yield model
    deadlines.stop()


def _leased(model: PubSub, policy: Policy) -> Subscription:
    subscription = model.create_subscription("projects/p/subscriptions/worker", TOPIC, b"", policy)
    model.publish(TOPIC, [pubsub.PubsubMessage.pb()(data=b"task")])
    assert len(subscription.pull(1, Patient(), wait=False)) == 1
    return subscription


def test_a_lease_that_ends_earlier_changes_the_plan(model: PubSub, clock: PlanClock) -> None:
    _leased(model, Policy(ack_deadline_s=30.0))
    assert clock.plans.get(timeout=60) == clock.now() + 30.0


def test_a_delay_changes_the_plan(model: PubSub, clock: PlanClock) -> None:
    policy = Policy(ack_deadline_s=30.0, min_backoff_s=20.0, max_backoff_s=20.0)
    subscription = model.create_subscription("projects/p/subscriptions/worker", TOPIC, b"", policy)
    model.publish(TOPIC, [pubsub.PubsubMessage.pb()(data=b"task")])
    (delivery,) = subscription.pull(1, Patient(), wait=False)
    assert clock.plans.get(timeout=60) == clock.now() + 30.0
    subscription.modify([delivery.ack_id], 0)
    assert clock.plans.get(timeout=60) == clock.now() + 20.0


def test_when_the_lease_ends_the_waiting_pull_gets_the_message(
    model: PubSub, clock: PlanClock, aside: Callable[[Callable[[], Any]], Callable[[], Any]]
) -> None:
    subscription = _leased(model, Policy(ack_deadline_s=30.0))
    assert clock.plans.get(timeout=60) == clock.now() + 30.0
    result = aside(lambda: subscription.pull(1, Patient(), wait=True))
    while subscription.waiting_count != 1:
        threading.Event().wait(0.002)
    clock.advance(30.0)
    assert [delivery.failure_count for delivery in result()] == [1]


def test_a_dead_letter_moves_on_although_nobody_asks(model: PubSub, clock: PlanClock) -> None:
    model.create_topic(f"{TOPIC}-dead", b"")
    graveyard = model.create_subscription("projects/p/subscriptions/graveyard", f"{TOPIC}-dead", b"", Policy())
    _leased(model, Policy(ack_deadline_s=30.0, dead_letter_topic=f"{TOPIC}-dead", max_attempt_count=1))
    assert clock.plans.get(timeout=60) == clock.now() + 30.0
    clock.advance(30.0)
    assert clock.plans.get(timeout=60) is None
    assert graveyard.counts()[0] == 1


def test_a_dead_letter_that_cannot_be_forwarded_stays_and_the_keeper_goes_on(
    model: PubSub, clock: PlanClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.create_topic(f"{TOPIC}-dead", b"")
    subscription = _leased(model, Policy(ack_deadline_s=30.0, dead_letter_topic=f"{TOPIC}-dead", max_attempt_count=1))
    assert clock.plans.get(timeout=60) == clock.now() + 30.0

    def deleted_meanwhile(name: str, *_rest: Any) -> Any:
        raise Refusal("NOT_FOUND", name)

    monkeypatch.setattr(model, "publish", deleted_meanwhile)
    clock.advance(30.0)
    assert clock.plans.get(timeout=60) is None
    assert len(subscription.pull(1, Patient(), wait=False)) == 1


def test_a_full_disk_does_not_end_the_keeper(model: PubSub, clock: PlanClock, monkeypatch: pytest.MonkeyPatch) -> None:
    subscription = _leased(model, Policy(ack_deadline_s=30.0))
    assert clock.plans.get(timeout=60) == clock.now() + 30.0
    real = subscription.settle

    def disk_is_full() -> float | None:
        monkeypatch.setattr(subscription, "settle", real)
        raise Refusal("UNAVAILABLE", "no room")

    monkeypatch.setattr(subscription, "settle", disk_is_full)
    clock.advance(1.0)
    assert clock.plans.get(timeout=60) is None
    clock.advance(1.0)
    assert clock.plans.get(timeout=60) == clock.now() + 28.0
