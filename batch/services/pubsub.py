"""One subscription of Pub/Sub, for threads. Every error of Google leaves as one of `batch.model.errors`.

Each call has a deadline, and retries are ours: so nothing hangs, and one bad ack id or one failed request never loses the others.
Messages are read and written as raw protobuf; the objects around it cost more than the work. Google's packages are imported when a
client is made: importing this module stays cheap.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from math import ceil
from typing import Any

from batch.events import log
from batch.model.clock import Clock
from batch.model.delivery import MAX_ACK_IDS, MAX_ACK_REQUEST_BYTES, MAX_EXTENSION_S, Delivery
from batch.model.errors import DependencyForbidden, DependencyUnavailable, Unreached
from batch.services.calls import FIRST_PAUSE_S, RETRY_WITHIN_S, Caller, Resource, batches, client_for, code_of, raw_call
from batch.services.ports import SubscriptionInfo

REQUEST_TIMEOUT_S = 10.0
FALLBACK_ACK_DEADLINE_S = 60.0
FALLBACK_DELIVERY_ATTEMPTS = 5
"""The fewest that a dead-letter policy can allow."""
DELETED_TOPIC = "_deleted-topic_"
ACKS_IN_FLIGHT = 4
"""Requests of one call; each takes a round trip, and a worker that stops has thousands of messages to nack within a second."""
_ID_OVERHEAD_BYTES = 4
_REQUEST_OVERHEAD_BYTES = 1024


def id_batches(ack_ids: Iterable[str]) -> Iterator[list[str]]:
    """Requests of at most 1,000 ids that stay below 512 KiB, in order."""
    return batches(ack_ids, lambda ack_id: len(ack_id) + _ID_OVERHEAD_BYTES, MAX_ACK_IDS, MAX_ACK_REQUEST_BYTES - _REQUEST_OVERHEAD_BYTES)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a failed request says about its ids: `bad` ones, batches to send `again` (after a `pause`), or that all of it `failed`."""

    bad: list[str]
    again: list[list[str]]
    pause: bool = False
    failed: bool = False


def judge_ids(error: Exception, ids: list[str]) -> Verdict:
    """Which ids of a request Pub/Sub refused, so that one bad id never loses the others: from the error's details where it names ids
    (exactly-once delivery), else by halving until single ids are found."""
    named = getattr(error, "metadata", None) or {}
    told = {ack_id: str(named[ack_id]) for ack_id in ids if ack_id in named}
    if told:
        again = [ack_id for ack_id, reason in told.items() if reason.startswith("TRANSIENT")]
        return Verdict([ack_id for ack_id in told if ack_id not in again], [again] if again else [], pause=bool(again))
    if code_of(error) != "INVALID_ARGUMENT":
        return Verdict([], [], failed=True)
    if len(ids) == 1:
        return Verdict(ids, [])
    middle = len(ids) // 2
    return Verdict([], [ids[:middle], ids[middle:]])


