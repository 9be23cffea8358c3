"""One subscription and one topic of Pub/Sub, through Google's unary calls. Every error of Google leaves as one of `batch.model.errors`.

Each call has a deadline, and retries are ours (`retry=None` below): so nothing hangs, and one bad ack id or one failed
request never loses the others. Messages are read and written as raw protobuf; the objects around it cost more than the work.
Google's packages are imported when a client is made: importing this module stays cheap.
"""

from __future__ import annotations

import logging
import os
import random
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Any, TypeVar

from batch.model.clock import Clock, SystemClock
from batch.model.delivery import MAX_ACK_IDS, MAX_ACK_REQUEST_BYTES, MAX_EXTENSION_S, Delivery, Outgoing
from batch.model.errors import DependencyForbidden, DependencyMissing, DependencyUnavailable, FanoutError
from batch.services.bad_ids import code_of, judge_ids
from batch.services.google_calls import raw_call

T = TypeVar("T")

REQUEST_TIMEOUT_S = 10.0
RETRY_WITHIN_S = 30.0
FIRST_DELAY_S = 0.1
MAX_DELAY_S = 4.0
FALLBACK_ACK_DEADLINE_S = 60.0
MAX_PUBLISH_MESSAGES = 1000
MAX_PUBLISH_BYTES = 9_500_000
PUBLISH_TIMEOUT_S = 20.0
PUBLISHES_IN_FLIGHT = 4
ACKS_IN_FLIGHT = 4
"""Requests of one call; each takes a round trip, and a worker that stops has thousands of messages to hand back within a second."""
_ID_OVERHEAD_BYTES = 4
_REQUEST_OVERHEAD_BYTES = 1024
_MESSAGE_OVERHEAD_BYTES = 64

_TRANSIENT = frozenset({"UNAVAILABLE", "ABORTED", "CANCELLED", "DEADLINE_EXCEEDED", "INTERNAL", "RESOURCE_EXHAUSTED", "UNKNOWN"})

_log = logging.getLogger("fanout.pubsub")


@dataclass(frozen=True, slots=True)
class Resource:
    """A subscription or topic, for the messages."""

    kind: str
    project: str
    name: str

    @property
    def path(self) -> str:
        return f"projects/{self.project}/{self.kind}s/{self.name}"


def translated(action: str, resource: Resource, code: str, detail: str) -> FanoutError:
    """Our error for a gRPC status code's name."""
    detail = " ".join(detail.split())[:500]
    what = f"cannot {action} {resource.kind} {resource.path}"
    if code == "NOT_FOUND":
        creation = f"gcloud pubsub {resource.kind}s create {resource.name} --project={resource.project}"
        if resource.kind == "subscription":
            creation += " --topic=<its topic>"
        return DependencyMissing(
            f"{what}: {resource.kind} {resource.path} does not exist: create it with `{creation}`, or fix {resource.kind.upper()}_NAME"
        )
    if code in ("PERMISSION_DENIED", "UNAUTHENTICATED"):
        role = "roles/pubsub.subscriber" if resource.kind == "subscription" else "roles/pubsub.publisher"
        return DependencyForbidden(f"{what}: refused ({code}): grant this identity {role} on it, or run as another identity: {detail}")
    if code in _TRANSIENT:
        return DependencyUnavailable(f"{what}: Pub/Sub answered {code} until the time for retries was over; try again later: {detail}")
    return FanoutError(f"{what}: Pub/Sub refused the request ({code}); repeating it cannot help: {detail}")


def id_batches(ack_ids: Iterable[str]) -> Iterator[list[str]]:
    """Requests of at most 1,000 ids that stay below 512 KiB, in order."""
    return _batches(ack_ids, lambda ack_id: len(ack_id) + _ID_OVERHEAD_BYTES, MAX_ACK_IDS, MAX_ACK_REQUEST_BYTES - _REQUEST_OVERHEAD_BYTES)


def message_batches(messages: Iterable[Outgoing]) -> Iterator[list[Outgoing]]:
    """Requests of at most 1,000 messages and 9.5 MB, in order; a message above that travels alone."""
    return _batches(messages, _message_bytes, MAX_PUBLISH_MESSAGES, MAX_PUBLISH_BYTES)


def _message_bytes(message: Outgoing) -> int:
    attributes = sum(len(key.encode()) + len(value.encode()) + 8 for key, value in message.attributes.items())
    return len(message.data) + attributes + _MESSAGE_OVERHEAD_BYTES


def _batches(items: Iterable[T], size_of: Callable[[T], int], max_count: int, max_bytes: int) -> Iterator[list[T]]:
    batch: list[T] = []
    total = 0
    for item in items:
        size = size_of(item)
        if batch and (len(batch) >= max_count or total + size > max_bytes):
            yield batch
            batch, total = [], 0
        batch.append(item)
        total += size
    if batch:
        yield batch


