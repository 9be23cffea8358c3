"""The service google.pubsub.v1.Subscriber: what it reads from requests and writes into responses.

All state stands in the model. A pull delivers messages only to a client that is still connected.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from google.protobuf.empty_pb2 import Empty
from google.pubsub_v1.types import pubsub

from local_cloud.clock import Clock
from local_cloud.pubsub.messages.delivery import received
from local_cloud.pubsub.model import names, settings
from local_cloud.pubsub.model.pubsub import PubSub
from local_cloud.pubsub.model.refusal import ack_ids_failed, invalid, stopping, too_many_waiting
from local_cloud.pubsub.model.subscription import Subscription
from local_cloud.pubsub.rpc import handlers, limits
from local_cloud.pubsub.rpc.caller import RpcCaller
from local_cloud.pubsub.rpc.snapshots import SnapshotCalls
from local_cloud.pubsub.rpc.stream import Stream

SERVICE = "google.pubsub.v1.Subscriber"
# Fewer than the server has threads: the others are for the calls that do not wait.
WAITING_MAX_COUNT = 1_000

_PULL_RESPONSE = pubsub.PullResponse.pb()
_LIST_RESPONSE = pubsub.ListSubscriptionsResponse.pb()


class Subscriber:
    def __init__(self, model: PubSub, clock: Clock) -> None:
        self._model = model
        self._clock = clock
        self._lock = threading.Lock()
        self._streams: set[Stream] = set()
        self._waiting_slots = threading.BoundedSemaphore(WAITING_MAX_COUNT)
        self._is_stopping = False

    def handlers(self) -> dict[str, Any]:
        """gRPC handlers by method name."""
        return {
            "CreateSubscription": handlers.unary(self._create, pubsub.Subscription),
            "GetSubscription": handlers.unary(self._get, pubsub.GetSubscriptionRequest),
            "UpdateSubscription": handlers.unary(self._update, pubsub.UpdateSubscriptionRequest),
            "ListSubscriptions": handlers.unary(self._list, pubsub.ListSubscriptionsRequest),
            "DeleteSubscription": handlers.unary(self._delete, pubsub.DeleteSubscriptionRequest),
            "Pull": handlers.unary(self._pull, pubsub.PullRequest),
            "Acknowledge": handlers.unary(self._acknowledge, pubsub.AcknowledgeRequest),
            "ModifyAckDeadline": handlers.unary(self._modify_ack_deadline, pubsub.ModifyAckDeadlineRequest),
            "StreamingPull": handlers.streaming(self._streaming_pull, pubsub.StreamingPullRequest),
            "ModifyPushConfig": handlers.missing("push subscriptions"),
            **SnapshotCalls(self._model).handlers(),
        }

    def stop(self) -> None:
        """End all streams in a way that tells clients to connect again; later ones end at once."""
        with self._lock:
            self._is_stopping = True
            streams = list(self._streams)
        for stream in streams:
            stream.end(stopping())

    def _create(self, request: Any, _context: Any) -> Any:
        name = names.check("subscriptions", request.name)
        topic = names.check("topics", request.topic)
        request.ClearField("detached")
        kept, policy = settings.completed(request)
        return self._shown(self._model.create_subscription(name, topic, kept, policy))

    @staticmethod
    def _shown(subscription: Subscription) -> Any:
        return settings.echo(subscription.settings, subscription.topic, subscription.topic_retention_s)

    def _get(self, request: Any, _context: Any) -> Any:
        return self._shown(self._model.subscription(request.subscription))

    def _update(self, request: Any, _context: Any) -> Any:
        subscription = self._model.subscription(request.subscription.name)
        with self._model.changing:
            kept, policy = settings.updated(subscription.settings, request.subscription, request.update_mask.paths)
            self._model.configure(subscription.name, kept, policy)
        return self._shown(subscription)

    def _list(self, request: Any, _context: Any) -> Any:
        found = {subscription.name: subscription for subscription in self._model.subscriptions(names.check_project(request.project))}
        shown, token = limits.page(found, request.page_size, request.page_token)
        return _LIST_RESPONSE(subscriptions=[self._shown(found[name]) for name in shown], next_page_token=token)

    def _delete(self, request: Any, _context: Any) -> Any:
        self._model.delete_subscription(request.subscription)
        return Empty()

    def _pull(self, request: Any, context: Any) -> Any:
        subscription = self._model.subscription(request.subscription)
        limits.check_max_messages(request.max_messages)
        caller = RpcCaller(context, self._clock)
        with self._waiting_slot() as is_free:
            # Without a free slot it does not wait; a pull may always come back empty.
            deliveries = subscription.pull(request.max_messages, caller, wait=is_free and not request.return_immediately)
        response = _PULL_RESPONSE.FromString(received(deliveries, counts_attempts=subscription.policy.max_attempt_count > 0))
        if deliveries and not caller.is_connected():
            subscription.undo_take(deliveries)
        return response

    def _acknowledge(self, request: Any, _context: Any) -> Any:
        subscription = self._model.subscription(request.subscription)
        limits.check_ack_ids(request)
        failed = subscription.acknowledge(request.ack_ids)
        if failed:
            raise ack_ids_failed(failed)
        return Empty()

    def _modify_ack_deadline(self, request: Any, _context: Any) -> Any:
        subscription = self._model.subscription(request.subscription)
        limits.check_deadline(request.ack_deadline_seconds)
        limits.check_ack_ids(request)
        failed = subscription.modify(request.ack_ids, request.ack_deadline_seconds)
        if failed:
            raise ack_ids_failed(failed)
        return Empty()

    def _streaming_pull(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        with self._waiting_slot() as is_free:
            if not is_free:
                raise too_many_waiting(WAITING_MAX_COUNT)
            yield from self._responses(requests, context)

    @contextmanager
    def _waiting_slot(self) -> Iterator[bool]:
        """Whether one more call may keep a thread waiting."""
        is_free = self._waiting_slots.acquire(blocking=False)
        try:
            yield is_free
        finally:
            if is_free:
                self._waiting_slots.release()

    def _responses(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        first = next(requests, None)
        if first is None:
            return
        if not first.subscription:
            raise invalid("The first message of the stream must set subscription.")
        stream = Stream(self._model.subscription(first.subscription), first, requests, RpcCaller(context, self._clock))
        with self._lock:
            if self._is_stopping:
                raise stopping()
            self._streams.add(stream)
        try:
            yield from stream.responses()
        finally:
            with self._lock:
                self._streams.discard(stream)