class GoogleSubscription:
    """Implements `batch.services.ports.Subscription`; may be used from any thread.

    `retry_within_s` bounds the retries of one call. PUBSUB_EMULATOR_HOST sends everything there, without credentials.
    `look_within_s` is how soon `info` says that it is out of reach, to who waits for that. `fallback_topic` is its topic where this
    identity may pull but not look. Raises DependencyForbidden when there are no credentials.
    """

    def __init__(
        self,
        project: str,
        name: str,
        *,
        fallback_topic: str = "",
        retry_within_s: float = RETRY_WITHIN_S,
        request_timeout_s: float = REQUEST_TIMEOUT_S,
        look_within_s: float | None = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        from google import pubsub_v1
        from google.protobuf.empty_pb2 import Empty
        from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

        self.name = name
        self._fallback_topic, self._look_within_s = fallback_topic, look_within_s
        self._caller = Caller(Resource("subscription", project, name), clock, rng, retry_within_s, request_timeout_s)
        self._client: Any = client_for(self._caller.resource, pubsub_v1.SubscriberClient, SubscriberGrpcTransport)
        self._pull_request: Any = pubsub_v1.PullRequest.pb()
        self._ack_request: Any = pubsub_v1.AcknowledgeRequest.pb()
        self._modify_request: Any = pubsub_v1.ModifyAckDeadlineRequest.pb()
        self._send_pull = self._call("Pull", self._pull_request, pubsub_v1.PullResponse.pb())
        self._send_ack = self._call("Acknowledge", self._ack_request, Empty)
        self._send_modify = self._call("ModifyAckDeadline", self._modify_request, Empty)
        self._path = self._caller.resource.path
        self._pool: ThreadPoolExecutor | None = None
        self._pool_lock = threading.Lock()

    def _call(self, method: str, request: Any, response: Any) -> Callable[[Any, float], Any]:
        return raw_call(
            self._client, f"/google.pubsub.v1.Subscriber/{method}", request, response, ("subscription", self._caller.resource.path)
        )

    @cached_property
    def info(self) -> SubscriptionInfo:
        """Read once. When this identity may pull but not look, the most careful guess. Raises DependencyError."""

        def call(timeout_s: float) -> SubscriptionInfo:
            return _info(self._client.get_subscription(subscription=self._path, retry=None, timeout=timeout_s))

        try:
            return self._looked(call, self._caller.until_s())
        except self._caller.failure as error:
            ours = self._caller.ours("read", error)
            if not isinstance(ours, DependencyForbidden):
                raise ours from error
            topic = f"topic {self._fallback_topic}, of TOPIC_NAME" if self._fallback_topic else "no topic that is known: set TOPIC_NAME"
            guess = f"{FALLBACK_ACK_DEADLINE_S:g} s, a dead-letter policy of {FALLBACK_DELIVERY_ATTEMPTS} deliveries, and {topic}"
            log("subscription_unread", error=f"{ours}; it is drained as if it had an ack deadline of {guess}")
            return SubscriptionInfo(FALLBACK_ACK_DEADLINE_S, self._fallback_topic, FALLBACK_DELIVERY_ATTEMPTS, is_guessed=True)

    def _looked(self, call: Callable[[float], SubscriptionInfo], until_s: float) -> SubscriptionInfo:
        """As `repeated`, but who waits for a network is told within `look_within_s` that nobody is reached. Raises Unreached, `failure`."""
        if self._look_within_s is None:
            return self._caller.repeated(call, until_s)
        while True:
            try:
                return self._caller.repeated(call, min(until_s, self._caller.clock.monotonic() + self._look_within_s))
            except self._caller.failure as error:
                ours = self._caller.ours("read", error)
                if isinstance(ours, Unreached) or code_of(error) == "DEADLINE_EXCEEDED":
                    raise Unreached(str(ours)) from error
                if not isinstance(ours, DependencyUnavailable) or self._caller.clock.monotonic() + self._look_within_s >= until_s:
                    raise

    def pull(self, max_messages: int, timeout_s: float) -> list[Delivery]:
        """At most `max_messages`; an empty list when none came in time. Transient errors are repeated while `timeout_s` lasts. Raises
        DependencyError, FanoutError."""
        request = self._pull_request(subscription=self._path, max_messages=max_messages)
        until_s = self._caller.clock.monotonic() + timeout_s

        def call(left_s: float) -> list[Delivery]:
            try:
                response = self._send_pull(request, min(left_s, timeout_s))
            except self._caller.failure as error:
                if code_of(error) == "DEADLINE_EXCEEDED":
                    return []
                raise
            return [_delivery(received) for received in response.received_messages]

        try:
            return self._caller.repeated(call, until_s, timeout_s)
        except self._caller.failure as error:
            raise self._caller.ours("pull from", error) from error

    def ack(self, ack_ids: Sequence[str]) -> list[str]:
        """Acknowledge; the ids that Pub/Sub refused. Raises DependencyError, FanoutError."""
        return self._all("acknowledge on", ack_ids, self._send_ack, self._ack_request)

    def extend(self, ack_ids: Sequence[str], deadline_s: float) -> list[str]:
        """Keep the leases for `deadline_s` (1–600) more seconds; the ids that Pub/Sub refused. Raises DependencyError, FanoutError."""
        return self._modify("extend leases on", ack_ids, min(MAX_EXTENSION_S, max(1, ceil(deadline_s))))

    def nack(self, ack_ids: Sequence[str], after_s: float = 0.0) -> list[str]:
        """Release messages, to be delivered again after `after_s` (0–600) seconds; the ids that Pub/Sub refused. Raises ValueError,
        DependencyError, FanoutError."""
        if not 0 <= after_s <= MAX_EXTENSION_S:
            raise ValueError(f"a nack can delay a message by 0 to {MAX_EXTENSION_S} s, got {after_s}")
        return self._modify("nack messages of", ack_ids, ceil(after_s))

    def close(self) -> None:
        """Close the channel; a call that is between two tries ends with its last error."""
        self._caller.closed.set()
        if self._pool is not None:
            self._pool.shutdown(wait=True)
        self._client.transport.close()

    def _modify(self, action: str, ack_ids: Sequence[str], seconds: int) -> list[str]:
        return self._all(action, ack_ids, self._send_modify, partial(self._modify_request, ack_deadline_seconds=seconds))

    def _all(self, action: str, ack_ids: Sequence[str], call: Callable[[Any, float], Any], request: Callable[..., Any]) -> list[str]:
        """Send every batch, several at a time, also when others fail; returns the bad ids. The first other failure is raised at the
        end."""

        def send(ids: list[str], timeout_s: float) -> None:
            call(request(subscription=self._path, ack_ids=ids), timeout_s)

        self._caller.refuse_in_copy()
        batches = list(id_batches(ack_ids))
        one_batch = partial(self._batch, send=send, until_s=self._caller.until_s())
        answers = [one_batch(ids) for ids in batches] if len(batches) < 2 else list(self._threads().map(one_batch, batches))
        failures = [error for _, errors in answers for error in errors]
        if failures:
            raise self._caller.ours(action, failures[0]) from failures[0]
        return [ack_id for bad, _ in answers for ack_id in bad]

    def _batch(self, batch: list[str], *, send: Callable[[list[str], float], None], until_s: float) -> tuple[list[str], list[Exception]]:
        """The bad ids of one batch, and what else went wrong with it."""
        bad: list[str] = []
        failures: list[Exception] = []
        todo = [batch]
        while todo:
            ids = todo.pop(0)
            try:
                self._caller.repeated(partial(send, ids), until_s)
            except self._caller.failure as error:
                verdict = judge_ids(error, ids)
                bad += verdict.bad
                if verdict.pause:
                    self._caller.clock.wait(self._caller.closed, FIRST_PAUSE_S)
                if self._caller.clock.monotonic() < until_s:
                    todo[:0] = verdict.again
                else:
                    bad += [ack_id for batch in verdict.again for ack_id in batch]
                if verdict.failed:
                    failures.append(error)
        return bad, failures

    def _threads(self) -> ThreadPoolExecutor:
        with self._pool_lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(ACKS_IN_FLIGHT, thread_name_prefix=f"acks-{self.name}")
            return self._pool


def _info(found: Any) -> SubscriptionInfo:
    policy = found.dead_letter_policy
    return SubscriptionInfo(
        float(found.ack_deadline_seconds),
        "" if found.topic == DELETED_TOPIC or found.detached else str(found.topic),
        # Without a number Pub/Sub allows 5.
        int(policy.max_delivery_attempts or FALLBACK_DELIVERY_ATTEMPTS) if policy.dead_letter_topic else 0,
        bool(found.enable_message_ordering),
        str(found.filter),
    )


def _delivery(received: Any) -> Delivery:
    message = received.message
    published = message.publish_time
    attributes = message.attributes
    return Delivery(
        received.ack_id,
        message.message_id,
        message.data,
        {name: attributes[name] for name in attributes},  # `dict` takes twice as long
        published.seconds + published.nanos / 1e9,
        received.delivery_attempt,
    )