class _Caller:
    """Runs requests about one resource: repeats what may pass, translates what does not. Safe from any thread."""

    def __init__(self, resource: Resource, clock: Clock | None, rng: random.Random | None) -> None:
        from google.api_core import exceptions as api_errors

        self.resource = resource
        self.clock: Clock = clock or SystemClock()
        self.rng = rng or random.Random()
        self.closed = threading.Event()
        self.failure: type[Exception] = api_errors.GoogleAPICallError

    def repeated(self, call: Callable[[float], T], *, request_timeout_s: float, until_s: float) -> T:
        """`call(timeout_s)` until it succeeds, fails for good, or the clock passes `until_s`; it runs at least once."""
        delay_s = FIRST_DELAY_S
        while True:
            left_s = until_s - self.clock.monotonic()
            try:
                return call(max(1.0, min(request_timeout_s, left_s)))
            except self.failure as error:
                pause_s = delay_s * self.rng.uniform(0.5, 1.5)
                hopeless = code_of(error) not in _TRANSIENT or self.closed.is_set()
                if hopeless or self.clock.monotonic() + pause_s >= until_s:
                    raise
            self.clock.wait(self.closed, pause_s)
            delay_s = min(MAX_DELAY_S, delay_s * 2)

    def ours(self, action: str, error: Exception) -> FanoutError:
        return translated(action, self.resource, code_of(error), str(error))


