"""All topics and subscriptions of all projects.

The rule: what a caller was told is there (a created resource, a published message) is there for every later call. Lock
order: model, topic, subscription, never the other way round.
"""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from local_cloud.clock import Clock
from local_cloud.pubsub.delivery import AckIds, Delivery
from local_cloud.pubsub.message import Message, dead_letter, stamp
from local_cloud.pubsub.names import project_id, short
from local_cloud.pubsub.policy import Policy
from local_cloud.pubsub.refusal import already_exists, not_found
from local_cloud.pubsub.subscription import Subscription
from local_cloud.pubsub.topic import Topic

DELETED_TOPIC = "_deleted-topic_"


@dataclass(frozen=True)
class BacklogReading:
    """What one subscription holds at one moment. Messages that are leased count as undelivered."""

    project: str
    subscription: str
    undelivered_count: int
    outstanding_count: int
    oldest_age_s: float


class PubSub:
    """Safe to use from any thread. Raises `Refusal` for whatever the real service refuses."""

    def __init__(self, clock: Clock, chance: random.Random) -> None:
        self._clock = clock
        self._chance = chance
        self._lock = threading.Lock()
        self._topics: dict[str, Topic] = {}
        self._subscriptions: dict[str, Subscription] = {}
        # Microseconds since 1970 as the first id: 16 digits like real ones, and no repetition after a restart.
        self._message_ids = itertools.count(int(clock.now() * 1_000_000))
        self._expect: Callable[[float], None] = lambda _due_s: None

    def on_due(self, expect: Callable[[float], None]) -> None:
        """Call `expect(unix seconds)` whenever a lease or a delay begins that ends then; to be set before there are subscriptions."""
        self._expect = expect

    def create_topic(self, name: str, settings: bytes) -> Topic:
        with self._lock:
            if name in self._topics:
                raise already_exists(name)
            topic = self._topics[name] = Topic(name, settings)
        return topic

    def topic(self, name: str) -> Topic:
        topic = self._topics.get(name)
        if topic is None:
            raise not_found(name)
        return topic

    def topics(self, project: str) -> list[Topic]:
        """The topics of `projects/P`, by name."""
        with self._lock:
            return [self._topics[name] for name in sorted(self._topics) if name.startswith(f"{project}/")]

    def delete_topic(self, name: str) -> None:
        """Its subscriptions stay, with what they hold, under the name that the real service gives to deleted topics."""
        with self._lock:
            topic = self._topics.pop(name, None)
        if topic is None:
            raise not_found(name)
        for subscription in topic.subscriptions():
            subscription.topic = DELETED_TOPIC
            topic.detach(subscription.name)

    def create_subscription(self, name: str, topic_name: str, settings: bytes, policy: Policy) -> Subscription:
        with self._lock:
            if name in self._subscriptions:
                raise already_exists(name)
            topic = self.topic(topic_name)
            self._check_dead_letter_topic(policy)
            # Of each subscription's own seed: otherwise two threads would share one generator.
            ack_ids = AckIds(random.Random(self._chance.getrandbits(64)))
            subscription = Subscription(name, topic_name, settings, policy, ack_ids, self._clock)
            subscription.bury = self._bury
            subscription.expect = self._expect
            self._subscriptions[name] = subscription
            topic.attach(subscription)
        return subscription

    def configure(self, name: str, settings: bytes, policy: Policy) -> None:
        subscription = self.subscription(name)
        self._check_dead_letter_topic(policy)
        subscription.configure(settings, policy)

    def _check_dead_letter_topic(self, policy: Policy) -> None:
        if policy.max_attempt_count and policy.dead_letter_topic not in self._topics:
            raise not_found(policy.dead_letter_topic)

    def subscription(self, name: str) -> Subscription:
        subscription = self._subscriptions.get(name)
        if subscription is None:
            raise not_found(name)
        return subscription

    def subscriptions(self, project: str) -> list[Subscription]:
        """The subscriptions of `projects/P`, by name."""
        with self._lock:
            return [self._subscriptions[name] for name in sorted(self._subscriptions) if name.startswith(f"{project}/")]

    def delete_subscription(self, name: str) -> None:
        with self._lock:
            subscription = self._subscriptions.pop(name, None)
        if subscription is None:
            raise not_found(name)
        topic = self._topics.get(subscription.topic)
        if topic is not None:
            topic.detach(name)
        subscription.close()

    def publish(self, topic_name: str, raw_messages: Iterable[Any]) -> list[Message]:
        """Stamp raw PubsubMessages and give them to all subscriptions of the topic."""
        topic = self.topic(topic_name)
        messages = stamp(raw_messages, self._message_ids, self._clock.now())
        topic.fan_out(messages)
        return messages

    def _bury(self, subscription: Subscription, dead: list[Delivery]) -> None:
        topic = self._topics.get(subscription.policy.dead_letter_topic)
        if topic is None:
            # Like the real service: without a dead-letter topic the messages stay where they are and come again.
            subscription.put_back(dead)
            return
        name, project = short(subscription.name), project_id(subscription.name)
        letters = (dead_letter(delivery.message, delivery.failure_count, name, project) for delivery in dead)
        self.publish(topic.name, letters)

    def settle(self) -> float | None:
        """Apply what time has brought to every subscription; returns when there will be something to do next."""
        with self._lock:
            subscriptions = list(self._subscriptions.values())
        due = [subscription.settle() for subscription in subscriptions]
        return min((due_s for due_s in due if due_s is not None), default=None)

    def readings(self) -> list[BacklogReading]:
        """What every subscription holds now, by name."""
        self.settle()
        with self._lock:
            subscriptions = sorted(self._subscriptions.items())
        found = []
        for name, subscription in subscriptions:
            undelivered, outstanding, oldest_s = subscription.counts()
            age_s = 0.0 if oldest_s is None else max(0.0, self._clock.now() - oldest_s)
            found.append(BacklogReading(project_id(name), short(name), undelivered, outstanding, age_s))
        return found
