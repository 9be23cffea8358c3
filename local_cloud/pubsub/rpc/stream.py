"""One StreamingPull: what it delivers, and what its client answers.

The rule: it never has more outstanding than its client allowed, and messages go only to a client that is still connected.
https://cloud.google.com/pubsub/docs/reference/rpc/google.pubsub.v1#streamingpullrequest
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from typing import Any

import grpc
from google.pubsub_v1.types import pubsub

from local_cloud.pubsub.messages.delivery import Delivery, received
from local_cloud.pubsub.messages.flow_control import FlowControl
from local_cloud.pubsub.model.refusal import Refusal, invalid
from local_cloud.pubsub.model.subscription import Caller, Subscription
from local_cloud.pubsub.rpc import limits

# Below the 4 MB that a client accepts; more would gain nothing.
_RESPONSE_MAX_BYTES = 1_000_000
_ONLY_FIRST = ("subscription", "client_id", "max_outstanding_messages", "max_outstanding_bytes", "protocol_version")

_RESPONSE = pubsub.StreamingPullResponse.pb()


class Stream:
    """`responses` runs in the thread of the call; another one reads the client's requests meanwhile."""

    def __init__(self, subscription: Subscription, first: Any, requests: Iterator[Any], caller: Caller) -> None:
        """`first` is the raw first StreamingPullRequest, `requests` are those that follow. Raises an INVALID_ARGUMENT refusal."""
        limits.check_stream_deadline(first.stream_ack_deadline_seconds)
        self._subscription = subscription
        self._first = first
        self._requests = requests
        self._caller = caller
        self._wake = threading.Event()
        self._flow = FlowControl(first.max_outstanding_messages, first.max_outstanding_bytes, self._wake)
        self._ack_deadline_s = float(first.stream_ack_deadline_seconds)
        self._confirmations: deque[Any] = deque()
        self._refusal: Refusal | None = None
        self._is_over = False

    def end(self, refusal: Refusal | None) -> None:
        """Make `responses` end: with an error, or (None) without one."""
        self._refusal = self._refusal or refusal
        self._is_over = True
        self._wake.set()

    def responses(self) -> Iterator[Any]:
        """Raw StreamingPullResponses until the client has gone, or `end`. Raises refusals."""
        self._subscription.join(self._wake)
        self._caller.on_disconnect(self._wake.set)
        threading.Thread(target=self._listen, name="stream", daemon=True).start()
        try:
            while True:
                # Cleared before it looks, so that an event after that sets it again.
                self._wake.clear()
                if not self._caller.is_connected():
                    return
                if self._is_over:
                    # What was acknowledged is confirmed, however the stream ends.
                    while self._confirmations:
                        yield self._confirmations.popleft()
                    if self._refusal is not None:
                        raise self._refusal
                    return
                response = self._next()
                if response is None:
                    self._wake.wait()
                else:
                    yield response
        finally:
            self._subscription.leave(self._wake)

    def _next(self) -> Any:
        if self._confirmations:
            return self._confirmations.popleft()
        taken = self._subscription.take_for(self._wake, self._flow, self._ack_deadline_s, _RESPONSE_MAX_BYTES)
        if taken and not self._caller.is_connected():
            self._subscription.undo_take(taken)
            taken = []
        return self._with_messages(taken) if taken else None

    def _with_messages(self, taken: list[Delivery]) -> Any:
        response = self._empty()
        response.MergeFromString(received(taken, counts_attempts=self._subscription.policy.max_attempt_count > 0))
        return response

    def _empty(self) -> Any:
        policy = self._subscription.policy
        response = _RESPONSE()
        response.subscription_properties.exactly_once_delivery_enabled = policy.is_exactly_once
        response.subscription_properties.message_ordering_enabled = policy.is_ordered
        return response

    def _listen(self) -> None:
        try:
            self._apply(self._first)
            for request in self._requests:
                self._check_later(request)
                self._apply(request)
        except Refusal as refusal:
            self.end(refusal)
        except grpc.RpcError:
            # So the iterator says that the client has gone; its messages stay leased until their deadline.
            self.end(None)
        else:
            self.end(None)

    @staticmethod
    def _check_later(request: Any) -> None:
        for field in _ONLY_FIRST:
            if getattr(request, field):
                raise invalid(f"{field} may only be set in the first message of the stream.")
        if request.stream_ack_deadline_seconds:
            limits.check_stream_deadline(request.stream_ack_deadline_seconds)

    def _apply(self, request: Any) -> None:
        """Apply acknowledgements and deadlines; a request without any only says that the client lives."""
        if request.stream_ack_deadline_seconds:
            self._ack_deadline_s = float(request.stream_ack_deadline_seconds)
        limits.check_stream_deadlines(request)
        if request.ack_ids:
            self._confirm("acknowledge_confirmation", request.ack_ids, self._subscription.acknowledge(request.ack_ids))
        by_seconds: dict[int, list[str]] = {}
        for ack_id, seconds in zip(request.modify_deadline_ack_ids, request.modify_deadline_seconds, strict=True):
            by_seconds.setdefault(seconds, []).append(ack_id)
        for seconds, ack_ids in by_seconds.items():
            self._confirm("modify_ack_deadline_confirmation", ack_ids, self._subscription.modify(ack_ids, seconds))

    def _confirm(self, field: str, ack_ids: list[str], failed: list[str]) -> None:
        if not self._subscription.policy.is_exactly_once:
            return
        response, invalid_ids = self._empty(), set(failed)
        confirmation = getattr(response, field)
        confirmation.ack_ids.extend(ack_id for ack_id in ack_ids if ack_id not in invalid_ids)
        confirmation.invalid_ack_ids.extend(failed)
        self._confirmations.append(response)
        self._wake.set()