class GoogleSubscription:
    """Implements `batch.services.ports.Subscription`; may be used from any thread.

    `retry_within_s` bounds the retries of one call. PUBSUB_EMULATOR_HOST sends everything there, without credentials.
    Raises DependencyForbidden when there are no credentials.
    """

    def __init__(
        self,
        project: str,
        name: str,
        *,
        retry_within_s: float = RETRY_WITHIN_S,
        request_timeout_s: float = REQUEST_TIMEOUT_S,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        from google import pubsub_v1
        from google.protobuf.empty_pb2 import Empty
        from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

        self.name = name
        self._caller = _Caller(Resource("subscription", project, name), clock, rng)
        self._client: Any = _client(pubsub_v1.SubscriberClient, SubscriberGrpcTransport, self._caller.resource)
        self._pull_request: Any = pubsub_v1.PullRequest.pb()
        self._ack_request: Any = pubsub_v1.AcknowledgeRequest.pb()
        self._modify_request: Any = pubsub_v1.ModifyAckDeadlineRequest.pb()
        self._send_pull = self._call("Pull", self._pull_request, pubsub_v1.PullResponse.pb())
        self._send_ack = self._call("Acknowledge", self._ack_request, Empty)
        self._send_modify = self._call("ModifyAckDeadline", self._modify_request, Empty)
        self._retry_within_s = retry_within_s
        self._request_timeout_s = request_timeout_s
        self._path = self._caller.resource.path
        self._ack_deadline_s: float | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._pool_lock = threading.Lock()

    def _call(self, method: str, request: Any, response: Any) -> Callable[[Any, float], Any]:
        return raw_call(
            self._client, f"/google.pubsub.v1.Subscriber/{method}", request, response, ("subscription", self._caller.resource.path)
        )

    @property
    def ack_deadline_s(self) -> float:
        """The subscription's own, read once; 60 when this identity may pull but not look. Raises DependencyError."""
        if self._ack_deadline_s is None:
            self._ack_deadline_s = self._read_ack_deadline_s()
        return self._ack_deadline_s

    @ack_deadline_s.setter
    def ack_deadline_s(self, value: float) -> None:
        self._ack_deadline_s = value

    def _read_ack_deadline_s(self) -> float:
        def call(timeout_s: float) -> float:
            found = self._client.get_subscription(subscription=self._path, retry=None, timeout=timeout_s)
            return float(found.ack_deadline_seconds)

        try:
            return self._repeated(call)
        except self._caller.failure as error:
            ours = self._caller.ours("read", error)
            if not isinstance(ours, DependencyForbidden):
                raise ours from error
            _log.warning("%s; leases are extended as if its ack deadline were %g s", ours, FALLBACK_ACK_DEADLINE_S)
            return FALLBACK_ACK_DEADLINE_S

    def pull(self, max_messages: int, timeout_s: float) -> list[Delivery]:
        """At most `max_messages`; transient errors are repeated while `timeout_s` lasts, and raised if the last word is one."""
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
            return self._caller.repeated(call, request_timeout_s=timeout_s, until_s=until_s)
        except self._caller.failure as error:
            raise self._caller.ours("pull from", error) from error

    def ack(self, ack_ids: Sequence[str]) -> list[str]:
        def send(ids: list[str], timeout_s: float) -> None:
            self._send_ack(self._ack_request(subscription=self._path, ack_ids=ids), timeout_s)

        return self._all("acknowledge on", ack_ids, send)

    def extend(self, ack_ids: Sequence[str], deadline_s: float) -> list[str]:
        return self._modify("extend leases on", ack_ids, min(MAX_EXTENSION_S, max(1, ceil(deadline_s))))

    def nack(self, ack_ids: Sequence[str], after_s: float = 0.0) -> list[str]:
        """Raises ValueError when `after_s` is not within 0–600."""
        if not 0 <= after_s <= MAX_EXTENSION_S:
            raise ValueError(f"a message can be handed back for 0 to {MAX_EXTENSION_S} s, got {after_s}")
        return self._modify("hand back messages to", ack_ids, ceil(after_s))

    def close(self) -> None:
        """Close the channel; a call that is between two tries ends with its last error."""
        self._caller.closed.set()
        if self._pool is not None:
            self._pool.shutdown(wait=True)
        self._client.transport.close()

    def _modify(self, action: str, ack_ids: Sequence[str], seconds: int) -> list[str]:
        def send(ids: list[str], timeout_s: float) -> None:
            self._send_modify(self._modify_request(subscription=self._path, ack_ids=ids, ack_deadline_seconds=seconds), timeout_s)

        return self._all(action, ack_ids, send)

    def _all(self, action: str, ack_ids: Sequence[str], send: Callable[[list[str], float], None]) -> list[str]:
        """Send every batch, several at a time, whatever becomes of the others; returns the bad ids. The first other failure is raised
        at the end."""
        until_s = self._caller.clock.monotonic() + self._retry_within_s
        batches = list(id_batches(ack_ids))
        one_batch = partial(self._batch, send=send, until_s=until_s)
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
                self._repeated(partial(send, ids), until_s)
            except self._caller.failure as error:
                verdict = judge_ids(error, ids)
                bad += verdict.bad
                if verdict.pause:
                    self._caller.clock.wait(self._caller.closed, FIRST_DELAY_S)
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

    def _repeated(self, call: Callable[[float], T], until_s: float | None = None) -> T:
        if until_s is None:
            until_s = self._caller.clock.monotonic() + self._retry_within_s
        return self._caller.repeated(call, request_timeout_s=self._request_timeout_s, until_s=until_s)


class GoogleTopic:
    """Implements `batch.services.ports.Topic`; may be used from any thread. Batches travel several at a time."""

    def __init__(
        self,
        project: str,
        name: str,
        *,
        retry_within_s: float = RETRY_WITHIN_S,
        request_timeout_s: float = PUBLISH_TIMEOUT_S,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        from google import pubsub_v1
        from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport

        self.name = name
        self._caller = _Caller(Resource("topic", project, name), clock, rng)
        self._client: Any = _client(pubsub_v1.PublisherClient, PublisherGrpcTransport, self._caller.resource)
        self._request: Any = pubsub_v1.PublishRequest
        self._message: Any = pubsub_v1.PubsubMessage.pb()
        self._retry_within_s = retry_within_s
        self._request_timeout_s = request_timeout_s
        self._pool = ThreadPoolExecutor(PUBLISHES_IN_FLIGHT, thread_name_prefix=f"publish-{name}")

    def publish(self, messages: Sequence[Outgoing]) -> list[str]:
        """A batch whose answer was lost is published again: some messages may then be there twice."""
        batches = list(message_batches(messages))
        if len(batches) == 1:
            return self._publish(batches[0])
        return [message_id for ids in self._pool.map(self._publish, batches) for message_id in ids]

    def close(self) -> None:
        """Close the channel and its threads; a call that is between two tries ends with its last error."""
        self._caller.closed.set()
        self._pool.shutdown(wait=True)
        self._client.transport.close()

    def _publish(self, batch: list[Outgoing]) -> list[str]:
        raw = self._request.pb()(
            topic=self._caller.resource.path,
            messages=[self._message(data=one.data, attributes=dict(one.attributes)) for one in batch],
        )
        request = self._request.wrap(raw)

        def call(timeout_s: float) -> list[str]:
            return list(self._client.publish(request, retry=None, timeout=timeout_s)._pb.message_ids)

        until_s = self._caller.clock.monotonic() + self._retry_within_s
        try:
            return self._caller.repeated(call, request_timeout_s=self._request_timeout_s, until_s=until_s)
        except self._caller.failure as error:
            raise self._caller.ours("publish to", error) from error


def _client(kind: Any, transport: Any, resource: Resource) -> Any:
    """A GAPIC client; with PUBSUB_EMULATOR_HOST on a plain channel, which Google's generated clients do not do by themselves."""
    from google.auth.exceptions import GoogleAuthError

    emulator = os.environ.get("PUBSUB_EMULATOR_HOST")
    if emulator:
        import grpc

        options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        return kind(transport=transport(channel=grpc.insecure_channel(emulator, options=options)))
    try:
        return kind()
    except GoogleAuthError as error:
        raise DependencyForbidden(
            f"cannot use {resource.kind} {resource.path}: there are no usable Google credentials; on a laptop run "
            f"`gcloud auth application-default login`, or set PUBSUB_EMULATOR_HOST for a local one: {error}"
        ) from error


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
