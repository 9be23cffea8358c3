"""Topics and subscriptions in memory, living by a clock: leases, redelivery, delivery attempts, dead letters, duplicates.

It passes the same conformance suite as the real client. A message is never lost: it is leased, or it will be
delivered again.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from batch.model.clock import Clock, iso
from batch.model.delivery import MAX_EXTENSION_S, MAX_PULL_MESSAGES, Delivery, Outgoing
from batch.services.ports import SubscriptionInfo
from batch.testing.clock import ManualClock
from batch.testing.faults import Faults


@dataclass(slots=True)
class Waiting:
    """One unacknowledged message of one subscription. `free_s` is when it may be delivered next; `ack_id` names its last lease."""

    sequence: int
    message_id: str
    data: bytes
    attributes: Mapping[str, str]
    published_s: float
    free_s: float
    delivery_count: int = 0
    leased: bool = False
    ack_id: str = ""


class MemoryBroker:
    """All topics and subscriptions of a project. A topic exists from its first use."""

    def __init__(self, clock: Clock | None = None, *, project: str = "memory") -> None:
        self.clock: Clock = clock or ManualClock()
        self.project = project
        self.lock = threading.RLock()
        self._topics: dict[str, MemoryTopic] = {}
        self._subscriptions: dict[str, MemorySubscription] = {}
        self._message_count = 0

    def topic(self, name: str) -> MemoryTopic:
        with self.lock:
            if name not in self._topics:
                self._topics[name] = MemoryTopic(self, name)
            return self._topics[name]

    def subscription(
        self,
        name: str,
        topic: str,
        ack_deadline_s: float = 60.0,
        max_delivery_attempts: int | None = None,
        dead_letter_topic: str = "dead-letters",
    ) -> MemorySubscription:
        """Create a subscription. With `max_delivery_attempts` deliveries are counted, and the message is forwarded to
        `dead_letter_topic` when it would be delivered once more. Raises ValueError when the name is taken."""
        with self.lock:
            if name in self._subscriptions:
                raise ValueError(f"subscription {name} exists already")
            made = MemorySubscription(self, name, topic, ack_deadline_s, max_delivery_attempts, dead_letter_topic)
            self._subscriptions[name] = made
            self.topic(topic).subscriptions.append(made)
            return made

    def settle(self) -> None:
        """Forward what has used up its deliveries, in all subscriptions."""
        with self.lock:
            for one in [one for topic in self._topics.values() for one in topic.subscriptions]:
                one.forward_spent()

    def next_message_id(self) -> str:
        with self.lock:
            self._message_count += 1
            return str(self._message_count)


class MemoryTopic(Faults):
    """Implements `batch.services.ports.Topic`; safe from any thread. `published` keeps everything that ever came."""

    def __init__(self, broker: MemoryBroker, name: str) -> None:
        super().__init__()
        self.name = name
        self.subscriptions: list[MemorySubscription] = []
        self.published: list[tuple[str, Outgoing]] = []
        self._broker = broker

    def publish(self, messages: Sequence[Outgoing]) -> list[str]:
        with self._fault("publish"), self._broker.lock:
            return [self._publish(one) for one in messages]

    def _publish(self, message: Outgoing) -> str:
        message_id = self._broker.next_message_id()
        kept = Outgoing(bytes(message.data), dict(message.attributes))
        self.published.append((message_id, kept))
        for subscription in self.subscriptions:
            subscription.add(message_id, kept, self._broker.clock.now())
        return message_id


class MemorySubscription(Faults):
    """Implements `batch.services.ports.Subscription`; safe from any thread.

    An ack id that was overtaken by a redelivery is accepted without effect, one that was never given out is returned as bad:
    both as the service does.
    """

    def __init__(
        self,
        broker: MemoryBroker,
        name: str,
        topic: str,
        ack_deadline_s: float,
        max_delivery_attempts: int | None,
        dead_letter_topic: str,
    ) -> None:
        super().__init__()
        self.name = name
        self.topic = topic
        self.is_ordered = False
        """What the subscription says; the order of messages is the same."""
        self.ack_deadline_s = ack_deadline_s
        self.max_delivery_attempts = max_delivery_attempts
        self.dead_letter_topic = dead_letter_topic
        self.most_per_pull = MAX_PULL_MESSAGES
        """Lower it to see what a service does that returns ten messages of ten thousand."""
        self._broker = broker
        self._clock = broker.clock
        self._arrived = threading.Event()
        self._waiting: dict[int, Waiting] = {}
        self._due: list[tuple[float, int]] = []  # may name messages that are gone or due later: the truth stands in _waiting
        self._leases: dict[str, int] = {}
        self._sequence = 0
        self._ack_id_count = 0
        self._twins = 0

    @property
    def info(self) -> SubscriptionInfo:
        return SubscriptionInfo(self.ack_deadline_s, self.topic, self.max_delivery_attempts or 0, self.is_ordered)

    @property
    def backlog(self) -> int:
        """What `num_undelivered_messages` counts: everything not acknowledged, leased and deferred messages too."""
        with self._broker.lock:
            return len(self._waiting)

    @property
    def leased(self) -> int:
        """Messages under a lease that has not expired."""
        with self._broker.lock:
            now = self._clock.now()
            return sum(one.leased and one.free_s > now for one in self._waiting.values())

    @property
    def free(self) -> int:
        """Messages that a pull would bring now."""
        with self._broker.lock:
            now = self._clock.now()
            return sum(one.free_s <= now for one in self._waiting.values())

    @property
    def next_free_s(self) -> float | None:
        """When the next message may be delivered (Unix seconds; it may be past); None without any."""
        with self._broker.lock:
            return min((one.free_s for one in self._waiting.values()), default=None)

    def waiting(self) -> list[Waiting]:
        """Everything that is not acknowledged, in the order in which it came."""
        with self._broker.lock:
            return list(self._waiting.values())

    def duplicate_next(self, count: int = 1) -> None:
        """Deliver the next `count` messages a second time, each under an ack id of its own."""
        with self._broker.lock:
            self._twins += count

    def add(self, message_id: str, message: Outgoing, published_s: float) -> None:
        """For the topic: a message has arrived."""
        with self._broker.lock:
            self._sequence += 1
            free_s = self._clock.now()
            self._waiting[self._sequence] = Waiting(self._sequence, message_id, message.data, message.attributes, published_s, free_s)
            heapq.heappush(self._due, (free_s, self._sequence))
            self._arrived.set()

    def pull(self, max_messages: int, timeout_s: float) -> list[Delivery]:
        if max_messages < 1:
            raise ValueError(f"max_messages must be 1 or more, got {max_messages}")
        with self._fault("pull"):
            until_s = self._clock.monotonic() + timeout_s
            while True:
                with self._broker.lock:
                    self._broker.settle()
                    deliveries = self._take(min(max_messages, self.most_per_pull))
                    next_s = self._due[0][0] - self._clock.now() if self._due else timeout_s
                    if not deliveries:
                        self._arrived.clear()
                left_s = until_s - self._clock.monotonic()
                if deliveries or left_s <= 0:
                    return deliveries
                self._clock.wait(self._arrived, min(left_s, max(0.0, next_s)))

    def ack(self, ack_ids: Sequence[str]) -> list[str]:
        with self._fault("ack"), self._broker.lock:
            for one in self._holders(ack_ids):
                del self._waiting[one.sequence]
            return self._unknown(ack_ids)

    def extend(self, ack_ids: Sequence[str], deadline_s: float) -> list[str]:
        with self._fault("extend"):
            return self._modify(ack_ids, min(MAX_EXTENSION_S, max(1.0, deadline_s)), leased=True)

    def nack(self, ack_ids: Sequence[str], after_s: float = 0.0) -> list[str]:
        if not 0 <= after_s <= MAX_EXTENSION_S:
            raise ValueError(f"a nack can delay a message by 0 to {MAX_EXTENSION_S} s, got {after_s}")
        with self._fault("nack"):
            return self._modify(ack_ids, after_s, leased=after_s > 0)

    def forward_spent(self) -> None:
        """For the broker, which holds its lock: dead-letter what is free and has had all its deliveries."""
        limit = self.max_delivery_attempts
        if limit is None:
            return
        now = self._clock.now()
        for one in [waiting for waiting in self._waiting.values() if waiting.delivery_count >= limit and waiting.free_s <= now]:
            del self._waiting[one.sequence]
            why = {
                "CloudPubSubDeadLetterSourceDeliveryCount": str(one.delivery_count),
                "CloudPubSubDeadLetterSourceSubscription": self.name,
                "CloudPubSubDeadLetterSourceSubscriptionProject": self._broker.project,
                "CloudPubSubDeadLetterSourceTopicPublishTime": iso(one.published_s),
            }
            self._broker.topic(self.dead_letter_topic).publish([Outgoing(one.data, {**one.attributes, **why})])

    def _take(self, max_messages: int) -> list[Delivery]:
        now = self._clock.now()
        taken: list[Delivery] = []
        while self._due and self._due[0][0] <= now and len(taken) < max_messages:
            free_s, sequence = heapq.heappop(self._due)
            one = self._waiting.get(sequence)
            if one is not None and one.free_s == free_s:
                taken.append(self._deliver(one, now))
        while self._due and not self._is_true(*self._due[0]):
            heapq.heappop(self._due)
        return taken

    def _is_true(self, free_s: float, sequence: int) -> bool:
        one = self._waiting.get(sequence)
        return one is not None and one.free_s == free_s

    def _deliver(self, one: Waiting, now: float) -> Delivery:
        if self._twins:
            self._twins -= 1
            self.add(one.message_id, Outgoing(one.data, one.attributes), one.published_s)
        one.delivery_count += 1
        self._ack_id_count += 1
        one.ack_id = f"{self.name}:{self._ack_id_count}"
        self._leases[one.ack_id] = one.sequence
        self._due_at(one, now + self.ack_deadline_s, leased=True)
        counted = 0 if self.max_delivery_attempts is None else one.delivery_count
        return Delivery(one.ack_id, one.message_id, one.data, one.attributes, one.published_s, counted)

    def _modify(self, ack_ids: Sequence[str], seconds: float, *, leased: bool) -> list[str]:
        with self._broker.lock:
            for one in self._holders(ack_ids):
                self._due_at(one, self._clock.now() + seconds, leased=leased)
            self._arrived.set()
            return self._unknown(ack_ids)

    def _due_at(self, one: Waiting, free_s: float, *, leased: bool) -> None:
        one.free_s, one.leased = free_s, leased
        heapq.heappush(self._due, (free_s, one.sequence))

    def _holders(self, ack_ids: Sequence[str]) -> list[Waiting]:
        """The messages whose last lease these ids are, each once; an overtaken id has none."""
        found = {ack_id: self._waiting.get(self._leases.get(ack_id, 0)) for ack_id in ack_ids}
        return [one for ack_id, one in found.items() if one is not None and one.ack_id == ack_id]

    def _unknown(self, ack_ids: Sequence[str]) -> list[str]:
        return [ack_id for ack_id in ack_ids if ack_id not in self._leases]
