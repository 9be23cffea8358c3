"""The service google.pubsub.v1.Subscriber: what it reads from requests and writes into responses.

All state stands in the model. A pull hands messages only to a client that is still there.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from google.protobuf.empty_pb2 import Empty
from google.pubsub_v1.types import pubsub

from local_cloud.clock import Clock
from local_cloud.pubsub import limits, names, rpc, settings
from local_cloud.pubsub.caller import RpcCaller
from local_cloud.pubsub.model import PubSub
from local_cloud.pubsub.refusal import ack_ids_failed, invalid, stopping, too_many_waiting
from local_cloud.pubsub.snapshot_calls import SnapshotCalls
from local_cloud.pubsub.stream import Stream
from local_cloud.pubsub.subscription import Subscription
from local_cloud.pubsub.wire import received

SERVICE = "google.pubsub.v1.Subscriber"
# Less than the server has threads: the others are for all other calls, which do not wait for anybody.
WAITING_MAX_COUNT = 1_000

_PULL_RESPONSE = pubsub.PullResponse.pb()
_LIST_RESPONSE = pubsub.ListSubscriptionsResponse.pb()


class Subscriber:
    def __init__(self, model: PubSub, clock: Clock) -> None:
        self._model = model
        self._clock = clock
        self._lock = threading.Lock()
        self._streams: set[Stream] = set()
        self._seats = threading.BoundedSemaphore(WAITING_MAX_COUNT)
        self._is_stopping = False

    def handlers(self) -> dict[str, Any]:
        """gRPC handlers by method name."""
        return {
            "CreateSubscription": rpc.unary(self._create, pubsub.Subscription),
            "GetSubscription": rpc.unary(self._get, pubsub.GetSubscriptionRequest),
            "UpdateSubscription": rpc.unary(self._update, pubsub.UpdateSubscriptionRequest),
            "ListSubscriptions": rpc.unary(self._list, pubsub.ListSubscriptionsRequest),
            "DeleteSubscription": rpc.unary(self._delete, pubsub.DeleteSubscriptionRequest),
            "Pull": rpc.unary(self._pull, pubsub.PullRequest),
            "Acknowledge": rpc.unary(self._acknowledge, pubsub.AcknowledgeRequest),
            "ModifyAckDeadline": rpc.unary(self._modify_ack_deadline, pubsub.ModifyAckDeadlineRequest),
            "StreamingPull": rpc.streaming(self._streaming_pull, pubsub.StreamingPullRequest),
            "ModifyPushConfig": rpc.missing("push subscriptions"),
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
        with self._seat() as is_free:
            # One caller too many gets what there is; a pull may always come back empty.
            deliveries = subscription.pull(request.max_messages, caller, wait=is_free and not request.return_immediately)
        response = _PULL_RESPONSE.FromString(received(deliveries, counts_attempts=subscription.policy.max_attempt_count > 0))
        if deliveries and not caller.is_there():
            subscription.give_back(deliveries)
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
        with self._seat() as is_free:
            if not is_free:
                raise too_many_waiting(WAITING_MAX_COUNT)
            yield from self._responses(requests, context)

    @contextmanager
    def _seat(self) -> Iterator[bool]:
        """Whether one more call may keep a thread waiting; each call that does needs one."""
        is_free = self._seats.acquire(blocking=False)
        try:
            yield is_free
        finally:
            if is_free:
                self._seats.release()

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
