"""A subscription: its settings, its backlog, and the pulls that wait for messages.

The backlog is only used under the subscription's own lock. `forward_dead_letters` is called after the lock was released, because it takes
the locks of other subscriptions.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from local_cloud.clock import Clock
from local_cloud.pubsub.messages.backlog import Backlog
from local_cloud.pubsub.messages.delivery import AckIds, Delivery
from local_cloud.pubsub.messages.filters import matches
from local_cloud.pubsub.messages.flow_control import FlowControl
from local_cloud.pubsub.messages.message import Message
from local_cloud.pubsub.messages.observer import SubscriptionObserver
from local_cloud.pubsub.messages.policy import Policy
from local_cloud.pubsub.messages.publication import Publication
from local_cloud.pubsub.model.refusal import Refusal, detached, not_found

# https://cloud.google.com/pubsub/quotas#resource_limits
PULL_MAX_COUNT = 1_000
# Google's clients accept answers of 4 MiB from an emulator; minus room for a frame.
PULL_MAX_BYTES = 4 * 1024 * 1024 - 64 * 1024


class Caller(Protocol):
    """The client behind a pull or a stream."""

    def is_connected(self) -> bool: ...

    def wait_limit_s(self) -> float:
        """Real seconds that the pull may still wait; 0 or less: answer now."""

    def on_disconnect(self, wake: Callable[[], None]) -> None:
        """Call `wake` once the client is no longer connected."""


class Subscription:
    """Safe to use from any thread. `settings` is a serialized google.pubsub.v1.Subscription without the topic."""

    def __init__(self, name: str, topic: str, settings: bytes, policy: Policy, ack_ids: AckIds, clock: Clock) -> None:
        self.name = name
        self.topic = topic
        self.settings = settings
        self.forward_dead_letters: Callable[[Subscription, list[Delivery]], None] = lambda _subscription, _dead: None
        self.expect: Callable[[float], None] = lambda _due_s: None
        self._clock = clock
        self._backlog = Backlog(policy, ack_ids)
        self._lock = threading.Lock()
        self._acked_count = 0
        self._waiters: dict[threading.Event, None] = {}
        # All streams; one that has no room for messages at the moment is no waiter.
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
        return self._backlog.topic_retention_s

    def retain_at_least(self, seconds: float, *, is_new: bool = False) -> None:
        """The topic's retention. A subscription that `is_new` to the topic drops nothing: it had no shorter retention before."""
        with self._lock:
            if not is_new:
                self._backlog.drop_outdated(self._clock.now())
            self._backlog.topic_retention_s = seconds

    def configure(self, settings: bytes, policy: Policy) -> None:
        """New settings; leases keep their deadline."""
        with self._lock:
            self.settings = settings
            self._backlog.drop_outdated(self._clock.now())
            self._backlog.policy = policy

    def report_to(self, observer: SubscriptionObserver) -> None:
        """Report to `observer` what happens to messages from now on."""
        self._backlog.observer = observer

    def restore(self, messages: list[Message], retained: list[Message], failure_counts: Mapping[str, int]) -> None:
        """Add the messages of an earlier process, undelivered and retained ones; to be called before the first pull."""
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
            self._backlog.observer.acknowledged([message for message in messages if message not in wanted])
        self._backlog.offer(accepted)

    def _accepted(self, messages: list[Message]) -> list[Message]:
        wanted = self.policy.filter
        return messages if wanted is None else [message for message in messages if matches(wanted, message.opened().attributes)]

    def pull(self, max_count: int, caller: Caller, *, wait: bool) -> list[Delivery]:
        """Lease up to `max_count` messages; with `wait`, wait for the first one as long as the caller does.

        Raises a refusal when the subscription is deleted or detached meanwhile.
        """
        waiter = threading.Event()
        caller.on_disconnect(waiter.set)
        while True:
            waiter.clear()
            wait_limit_s = caller.wait_limit_s() if wait else 0.0
            # A client that died in a pull gets no messages: they would be leased until their ack deadline.
            is_connected = caller.is_connected()
            with self._lock:
                if self._refusal is not None:
                    raise self._refusal
                dead = self._backlog.settle(self._clock.now())
                taken = self._take(max_count) if is_connected else []
                waiting = is_connected and not taken and wait_limit_s > 0
                if waiting:
                    self._waiters[waiter] = None
                else:
                    self._waiters.pop(waiter, None)
                    self._wake_next()
                due_s = self._backlog.next_due_s()
            self._after(dead, due_s)
            if not waiting:
                return taken
            waiter.wait(wait_limit_s)

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
            # The stream may have been woken for messages that it does not take any more.
            self._wake_next()

    def take_for(self, stream: threading.Event, flow: FlowControl, ack_deadline_s: float, max_bytes: int) -> list[Delivery]:
        """Lease as many messages as a stream has room for; without any, `stream` is set once there may be some. Raises as `pull` does."""
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

    def undo_take(self, deliveries: list[Delivery]) -> None:
        with self._lock:
            self._backlog.undo_take(deliveries)
            self._wake_next()

    def acknowledge(self, ack_ids: Sequence[str]) -> list[str]:
        """Returns the ids that failed. Without exactly-once delivery none does: an id without effect is no error."""
        dead: list[Delivery] = []
        failed: list[str] = []
        with self._lock:
            if self.policy.is_exactly_once:
                # Here an acknowledgement after the end of the lease fails.
                dead = self._backlog.settle(self._clock.now())
                failed = self._backlog.invalid(ack_ids)
                stale = set(failed)
                ack_ids = [ack_id for ack_id in ack_ids if ack_id not in stale]
            before_count = self._backlog.undelivered_count
            self._backlog.acknowledge(ack_ids)
            self._acked_count += before_count - self._backlog.undelivered_count
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
            # Otherwise a lease that has ended, but was not settled yet, could be extended.
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
        """End leases and delays whose time has come; returns when the next one ends (unix seconds)."""
        with self._lock:
            dead = self._backlog.settle(self._clock.now())
            self._wake_next()
            due_s = self._backlog.next_due_s()
        if dead:
            self.forward_dead_letters(self, dead)
        return due_s

    def put_back(self, dead: list[Delivery]) -> None:
        with self._lock:
            self._backlog.put_back(dead, self._clock.now())
            self._wake_next()
            due_s = self._backlog.next_due_s()
        self._after([], due_s)

    def dead_letters_forwarded(self, dead: list[Delivery]) -> None:
        """These dead letters have reached their topic."""
        with self._lock:
            self._backlog.observer.acknowledged([delivery.message for delivery in dead])
            self._acked_count += len(dead)

    def counts(self) -> tuple[int, int, float | None]:
        """Undelivered messages, leased ones among them, and the publish time of the oldest (unix seconds)."""
        with self._lock:
            return self._backlog.undelivered_count, self._backlog.outstanding_count, self._backlog.oldest_published_s()

    @property
    def acked_count(self) -> int:
        """Messages that were acknowledged since this process began, dead-lettered ones among them."""
        return self._acked_count

    def unacknowledged(self) -> list[Message]:
        """All its messages without an acknowledgement, in the order of publishing."""
        with self._lock:
            return self._backlog.unacknowledged()

    def seek(self, is_acknowledged: Callable[[Message], bool], others: list[Message]) -> None:
        """Decide anew which messages count as acknowledged: of all that it has or retains, and of `others`, which may be unknown to it."""
        with self._lock:
            self._backlog.seek(is_acknowledged, self._accepted(others), self._clock.now())
            self._wake_next()

    def close(self) -> None:
        """The subscription is deleted: every waiting pull and every stream ends with NOT_FOUND."""
        self._end(not_found(self.name))

    def detach(self, settings: bytes, policy: Policy) -> None:
        """Drop all messages and accept no more; waiting pulls and streams end with FAILED_PRECONDITION."""
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
            self.forward_dead_letters(self, dead)
        if due_s is not None:
            self.expect(due_s)

    def _wake_next(self) -> None:
        """Wake one waiting pull if there may be something for it; a pull that leaves something wakes the next one."""
        if self._waiters and self._backlog.has_ready:
            waiter = next(iter(self._waiters))
            del self._waiters[waiter]
            waiter.set()
