"""The messages of one subscription that nobody has acknowledged yet: ready, delayed or leased.

The rule: a message leaves only by acknowledgement, retention or as a dead letter, and is never leased twice at the same
time. Pure state: times come in as arguments; no lock, no clock, no wire.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable

from local_cloud.pubsub.delivery import DONE, LEASED, WAITING, AckIds, Delivery
from local_cloud.pubsub.leases import Leases
from local_cloud.pubsub.message import Message
from local_cloud.pubsub.policy import Policy

# Ack id, lengths and tags around a message in a pull response.
_FRAME_BYTES = 200


class Backlog:
    """Not thread-safe; the subscription that owns it holds a lock around every call. All times are unix seconds."""

    def __init__(self, policy: Policy, ack_ids: AckIds) -> None:
        self.policy = policy
        self._ack_ids = ack_ids
        # Messages that were never delivered stand here bare: most of a large backlog costs no object beyond the message.
        self._ready: deque[Message | Delivery] = deque()
        self._fresh_count = 0
        self._delayed: list[tuple[float, int, Delivery]] = []
        self._delayed_number = 0
        self._leases = Leases()
        # Every delivery that is not done, under its newest ack id; older ids are unknown by then, hence without effect.
        self._by_ack_id: dict[str, Delivery] = {}

    @property
    def undelivered_count(self) -> int:
        """Messages without an acknowledgement, leased ones included: what `num_undelivered_messages` means."""
        return self._fresh_count + len(self._by_ack_id)

    @property
    def outstanding_count(self) -> int:
        return len(self._leases)

    @property
    def has_ready(self) -> bool:
        """False only if a take at this moment would surely find nothing."""
        return bool(self._ready)

    def oldest_published_s(self) -> float | None:
        """Publish time of the oldest message without an acknowledgement; looks at every delivery, so not for the hot path."""
        times = [delivery.message.published_s for delivery in self._by_ack_id.values()]
        fresh = next((item for item in self._ready if isinstance(item, Message)), None)
        if fresh is not None:
            times.append(fresh.published_s)
        return min(times, default=None)

    def next_due_s(self) -> float | None:
        """When `settle` has something to do next: a lease ends or a delay is over."""
        deadline_s = self._leases.next_deadline_s()
        if self._delayed and (deadline_s is None or self._delayed[0][0] < deadline_s):
            return self._delayed[0][0]
        return deadline_s

    def offer(self, messages: list[Message]) -> None:
        """Add newly published messages behind everything that is ready."""
        self._ready.extend(messages)
        self._fresh_count += len(messages)

    def take(self, now_s: float, max_count: int, max_bytes: int) -> list[Delivery]:
        """Lease up to `max_count` ready messages, and at least one if there is any, as long as they stay below `max_bytes`."""
        self._drop_outdated(now_s)
        ready = self._ready
        taken: list[Delivery] = []
        size = 0
        while ready and len(taken) < max_count:
            item = ready[0]
            if isinstance(item, Delivery):
                if item.state == DONE:
                    ready.popleft()
                    continue
                message = item.message
            else:
                message = item
            size += len(message.body) + _FRAME_BYTES
            if size > max_bytes and taken:
                break
            ready.popleft()
            taken.append(self._identified(item))
        if taken:
            self._leases.hold(taken, now_s + self.policy.ack_deadline_s)
        return taken

    def _identified(self, item: Message | Delivery) -> Delivery:
        if isinstance(item, Delivery):
            del self._by_ack_id[item.ack_id]
            delivery = item
        else:
            self._fresh_count -= 1
            delivery = Delivery(item)
        delivery.ack_id = self._ack_ids.make()
        self._by_ack_id[delivery.ack_id] = delivery
        return delivery

    def give_back(self, deliveries: list[Delivery]) -> None:
        """Undo a take whose receiver is gone: the messages are ready again, in front, and no attempt is counted."""
        for delivery in reversed(deliveries):
            if delivery.state == LEASED:
                self._leases.release(delivery)
                delivery.state = WAITING
                self._ready.appendleft(delivery)

    def acknowledge(self, ack_ids: Iterable[str]) -> list[str]:
        """Remove messages; returns the ids without effect (stale or never given). An expired lease may still be acknowledged."""
        without_effect = []
        for ack_id in ack_ids:
            delivery = self._by_ack_id.pop(ack_id, None)
            if delivery is None:
                without_effect.append(ack_id)
                continue
            if delivery.state == LEASED:
                self._leases.release(delivery)
            delivery.state = DONE
        return without_effect

    def _leased(self, ack_ids: Iterable[str]) -> list[Delivery]:
        found: dict[Delivery, None] = {}
        for ack_id in ack_ids:
            delivery = self._by_ack_id.get(ack_id)
            if delivery is not None and delivery.state == LEASED:
                found[delivery] = None
        return list(found)

    def extend(self, ack_ids: Iterable[str], deadline_s: float) -> None:
        """Give leases a new deadline, later or earlier; ids that are not leased have no effect."""
        deliveries = self._leased(ack_ids)
        for delivery in deliveries:
            self._leases.release(delivery)
        if deliveries:
            self._leases.hold(deliveries, deadline_s)

    def reject(self, ack_ids: Iterable[str], now_s: float) -> list[Delivery]:
        """End leases without success (nack); returns those whose attempts are used up, no longer part of the backlog."""
        deliveries = self._leased(ack_ids)
        for delivery in deliveries:
            self._leases.release(delivery)
        return [delivery for delivery in deliveries if not self._failed(delivery, now_s, now_s)]

    def settle(self, now_s: float) -> list[Delivery]:
        """Apply what time has brought: expired leases, ended delays, retention. Returns what `reject` returns."""
        expired = self._leases.expire(now_s)
        dead = [delivery for delivery in expired if not self._failed(delivery, delivery.deadline_s, now_s)]
        while self._delayed and self._delayed[0][0] <= now_s:
            self._ready.append(heapq.heappop(self._delayed)[2])
        self._drop_outdated(now_s)
        return dead

    def _failed(self, delivery: Delivery, failed_s: float, now_s: float) -> bool:
        delivery.failure_count += 1
        if self.policy.gives_up(delivery.failure_count):
            delivery.state = DONE
            del self._by_ack_id[delivery.ack_id]
            return False
        self._wait(delivery, failed_s, now_s)
        return True

    def _wait(self, delivery: Delivery, failed_s: float, now_s: float) -> None:
        delivery.state = WAITING
        available_s = failed_s + self.policy.backoff_s(delivery.failure_count)
        if available_s <= now_s:
            self._ready.append(delivery)
        else:
            self._delayed_number += 1
            heapq.heappush(self._delayed, (available_s, self._delayed_number, delivery))

    def put_back(self, dead: list[Delivery], now_s: float) -> None:
        """Take dead letters back that could not be forwarded: they are delivered again."""
        for delivery in dead:
            self._by_ack_id[delivery.ack_id] = delivery
            self._wait(delivery, now_s, now_s)

    def _drop_outdated(self, now_s: float) -> None:
        horizon_s = now_s - self.policy.retention_s
        while self._ready:
            item = self._ready[0]
            if isinstance(item, Message):
                if item.published_s >= horizon_s:
                    return
                self._fresh_count -= 1
            elif item.state == WAITING:
                if item.message.published_s >= horizon_s:
                    return
                del self._by_ack_id[item.ack_id]
                item.state = DONE
            self._ready.popleft()
