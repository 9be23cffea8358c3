"""Republishing: before the subscription's dead-letter policy takes a message it is published again, then acknowledged: its count of
deliveries begins anew. Its one rule: nothing is acknowledged before the topic has it.

A policy counts nacks as well as runs, so a task that only waits would meet it. Needs neither the bucket nor the controller. A worker that
is killed in between leaves the task two messages; its effect is one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import NamedTuple

from batch.events import log
from batch.model.clock import Clock
from batch.model.delayed import DELAYED, concerns_filter, published_again
from batch.model.delivery import MAX_ATTRIBUTES, Delivery, Outgoing, near_net
from batch.model.errors import DependencyForbidden, DependencyMissing, DependencyUnavailable, FanoutError
from batch.services.leases import LeaseKeeper
from batch.services.ports import Subscription, Topic
from batch.worker.attempt import Nack, delivery_of, may_have_record
from batch.worker.tally import Tally

PUBLISH_WITHIN_S = 3.0
"""For one publish with its retries. A worker that is told to stop has 10 s for everything."""
AGAIN_AFTER_S = 30.0
"""How long nothing is published again after Pub/Sub did not take it. What would be is nacked for as long: each delivery counts."""
PORTION = 1000


class Unpublished(NamedTuple):
    """A message that could not be published again, and why. `lasting`: until somebody changes something it never can."""

    nack: Nack
    reason: str
    lasting: bool = False

    def is_dead(self, limit: int) -> bool:
        """Whether to give its task up with that reason: one more nack, and a worker that is killed, and the policy would do it without. Of
        the last delivery the nack alone is enough, also where Pub/Sub may take the message later."""
        return delivery_of(self.nack.work).delivery_attempt >= (limit - 1 if self.lasting else limit)


@dataclass(slots=True)
class Republishing:
    """Used by the committer's thread and by the one that ends the worker. `topics` makes a topic by the name that the subscription gives,
    when the first message is to be published. `heartbeat` is called before each call to a service."""

    subscription: Subscription
    topics: Callable[[str], Topic] | None
    leases: LeaseKeeper
    tally: Tally
    clock: Clock
    heartbeat: Callable[[], None] = lambda: None
    limit: int = field(init=False)
    _from: float = field(init=False)
    _topic: Topic | None = None
    _quiet_until_s: float = -inf
    _down: str = ""
    _publishing: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.limit = self.subscription.info.max_delivery_attempts
        self._from = near_net(self.limit) or inf

    def is_near(self, delivery: Delivery) -> bool:
        """Whether the dead-letter policy is so near that the message is not to be nacked."""
        return delivery.delivery_attempt >= self._from

    def republish(self, nacks: Sequence[Nack], note: Callable[[Iterable[Nack]], None]) -> list[Unpublished]:
        """Publish, wait for the confirmation, acknowledge. Returns those whose messages are outstanding still. `note` puts on record how
        long tasks wait whose old messages may come back early."""
        left: list[Unpublished] = []
        for at in range(0, len(nacks), PORTION):
            left += self._portion(nacks[at : at + PORTION], note)
        if left:
            log("republish_failed", message_count=len(left), error=left[0].reason)
        return left

    def _portion(self, nacks: Sequence[Nack], note: Callable[[Iterable[Nack]], None]) -> list[Unpublished]:
        now = self.clock.now()
        ready: list[tuple[Nack, Outgoing]] = []
        left: list[Unpublished] = []
        for one in nacks:
            not_before = (one.not_before or now + one.after_s) if one.after_s else 0.0
            message = published_again(delivery_of(one.work), not_before, has_record=may_have_record(one.work))
            if message is None:
                reason = f"it has {MAX_ATTRIBUTES} attributes, which leaves no room for {DELAYED!r}: submit the task with fewer"
                left.append(Unpublished(one, f"{self._why()} could not be published again: {reason}", lasting=True))
            else:
                ready.append((one, message))
        with self._publishing:
            left += self._published(ready)
        unpublished = {one.nack.ack_id for one in left}
        done = [one for one, _ in ready if one.ack_id not in unpublished]
        if done:
            self._acknowledge(done, note)
        return left

    def _published(self, ready: Sequence[tuple[Nack, Outgoing]]) -> list[Unpublished]:
        """Publish them in one request; if the topic refuses it, its halves, so that one refused message keeps back no other."""
        if not ready:
            return []
        reason, lasting = self._down, False
        if self.clock.monotonic() >= self._quiet_until_s:
            self.heartbeat()
            try:
                self._the_topic().publish([message for _, message in ready])
                return []
            except DependencyUnavailable as error:
                self._quiet_until_s = self.clock.monotonic() + AGAIN_AFTER_S
                reason = self._down = f"{self._why()} could not be published again: {error}"
            except FanoutError as error:
                if len(ready) > 1 and not isinstance(error, DependencyMissing | DependencyForbidden):
                    middle = len(ready) // 2
                    return [*self._published(ready[:middle]), *self._published(ready[middle:])]
                reason, lasting = f"{self._why()} could not be published again: {error}", True
        quiet_s = 0.0 if lasting else self._quiet_until_s - self.clock.monotonic()
        return [Unpublished(replace(one, after_s=max(one.after_s, quiet_s)), reason, lasting) for one, _ in ready]

    def _why(self) -> str:
        grant = ", a guess: grant workers the custom role fanoutConsumer, or roles/pubsub.viewer on it"
        guess = grant if self.subscription.info.is_guessed else ""
        limit = f"of subscription {self.subscription.name} is near (limit {self.limit}{guess})"
        return f"delivered so often that the dead-letter policy {limit}, it"

    def _the_topic(self) -> Topic:
        """Raises DependencyMissing, DependencyForbidden."""
        info = self.subscription.info
        if not info.topic or self.topics is None:
            raise DependencyMissing(f"the topic of subscription {self.subscription.name} is deleted, or not known: set TOPIC_NAME")
        if concerns_filter(info.message_filter):
            raise DependencyMissing(
                f"the filter of subscription {self.subscription.name} names the attribute {DELAYED!r}, which published messages then carry:"
                " create the subscription without it"
            )
        if self._topic is None:
            self._topic = self.topics(info.topic)
        return self._topic

    def _acknowledge(self, done: Sequence[Nack], note: Callable[[Iterable[Nack]], None]) -> None:
        """The topic has them: whatever becomes of the acknowledgement, they count as nacked, and as deferred as long as they wait."""
        ack_ids = [one.ack_id for one in done]
        lost: set[str] = set()
        try:
            lost = set(self.subscription.ack(ack_ids))
            if lost:
                log("acks_lost", message_count=len(lost))
        except FanoutError as error:
            log("acks_lost", message_count=len(ack_ids), error=str(error))
            lost = set(ack_ids)
        note(one for one in done if one.ack_id in lost)
        self.leases.release(ack_ids)
        for one in done:
            self.tally.nacked(1, one.after_s)
        log("republished", message_count=len(done), acked_count=len(done) - len(lost))
