"""A subscription: its settings, its backlog, and the pulls that wait for messages.

Everything about the backlog happens under the subscription's own lock; dead letters leave through `bury` only after the
lock was let go, because burying takes the locks of other subscriptions.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from local_cloud.clock import Clock
from local_cloud.pubsub.backlog import Backlog
from local_cloud.pubsub.delivery import AckIds, Delivery
from local_cloud.pubsub.message import Message
from local_cloud.pubsub.policy import Policy
from local_cloud.pubsub.refusal import not_found

# https://cloud.google.com/pubsub/quotas#resource_limits
PULL_MAX_COUNT = 1_000
PULL_MAX_BYTES = 10_000_000


class Caller(Protocol):
    """Who waits in a pull."""

    def is_there(self) -> bool: ...

    def patience_s(self) -> float:
        """Real seconds that the pull may still wait; 0 or less: answer now."""

    def when_gone(self, wake: Callable[[], None]) -> None:
        """Call `wake` once the caller has gone."""


class Subscription:
    """Safe to use from any thread. `settings` is a serialized google.pubsub.v1.Subscription without the topic."""

    def __init__(self, name: str, topic: str, settings: bytes, policy: Policy, ack_ids: AckIds, clock: Clock) -> None:
        self.name = name
        self.topic = topic
        self.settings = settings
        self.bury: Callable[[Subscription, list[Delivery]], None] = lambda _subscription, _dead: None
        self.expect: Callable[[float], None] = lambda _due_s: None
        self._clock = clock
        self._backlog = Backlog(policy, ack_ids)
        self._lock = threading.Lock()
        self._waiters: dict[threading.Event, None] = {}
        self._closed = False

    @property
    def policy(self) -> Policy:
        return self._backlog.policy

    @property
    def waiting_count(self) -> int:
        """Pulls that wait for messages at this moment."""
        return len(self._waiters)

    def configure(self, settings: bytes, policy: Policy) -> None:
        """New settings; leases that are out keep their deadline."""
        with self._lock:
            self.settings = settings
            self._backlog.policy = policy

    def offer(self, messages: list[Message]) -> None:
        with self._lock:
            self._backlog.offer(messages)
            self._wake_next()

    def pull(self, max_count: int, caller: Caller, *, wait: bool) -> list[Delivery]:
        """Lease up to `max_count` messages; with `wait`, wait for the first one as long as the caller does.

        Raises a NOT_FOUND refusal when the subscription is deleted meanwhile.
        """
        waiter = threading.Event()
        caller.when_gone(waiter.set)
        while True:
            waiter.clear()
            patience_s = caller.patience_s() if wait else 0.0
            # A client that died in a pull must not take messages along: they would be invisible until their ack deadline.
            there = caller.is_there()
            with self._lock:
                if self._closed:
                    raise not_found(self.name)
                dead = self._backlog.settle(self._clock.now())
                taken = self._take(max_count) if there else []
                waiting = there and not taken and patience_s > 0
                if waiting:
                    self._waiters[waiter] = None
                else:
                    self._waiters.pop(waiter, None)
                    self._wake_next()
                due_s = self._backlog.next_due_s()
            self._after(dead, due_s)
            if not waiting:
                return taken
            waiter.wait(patience_s)

    def _take(self, max_count: int) -> list[Delivery]:
        return self._backlog.take(self._clock.now(), min(max_count, PULL_MAX_COUNT), PULL_MAX_BYTES)

    def give_back(self, deliveries: list[Delivery]) -> None:
        with self._lock:
            self._backlog.give_back(deliveries)
            self._wake_next()

    def acknowledge(self, ack_ids: list[str]) -> None:
        with self._lock:
            self._backlog.acknowledge(ack_ids)

    def modify(self, ack_ids: list[str], seconds: int) -> None:
        """Let leases end `seconds` from now; 0 ends them now, as a failed attempt."""
        dead: list[Delivery] = []
        with self._lock:
            now_s = self._clock.now()
            # Without this, a lease that ended a moment ago and was not seen yet could be revived.
            dead += self._backlog.settle(now_s)
            if seconds:
                self._backlog.extend(ack_ids, now_s + seconds)
            else:
                dead += self._backlog.reject(ack_ids, now_s)
            self._wake_next()
            due_s = self._backlog.next_due_s()
        self._after(dead, due_s)

    def settle(self) -> float | None:
        """Apply what time has brought; returns when there will be something to do next."""
        with self._lock:
            dead = self._backlog.settle(self._clock.now())
            self._wake_next()
            due_s = self._backlog.next_due_s()
        if dead:
            self.bury(self, dead)
        return due_s

    def put_back(self, dead: list[Delivery]) -> None:
        with self._lock:
            self._backlog.put_back(dead, self._clock.now())
            self._wake_next()
            due_s = self._backlog.next_due_s()
        self._after([], due_s)

    def counts(self) -> tuple[int, int, float | None]:
        """Undelivered messages, leased ones among them, and the publish time of the oldest (unix seconds)."""
        with self._lock:
            return self._backlog.undelivered_count, self._backlog.outstanding_count, self._backlog.oldest_published_s()

    def close(self) -> None:
        """The subscription is deleted: every waiting pull ends with NOT_FOUND."""
        with self._lock:
            self._closed = True
            for waiter in self._waiters:
                waiter.set()
            self._waiters.clear()

    def _after(self, dead: list[Delivery], due_s: float | None) -> None:
        if dead:
            self.bury(self, dead)
        if due_s is not None:
            self.expect(due_s)

    def _wake_next(self) -> None:
        """Wake one waiting pull if there may be something for it; a pull that leaves something wakes the next one."""
        if self._waiters and self._backlog.has_ready:
            waiter = next(iter(self._waiters))
            del self._waiters[waiter]
            waiter.set()
