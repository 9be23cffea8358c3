"""All topics and subscriptions of all projects.

The rule: a confirmed change (a created resource, a published message) is visible to every later call. Locks are taken in the order
model, topic, subscription.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from local_cloud.clock import Clock
from local_cloud.monitoring.gauges import QueueState
from local_cloud.pubsub.messages.delivery import AckIds, Delivery
from local_cloud.pubsub.messages.message import bare, dead_letter
from local_cloud.pubsub.messages.observer import Observer
from local_cloud.pubsub.messages.policy import Policy
from local_cloud.pubsub.messages.publication import Publication
from local_cloud.pubsub.model.names import check, project_id, short
from local_cloud.pubsub.model.refusal import Refusal, already_exists, failed_precondition, not_found
from local_cloud.pubsub.model.snapshot import LEAST_LIFETIME_S, LIFETIME_S, Snapshot
from local_cloud.pubsub.model.subscription import Subscription
from local_cloud.pubsub.model.topic import Topic

DELETED_TOPIC = "_deleted-topic_"

_Resource = TypeVar("_Resource")


class PubSub:
    """Safe to use from any thread. Raises `Refusal` where the real service answers with an error."""

    def __init__(self, clock: Clock, rng: random.Random) -> None:
        self._clock = clock
        self._rng = rng
        self._lock = threading.Lock()
        # Taken before all other locks, from reading settings until the changed ones are written.
        self.changing = threading.Lock()
        self._topics: dict[str, Topic] = {}
        self._subscriptions: dict[str, Subscription] = {}
        self._snapshots: dict[str, Snapshot] = {}
        # Microseconds since 1970 as the first id: 16 digits like real ones, and no repetition after a restart.
        self._next_id = int(clock.now() * 1_000_000)
        self._ids_lock = threading.Lock()
        self._expect: Callable[[float], None] = lambda _due_s: None
        self._observer = Observer()

    def report_to(self, observer: Observer, next_message_id: int) -> None:
        """Report each change to `observer` from now on; message ids go on at `next_message_id`, or higher. Call it before serving."""
        self._observer = observer
        self._next_id = max(next_message_id, self._next_id)
        for name, subscription in self._subscriptions.items():
            subscription.report_to(observer.of_subscription(name))

    def on_due(self, expect: Callable[[float], None]) -> None:
        """Call `expect(unix seconds)` when a lease or a delay begins that ends then; to be called before there are subscriptions."""
        self._expect = expect

    def create_topic(self, name: str, settings: bytes) -> Topic:
        with self._lock:
            if name in self._topics:
                raise already_exists(name)
            self._observer.topic_set(name, settings)
            topic = self._topics[name] = Topic(name, settings)
        return topic

    def topic(self, name: str) -> Topic:
        topic = self._topics.get(name)
        if topic is None:
            raise not_found(check("topics", name))
        return topic

    def configure_topic(self, name: str, settings: bytes) -> None:
        with self._lock:
            topic, now_s = self.topic(name), self._clock.now()
            self._observer.outdated_dropped(now_s)
            self._observer.topic_set(name, settings)
            topic.configure(settings, now_s)

    def topics(self, project: str) -> list[Topic]:
        """The topics of `projects/P`, by name."""
        with self._lock:
            return _of_project(self._topics, project)

    def delete_topic(self, name: str) -> None:
        """Its subscriptions stay, with their messages, under the name that the real service gives to deleted topics."""
        with self._lock:
            topic = self.topic(name)
            self._observer.topic_deleted(name)
            del self._topics[name]
            for subscription in topic.subscriptions():
                subscription.topic = DELETED_TOPIC
                topic.detach(subscription.name)
            for snapshot in topic.snapshots():
                snapshot.topic = DELETED_TOPIC

    def create_subscription(self, name: str, topic_name: str, settings: bytes, policy: Policy) -> Subscription:
        with self._lock:
            if name in self._subscriptions:
                raise already_exists(name)
            self.topic(topic_name)
            self._check_dead_letter_topic(policy)
            self._observer.subscription_set(name, topic_name, settings)
            return self._add_subscription(name, topic_name, settings, policy)

    def restore_subscription(self, name: str, topic_name: str, settings: bytes, policy: Policy) -> Subscription:
        """As an earlier process had it; its topics may have been deleted since it was created."""
        with self._lock:
            return self._add_subscription(name, topic_name, settings, policy)

    def _add_subscription(self, name: str, topic_name: str, settings: bytes, policy: Policy) -> Subscription:
        # A generator of its own: otherwise two threads would share one.
        ack_ids = AckIds(random.Random(self._rng.getrandbits(64)))
        subscription = Subscription(name, topic_name, settings, policy, ack_ids, self._clock)
        subscription.forward_dead_letters = self._forward_dead_letters
        subscription.expect = self._expect
        subscription.report_to(self._observer.of_subscription(name))
        self._subscriptions[name] = subscription
        if topic_name in self._topics and not policy.is_detached:
            self._topics[topic_name].attach(subscription)
        return subscription

    def configure(self, name: str, settings: bytes, policy: Policy) -> None:
        with self._lock:
            subscription = self.subscription(name)
            self._check_dead_letter_topic(policy)
            self._observer.outdated_dropped(self._clock.now())
            self._observer.subscription_set(name, subscription.topic, settings)
            subscription.configure(settings, policy)

    def _check_dead_letter_topic(self, policy: Policy) -> None:
        if policy.max_attempt_count and policy.dead_letter_topic not in self._topics:
            raise not_found(policy.dead_letter_topic)

    def subscription(self, name: str) -> Subscription:
        subscription = self._subscriptions.get(name)
        if subscription is None:
            raise not_found(check("subscriptions", name))
        return subscription

    def subscriptions(self, project: str) -> list[Subscription]:
        """The subscriptions of `projects/P`, by name."""
        with self._lock:
            return _of_project(self._subscriptions, project)

    def delete_subscription(self, name: str) -> None:
        with self._lock:
            subscription = self.subscription(name)
            self._observer.subscription_deleted(name)
            del self._subscriptions[name]
        topic = self._topics.get(subscription.topic)
        if topic is not None:
            topic.detach(name)
        subscription.close()

    def detach(self, name: str, settings: bytes, policy: Policy) -> None:
        """Cut a subscription off from its topic for good; `settings` say so already."""
        with self._lock:
            subscription = self.subscription(name)
            self._observer.subscription_set(name, subscription.topic, settings)
            if subscription.topic in self._topics:
                self._topics[subscription.topic].detach(name)
        subscription.detach(settings, policy)

    def seek_to_time(self, name: str, time_s: float) -> None:
        """Everything published before `time_s` (unix seconds) counts as acknowledged, everything else that is retained does not."""
        subscription = self.subscription(name)
        topic = self._topics.get(subscription.topic)
        retained = [] if topic is None or subscription.policy.is_detached else topic.retained(self._clock.now())
        subscription.seek(lambda message: message.published_s < time_s, retained)

    def seek_to_snapshot(self, name: str, snapshot_name: str) -> None:
        """Exactly the messages of the snapshot count as not acknowledged."""
        subscription, snapshot = self.subscription(name), self.snapshot(snapshot_name)
        # All deleted topics have one name, so nothing says any more whether this one was the subscription's.
        if subscription.topic != snapshot.topic or snapshot.topic == DELETED_TOPIC:
            raise failed_precondition(f"The snapshot is of another or a deleted topic (snapshot={short(snapshot_name)}).")
        messages = snapshot.messages()
        unacknowledged = {message.message_id for message in messages}
        subscription.seek(lambda message: message.message_id not in unacknowledged, messages)

    def create_snapshot(self, name: str, subscription_name: str, labels: dict[str, str]) -> Snapshot:
        """Raises a FAILED_PRECONDITION refusal when the backlog is so old that the snapshot would end within the hour."""
        self._drop_expired_snapshots()
        with self._lock:
            if name in self._snapshots:
                raise already_exists(name)
            subscription = self.subscription(subscription_name)
            topic = self._topics.get(subscription.topic)
            if topic is None:
                raise failed_precondition(f"The topic of the subscription was deleted (resource={short(subscription_name)}).")
            now_s = self._clock.now()
            oldest_s = subscription.counts()[2]
            lifetime_s = LIFETIME_S if oldest_s is None else LIFETIME_S - max(0.0, now_s - oldest_s)
            if lifetime_s < LEAST_LIFETIME_S:
                raise failed_precondition("The backlog is too old: the snapshot would expire in less than 1 hour.")
            snapshot = Snapshot(name, topic.name, now_s + lifetime_s, labels)
            topic.take_snapshot(snapshot, subscription, self._observer)
            self._snapshots[name] = snapshot
        return snapshot

    def label_snapshot(self, name: str, labels: dict[str, str]) -> None:
        with self._lock:
            snapshot = self._snapshots.get(name)
            if snapshot is None:
                raise not_found(name)
            snapshot.labels = labels
            self._observer.snapshot_set(name, snapshot.topic, "", snapshot.shown().SerializeToString())

    def restore_snapshot(self, snapshot: Snapshot) -> None:
        """As an earlier process had it."""
        with self._lock:
            self._snapshots[snapshot.name] = snapshot
            if snapshot.topic in self._topics:
                self._topics[snapshot.topic].restore([], [snapshot])

    def snapshot(self, name: str) -> Snapshot:
        self._drop_expired_snapshots()
        snapshot = self._snapshots.get(name)
        if snapshot is None:
            raise not_found(check("snapshots", name))
        return snapshot

    def snapshots(self, project: str) -> list[Snapshot]:
        """The snapshots of `projects/P`, by name."""
        self._drop_expired_snapshots()
        with self._lock:
            return _of_project(self._snapshots, project)

    def delete_snapshot(self, name: str) -> None:
        self.snapshot(name)
        with self._lock:
            self._drop_snapshot(name)

    def _drop_snapshot(self, name: str) -> None:
        self._observer.snapshot_deleted(name)
        snapshot = self._snapshots.pop(name, None)
        topic = self._topics.get(snapshot.topic) if snapshot is not None else None
        if topic is not None:
            topic.drop_snapshot(name)

    def _drop_expired_snapshots(self) -> None:
        with self._lock:
            now_s = self._clock.now()
            for name in [name for name, snapshot in self._snapshots.items() if snapshot.expires_s <= now_s]:
                self._drop_snapshot(name)

    def publish(self, topic_name: str, raw_messages: Iterable[Any]) -> Publication:
        """Give ids to raw PubsubMessages, at least one, and give them to all subscriptions of the topic."""
        return self.publish_bodies(topic_name, [bare(raw) for raw in raw_messages])

    def publish_bodies(self, topic_name: str, bodies: list[bytes]) -> Publication:
        """The same for messages that were serialized without id and publish time."""
        return self.topic(topic_name).publish(lambda: self._stamped(bodies), self._observer)

    def _stamped(self, bodies: list[bytes]) -> Publication:
        with self._ids_lock:
            first_id = self._next_id
            self._next_id += len(bodies)
        return Publication(bodies, first_id, self._clock.now())

    def _forward_dead_letters(self, subscription: Subscription, dead: list[Delivery]) -> None:
        name, project = short(subscription.name), project_id(subscription.name)
        letters = (dead_letter(delivery.message, delivery.failure_count, name, project) for delivery in dead)
        try:
            self.publish(subscription.policy.dead_letter_topic, letters)
        except Refusal:
            # As in the real service: if the dead-letter topic is gone, the messages stay and are delivered again.
            subscription.put_back(dead)
        else:
            subscription.dead_letters_forwarded(dead)

    def settle(self) -> float | None:
        """End leases, delays and snapshots whose time has come; returns when the next one ends (unix seconds).

        Where the disk is full it skips the subscription: no client waits for this call, and the next one of a client is refused.
        """
        with suppress(Refusal):
            self._drop_expired_snapshots()
        with self._lock:
            subscriptions = list(self._subscriptions.values())
        due: list[float | None] = []
        for subscription in subscriptions:
            with suppress(Refusal):
                due.append(subscription.settle())
        return min((due_s for due_s in due if due_s is not None), default=None)

    def readings(self) -> list[QueueState]:
        """The backlog of every subscription now, by name."""
        self.settle()
        with self._lock:
            subscriptions = sorted(self._subscriptions.items())
        found = []
        for name, subscription in subscriptions:
            undelivered, outstanding, oldest_s = subscription.counts()
            age_s = 0.0 if oldest_s is None else max(0.0, self._clock.now() - oldest_s)
            found.append(QueueState(project_id(name), short(name), undelivered, outstanding, age_s, subscription.acked_count))
        return found


def _of_project(resources: Mapping[str, _Resource], project: str) -> list[_Resource]:
    return [resources[name] for name in sorted(resources) if name.startswith(f"{project}/")]
