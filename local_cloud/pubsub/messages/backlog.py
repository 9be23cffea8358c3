"""The messages of one subscription without an acknowledgement (ready, delayed or leased), and those that it retains for a seek.

The rule: a message leaves only by acknowledgement, retention, seek or as a dead letter, and is never leased twice at the
same time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from itertools import chain

from local_cloud.pubsub.messages.delivery import DONE, LEASED, WAITING, AckIds, Delivery, count_in, is_past, size_of
from local_cloud.pubsub.messages.flow_control import FlowControl
from local_cloud.pubsub.messages.leases import Leases
from local_cloud.pubsub.messages.message import Message
from local_cloud.pubsub.messages.observer import SubscriptionObserver
from local_cloud.pubsub.messages.ordered_key import OrderedKey
from local_cloud.pubsub.messages.policy import Policy
from local_cloud.pubsub.messages.publication import Publication
from local_cloud.pubsub.messages.ready_queue import DelayedQueue, ReadyQueue, fresh, oldest_fresh_s
from local_cloud.pubsub.messages.seek import in_order, seek_result


class Backlog:
    """Not thread-safe: its subscription calls it under a lock. All times are unix seconds."""

    def __init__(self, policy: Policy, ack_ids: AckIds) -> None:
        self.policy = policy
        self.observer = SubscriptionObserver()
        # The topic's retention, which counts where it is longer than the policy's; in seconds.
        self.topic_retention_s = 0.0
        self._oldest_s = 0.0
        self._ack_ids = ack_ids
        self._ready = ReadyQueue()
        self._fresh_count = 0
        self._delayed = DelayedQueue()
        self._leases = Leases()
        # Every delivery that is not done, by its newest ack id; older ones are forgotten, so they have no effect.
        self._by_ack_id: dict[str, Delivery] = {}
        # Attempts of an earlier process, by message id, until the message's next delivery.
        self._earlier_failures: dict[str, int] = {}
        # Only with message ordering: messages that have an ordering key stand here, and not in `_ready`.
        self._ordered: dict[str, OrderedKey] = {}
        # What was acknowledged and may come back by a seek, in the order of acknowledgement.
        self._retained: deque[Message] = deque()

    @property
    def undelivered_count(self) -> int:
        """Messages without an acknowledgement, leased ones included: what `num_undelivered_messages` means."""
        return self._fresh_count + len(self._by_ack_id)

    @property
    def outstanding_count(self) -> int:
        return len(self._leases)

    @property
    def has_ready(self) -> bool:
        """False if a take would find nothing; it may be True although all that is ready is too old."""
        return bool(self._ready)

    def _horizon_s(self, now_s: float) -> float:
        """Messages published before this time are not delivered any more; it never goes back."""
        return max(self._oldest_s, now_s - max(self.policy.retention_s, self.topic_retention_s))

    def drop_outdated(self, now_s: float) -> None:
        """Messages that are too old now never come back, even if the retention becomes longer afterwards."""
        self._oldest_s = self._horizon_s(now_s)

    def oldest_published_s(self) -> float | None:
        """Publish time of the oldest message without an acknowledgement. It looks at every delivery, so it is not for the hot path."""
        times = [delivery.message.published_s for delivery in self._by_ack_id.values()]
        # Messages that were never delivered stand in the order of publishing: the first of each queue is its oldest.
        for queue in self._queues():
            times += oldest_fresh_s(queue)
        return min(times, default=None)

    def next_due_s(self) -> float | None:
        """When the next lease or delay ends, so that `settle` has something to do."""
        times_s = (self._leases.next_deadline_s(), self._delayed.next_s())
        return min((time_s for time_s in times_s if time_s is not None), default=None)

    def publish(self, publication: Publication) -> None:
        """Add newly published messages behind everything that is ready."""
        if self.policy.is_ordered:
            self.offer(publication.messages())
        else:
            self._fresh_count += publication.count
            self._ready.append(publication)

    def offer(self, messages: list[Message]) -> None:
        """The same for messages one by one."""
        self._fresh_count += len(messages)
        if not self.policy.is_ordered:
            self._ready.extend(messages)
            return
        for message in messages:
            key = message.opened().ordering_key
            if key:
                ordered = self._ordered.setdefault(key, OrderedKey(key))
                ordered.pending.append(message)
                self._enqueue(ordered, 0.0)
            else:
                self._ready.append(message)

    def restore(self, messages: list[Message], retained: list[Message], failure_counts: Mapping[str, int]) -> None:
        """Add the messages of an earlier process, in its order; attempts by message id."""
        self._retained.extend(retained)
        self._earlier_failures.update(failure_counts)
        self.offer(messages)

    def take(
        self, now_s: float, max_count: int, max_bytes: int, *, deadline_s: float | None = None, flow: FlowControl | None = None
    ) -> list[Delivery]:
        """Lease up to `max_count` ready messages, and at least one if there is any, as long as they stay below `max_bytes`.

        Leases end at `deadline_s`, or when the policy says. `flow` counts them until they end.
        """
        horizon_s = self._horizon_s(now_s)
        ready = self._ready
        taken: list[Delivery] = []
        size = 0
        while ready and len(taken) < max_count:
            item = ready[0]
            if isinstance(item, Publication):
                item = ready.front()
            if isinstance(item, OrderedKey):
                part = self._take_of_key(item, horizon_s, max_count - len(taken), max_bytes - size, is_first=not taken)
                if not part and item.pending:
                    break
                ready.popleft()
                item.is_queued = False
                self._drop_if_empty(item)
                taken += part
                size += sum(map(size_of, part))
                continue
            if is_past(item, horizon_s):
                self._forget(ready.popleft())
                continue
            size += size_of(item)
            if size > max_bytes and taken:
                break
            ready.popleft()
            taken.append(self._identified(item))
        if taken:
            self._leases.add(taken, now_s + self.policy.ack_deadline_s if deadline_s is None else deadline_s)
            count_in(taken, flow)
        return taken

    def _take_of_key(self, ordered: OrderedKey, horizon_s: float, max_count: int, max_bytes: int, *, is_first: bool) -> list[Delivery]:
        pending = ordered.pending
        taken: list[Delivery] = []
        size = 0
        while pending and len(taken) < max_count:
            item = pending[0]
            if is_past(item, horizon_s):
                self._forget(pending.popleft())
                continue
            size += size_of(item)
            if size > max_bytes and (taken or not is_first):
                break
            pending.popleft()
            delivery = self._identified(item)
            delivery.ordering_key = ordered.key
            taken.append(delivery)
        if taken:
            ordered.outstanding.extend(taken)
            ordered.available_s = 0.0
        return taken

    def _forget(self, item: object) -> None:
        """Count out an item that is past and was taken out of a queue."""
        if isinstance(item, Message):
            self._fresh_count -= 1
        elif isinstance(item, Delivery) and item.state == WAITING:
            del self._by_ack_id[item.ack_id]
            item.state = DONE

    def _identified(self, item: Message | Delivery) -> Delivery:
        if isinstance(item, Delivery):
            del self._by_ack_id[item.ack_id]
            delivery = item
        else:
            self._fresh_count -= 1
            delivery = Delivery(item)
            if self._earlier_failures:
                delivery.failure_count = self._earlier_failures.pop(item.message_id, 0)
        delivery.ack_id = self._ack_ids.make()
        self._by_ack_id[delivery.ack_id] = delivery
        return delivery

    def _end_lease(self, delivery: Delivery) -> None:
        self._leases.release(delivery)
        if delivery.flow is not None:
            delivery.flow.end(delivery.message)

    def undo_take(self, deliveries: list[Delivery]) -> None:
        """Make the messages of a take whose receiver is gone ready again, in front; no attempt is counted."""
        leased = [delivery for delivery in deliveries if delivery.state == LEASED]
        for delivery in reversed(leased):
            self._end_lease(delivery)
            delivery.state = WAITING
            if not delivery.ordering_key:
                self._ready.appendleft(delivery)
        for ordered in self._ordered_of(leased):
            self._recall(ordered, set(leased))
            self._enqueue(ordered, 0.0)

    def _ordered_of(self, deliveries: list[Delivery]) -> list[OrderedKey]:
        """The ordering keys of deliveries, each once."""
        return [self._ordered[key] for key in dict.fromkeys(delivery.ordering_key for delivery in deliveries) if key]

    def acknowledge(self, ack_ids: Iterable[str]) -> list[str]:
        """Remove messages; returns the ids without effect (stale or never given). An expired lease may still be acknowledged."""
        without_effect = []
        done: list[Message] = []
        for ack_id in ack_ids:
            delivery = self._by_ack_id.get(ack_id)
            if delivery is None:
                without_effect.append(ack_id)
                continue
            if delivery.ordering_key:
                done += self._acknowledge_in_order(delivery, self._ordered[delivery.ordering_key])
                continue
            if delivery.state == LEASED:
                self._end_lease(delivery)
            done.append(self._finish(delivery))
        if done:
            self.observer.acknowledged(done)
            if self.policy.retains_acked:
                self._retained.extend(done)
        return without_effect

    def _finish(self, delivery: Delivery) -> Message:
        del self._by_ack_id[delivery.ack_id]
        delivery.state = DONE
        return delivery.message

    def _acknowledge_in_order(self, delivery: Delivery, ordered: OrderedKey) -> list[Message]:
        finished: list[Delivery] = []
        if delivery.state == LEASED:
            self._end_lease(delivery)
            finished = ordered.acknowledge(delivery, at_once=self.policy.is_exactly_once)
        elif delivery.state == WAITING and ordered.acknowledge_waiting(delivery):
            finished = [delivery]
        self._enqueue(ordered, 0.0)
        return [self._finish(one) for one in finished]

    def invalid(self, ack_ids: Sequence[str]) -> list[str]:
        """The ids that name no lease, which exactly-once delivery refuses. Call it after `settle`."""
        leased = {delivery.ack_id for delivery in self._leased(ack_ids)}
        return [ack_id for ack_id in ack_ids if ack_id not in leased]

    def _leased(self, ack_ids: Iterable[str]) -> list[Delivery]:
        found = map(self._by_ack_id.get, ack_ids)
        return list(dict.fromkeys(delivery for delivery in found if delivery is not None and delivery.state == LEASED))

    def extend(self, ack_ids: Iterable[str], deadline_s: float) -> None:
        """Give leases a new deadline, later or earlier; ids that are not leased have no effect."""
        deliveries = self._leased(ack_ids)
        for delivery in deliveries:
            self._leases.release(delivery)
        if deliveries:
            self._leases.add(deliveries, deadline_s)

    def reject(self, ack_ids: Iterable[str], now_s: float) -> list[Delivery]:
        """End leases without success (nack); returns those whose attempts are used up, which are no longer part of the backlog."""
        deliveries = self._leased(ack_ids)
        for delivery in deliveries:
            self._end_lease(delivery)
            delivery.deadline_s = now_s
        return self._failed(deliveries, now_s)

    def settle(self, now_s: float) -> list[Delivery]:
        """End leases and delays whose time has come, and drop messages that are too old. Returns what `reject` returns."""
        dead: list[Delivery] = []
        expired = self._leases.expire(now_s)
        if expired:
            for delivery in expired:
                if delivery.flow is not None:
                    delivery.flow.end(delivery.message)
            dead = self._failed(expired, now_s)
        self._ready.extend(self._delayed.ended(now_s))
        self._discard_outdated(now_s)
        return dead

    def _failed(self, deliveries: list[Delivery], now_s: float) -> list[Delivery]:
        """Count an attempt of deliveries whose leases have just ended, each at its `deadline_s`; returns those that are used up."""
        dead = []
        for delivery in deliveries:
            delivery.state = WAITING
            delivery.failure_count += 1
            if self.policy.gives_up(delivery.failure_count):
                self._finish(delivery)
                dead.append(delivery)
            elif not delivery.ordering_key:
                self._wait(delivery, delivery.deadline_s + self.policy.backoff_s(delivery.failure_count), now_s)
        for ordered in self._ordered_of(deliveries):
            self._recall(ordered, set(deliveries))
            front = ordered.pending[0] if ordered.pending else None
            if isinstance(front, Delivery) and front.failure_count:
                ordered.available_s = front.deadline_s + self.policy.backoff_s(front.failure_count)
            self._enqueue(ordered, now_s)
        if deliveries and self.policy.max_attempt_count:
            self.observer.failed(deliveries)
        return dead

    def _recall(self, ordered: OrderedKey, failed: Set[Delivery]) -> None:
        """Every outstanding message of the key from the first of `failed` on has to be delivered again: their leases end too."""
        for delivery in ordered.recall(failed):
            if delivery.state == LEASED:
                self._end_lease(delivery)
            delivery.state = WAITING

    def _enqueue(self, ordered: OrderedKey, now_s: float) -> None:
        """Let the key wait for a receiver, unless some of its messages are outstanding, or it has none."""
        if ordered.is_queued or ordered.outstanding:
            return
        if not ordered.pending:
            self._drop_if_empty(ordered)
            return
        ordered.is_queued = True
        self._wait(ordered, ordered.available_s, now_s)

    def _drop_if_empty(self, ordered: OrderedKey) -> None:
        if not ordered.outstanding and not ordered.pending and not ordered.is_queued:
            self._ordered.pop(ordered.key, None)

    def _wait(self, item: Delivery | OrderedKey, available_s: float, now_s: float) -> None:
        if available_s <= now_s:
            self._ready.append(item)
        else:
            self._delayed.add(item, available_s)

    def put_back(self, dead: list[Delivery], now_s: float) -> None:
        """Take dead letters back that could not be forwarded: they are delivered again."""
        for delivery in dead:
            self._by_ack_id[delivery.ack_id] = delivery
            delivery.state = WAITING
            # It has lost its order, if it had one: messages behind it may be outstanding already.
            delivery.ordering_key = ""
            self._wait(delivery, now_s + self.policy.backoff_s(delivery.failure_count), now_s)

    def _discard_outdated(self, now_s: float) -> None:
        horizon_s = self._horizon_s(now_s)
        while self._ready:
            item = self._ready.front()
            if isinstance(item, OrderedKey):
                while item.pending and is_past(item.pending[0], horizon_s):
                    self._forget(item.pending.popleft())
                if item.pending:
                    break
                item.is_queued = False
                self._ready.popleft()
                self._drop_if_empty(item)
            elif is_past(item, horizon_s):
                self._forget(self._ready.popleft())
            else:
                break
        while self._retained and self._retained[0].published_s < horizon_s:
            self._retained.popleft()

    def unacknowledged(self) -> list[Message]:
        """All of them, leased ones included, in the order of publishing."""
        leased = [delivery.message for delivery in self._by_ack_id.values()]
        return in_order(chain(leased, *map(fresh, self._queues())))

    def _queues(self) -> list[Iterable[object]]:
        return [self._ready, *(ordered.pending for ordered in self._ordered.values())]

    def seek(self, is_acknowledged: Callable[[Message], bool], others: Iterable[Message], now_s: float) -> None:
        """Decide anew which messages count as acknowledged: of all here and of `others`, which may come back. Leases and delays end."""
        self._discard_outdated(now_s)
        horizon_s = self._horizon_s(now_s)
        kept = [message for message in (*others, *self._retained) if message.published_s >= horizon_s]
        result = seek_result(self.unacknowledged(), kept, is_acknowledged)
        self.observer.acknowledged(result.purged)
        self.observer.returned(result.returned)
        self._clear()
        self._retained = deque(result.acknowledged if self.policy.retains_acked else ())
        self.observer.retained(self._retained)
        self.offer(result.unacknowledged)

    def _clear(self) -> None:
        for delivery in self._leased(list(self._by_ack_id)):
            self._end_lease(delivery)
        for delivery in self._by_ack_id.values():
            delivery.state = DONE
        self._ready.clear()
        self._delayed.clear()
        self._ordered.clear()
        self._by_ack_id.clear()
        self._fresh_count = 0
