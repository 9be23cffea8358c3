"""A subscription: its settings, its backlog, and the pulls that wait for messages.

Everything about the backlog happens under the subscription's own lock; dead letters leave through `bury` only after the
lock was let go, because burying takes the locks of other subscriptions.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from local_cloud.clock import Clock
from local_cloud.pubsub.backlog import Backlog
from local_cloud.pubsub.delivery import AckIds, Delivery
from local_cloud.pubsub.filters import matches
from local_cloud.pubsub.flow import Flow
from local_cloud.pubsub.message import Message
from local_cloud.pubsub.policy import Policy
from local_cloud.pubsub.publication import Publication
from local_cloud.pubsub.refusal import Refusal, detached, not_found
from local_cloud.pubsub.witness import Fate

# https://cloud.google.com/pubsub/quotas#resource_limits
PULL_MAX_COUNT = 1_000
# What a client takes in one answer unless it was told otherwise, as Google's are when they talk to an emulator: 4 MiB, minus a frame.
PULL_MAX_BYTES = 4 * 1024 * 1024 - 64 * 1024


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
        # Also those who cannot take anything at the moment, so are no waiters.
        self._streams: set[threading.Event] = set()
        self._refusal: Refusal | None = detached(name) if policy.is_detached else None

    @property
    def policy(self) -> Policy:
        return self._backlog.policy

    @property
    def waiting_count(self) -> int:
        """Pulls that wait for messages at this moment."""
        return len(self._waiters)

    @property
    def topic_retention_s(self) -> float:
        return self._backlog.least_retention_s

    def retain_at_least(self, seconds: float) -> None:
        """What the topic promises to all its subscriptions."""
        with self._lock:
            self._backlog.let_go(self._clock.now())
            self._backlog.least_retention_s = seconds

    def configure(self, settings: bytes, policy: Policy) -> None:
        """New settings; leases that are out keep their deadline."""
        with self._lock:
            self.settings = settings
            self._backlog.let_go(self._clock.now())
            self._backlog.policy = policy

    def keep(self, fate: Fate) -> None:
        """Tell `fate` what becomes of messages from now on."""
        self._backlog.fate = fate

    def restore(self, messages: list[Message], retained: list[Message], failure_counts: Mapping[str, int]) -> None:
        """Hold again what an earlier process held, also what it retained; nobody pulls yet."""
        with self._lock:
            self._backlog.restore(self._accepted(messages), self._accepted(retained), failure_counts)

    def offer(self, publication: Publication) -> None:
        """Add newly published messages; those that the filter does not want count as acknowledged."""
        with self._lock:
            if self.policy.filter is None:
                self._backlog.publish(publication)
            else:
                self._offer_filtered(publication.messages())
            self._wake_next()

    def _offer_filtered(self, messages: list[Message]) -> None:
        accepted = self._accepted(messages)
        if len(accepted) < len(messages):
            wanted = set(accepted)
            self._backlog.fate.acknowledged([message for message in messages if message not in wanted])
        self._backlog.offer(accepted)

    def _accepted(self, messages: list[Message]) -> list[Message]:
        wanted = self.policy.filter
        return messages if wanted is None else [message for message in messages if matches(wanted, message.opened().attributes)]

    def pull(self, max_count: int, caller: Caller, *, wait: bool) -> list[Delivery]:
        """Lease up to `max_count` messages; with `wait`, wait for the first one as long as the caller does.

        Raises a refusal when the subscription is deleted or detached meanwhile.
        """
        waiter = threading.Event()
        caller.when_gone(waiter.set)
        while True:
            waiter.clear()
            patience_s = caller.patience_s() if wait else 0.0
            # A client that died in a pull must not take messages along: they would be invisible until their ack deadline.
            there = caller.is_there()
            with self._lock:
                if self._refusal is not None:
                    raise self._refusal
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

    def join(self, stream: threading.Event) -> None:
        """From now on `stream` is set when the subscription ends; see `take_for`."""
        with self._lock:
            self._streams.add(stream)

    def leave(self, stream: threading.Event) -> None:
        with self._lock:
            self._streams.discard(stream)
            self._waiters.pop(stream, None)
            # It may have been the one that was woken for messages which it does not take any more.
            self._wake_next()

    def take_for(self, stream: threading.Event, flow: Flow, ack_deadline_s: float, max_bytes: int) -> list[Delivery]:
        """Lease what a stream has room for; when that is nothing, `stream` is set once there may be more. Raises as `pull` does."""
        with self._lock:
            if self._refusal is not None:
                raise self._refusal
            now_s = self._clock.now()
            dead = self._backlog.settle(now_s)
            room_count, room_bytes = min(flow.room_count, PULL_MAX_COUNT), min(flow.room_bytes, max_bytes)
            taken = self._backlog.take(now_s, room_count, room_bytes, deadline_s=now_s + ack_deadline_s, flow=flow) if room_count else []
            if room_count and not taken:
                self._waiters[stream] = None
            else:
                self._waiters.pop(stream, None)
                self._wake_next()
            due_s = self._backlog.next_due_s()
        self._after(dead, due_s)
        return taken

    def give_back(self, deliveries: list[Delivery]) -> None:
        with self._lock:
            self._backlog.give_back(deliveries)
            self._wake_next()

    def acknowledge(self, ack_ids: Sequence[str]) -> list[str]:
        """Returns the ids that failed: none without exactly-once delivery, where an id without effect is no error."""
        dead: list[Delivery] = []
        failed: list[str] = []
        with self._lock:
            if self.policy.is_exactly_once:
                # Only a lease that has not ended may be acknowledged.
                dead = self._backlog.settle(self._clock.now())
                failed = self._backlog.invalid(ack_ids)
                ack_ids = _without(ack_ids, failed)
            self._backlog.acknowledge(ack_ids)
            due_s = self._backlog.next_due_s() if self.policy.is_ordered or dead else None
            if self.policy.is_ordered:
                self._wake_next()
        self._after(dead, due_s)
        return failed

    def modify(self, ack_ids: Sequence[str], seconds: int) -> list[str]:
        """Let leases end `seconds` from now; 0 ends them now, as a failed attempt. Returns what `acknowledge` returns."""
        dead: list[Delivery] = []
        failed: list[str] = []
        with self._lock:
            now_s = self._clock.now()
            # Without this, a lease that ended a moment ago and was not seen yet could be revived.
            dead += self._backlog.settle(now_s)
            if self.policy.is_exactly_once:
                failed = self._backlog.invalid(ack_ids)
            if seconds:
                self._backlog.extend(ack_ids, now_s + seconds)
            else:
                dead += self._backlog.reject(ack_ids, now_s)
            self._wake_next()
            due_s = self._backlog.next_due_s()
        self._after(dead, due_s)
        return failed

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

    def buried(self, dead: list[Delivery]) -> None:
        """Dead letters that have reached their topic."""
        with self._lock:
            self._backlog.fate.acknowledged([delivery.message for delivery in dead])

    def counts(self) -> tuple[int, int, float | None]:
        """Undelivered messages, leased ones among them, and the publish time of the oldest (unix seconds)."""
        with self._lock:
            return self._backlog.undelivered_count, self._backlog.outstanding_count, self._backlog.oldest_published_s()

    def unacknowledged(self) -> list[Message]:
        """In the order of publishing."""
        with self._lock:
            return self._backlog.unacknowledged()

    def seek(self, is_acknowledged: Callable[[Message], bool], others: list[Message]) -> None:
        """Decide anew which messages are acknowledged, of all that it holds or retains and of `others` that it may not know."""
        with self._lock:
            self._backlog.seek(is_acknowledged, self._accepted(others), self._clock.now())
            self._wake_next()

    def close(self) -> None:
        """The subscription is deleted: every waiting pull and every stream ends with NOT_FOUND."""
        self._end(not_found(self.name))

    def detach(self, settings: bytes, policy: Policy) -> None:
        """It loses its messages and gets no more; waiting pulls and streams end with FAILED_PRECONDITION."""
        self.seek(lambda _message: True, [])
        self.configure(settings, policy)
        self._end(detached(self.name))

    def _end(self, refusal: Refusal) -> None:
        with self._lock:
            self._refusal = refusal
            for waiter in (*self._waiters, *self._streams):
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


def _without(ack_ids: Iterable[str], failed: list[str]) -> list[str]:
    if not failed:
        return list(ack_ids)
    known = set(failed)
    return [ack_id for ack_id in ack_ids if ack_id not in known]
