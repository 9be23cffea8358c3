"""The service google.pubsub.v1.Subscriber: what it reads from requests and writes into responses.

All state stands in the model. A pull hands messages only to a client that is still there.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.empty_pb2 import Empty
from google.pubsub_v1.types import pubsub

from local_cloud.clock import Clock
from local_cloud.pubsub import limits, names, rpc, settings
from local_cloud.pubsub.caller import RpcCaller
from local_cloud.pubsub.delivery import Delivery
from local_cloud.pubsub.model import PubSub
from local_cloud.pubsub.subscription import Subscription

SERVICE = "google.pubsub.v1.Subscriber"

_PULL_RESPONSE = pubsub.PullResponse.pb()
_LIST_RESPONSE = pubsub.ListSubscriptionsResponse.pb()


class Subscriber:
    def __init__(self, model: PubSub, clock: Clock) -> None:
        self._model = model
        self._clock = clock

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
            "StreamingPull": rpc.missing("StreamingPull (use Pull)", streaming=True),
            "ModifyPushConfig": rpc.missing("push subscriptions"),
            "Seek": rpc.missing("seek"),
            **{f"{verb}Snapshot": rpc.missing("snapshots") for verb in ("Create", "Get", "Update", "Delete")},
            "ListSnapshots": rpc.missing("snapshots"),
        }

    def _create(self, request: Any, _context: Any) -> Any:
        name = names.check("subscriptions", request.name)
        topic = names.check("topics", request.topic)
        kept, policy = settings.completed(request)
        return self._shown(self._model.create_subscription(name, topic, kept, policy))

    @staticmethod
    def _shown(subscription: Subscription) -> Any:
        return settings.echo(subscription.settings, subscription.topic)

    def _get(self, request: Any, _context: Any) -> Any:
        return self._shown(self._model.subscription(request.subscription))

    def _update(self, request: Any, _context: Any) -> Any:
        subscription = self._model.subscription(request.subscription.name)
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
        deliveries = subscription.pull(request.max_messages, caller, wait=not request.return_immediately)
        response = _pull_response(deliveries, counts_attempts=subscription.policy.max_attempt_count > 0)
        if deliveries and not caller.is_there():
            subscription.give_back(deliveries)
        return response

    def _acknowledge(self, request: Any, _context: Any) -> Any:
        subscription = self._model.subscription(request.subscription)
        limits.check_ack_ids(request)
        subscription.acknowledge(request.ack_ids)
        return Empty()

    def _modify_ack_deadline(self, request: Any, _context: Any) -> Any:
        subscription = self._model.subscription(request.subscription)
        limits.check_deadline(request.ack_deadline_seconds)
        limits.check_ack_ids(request)
        subscription.modify(request.ack_ids, request.ack_deadline_seconds)
        return Empty()


def _pull_response(deliveries: list[Delivery], *, counts_attempts: bool) -> Any:
    response = _PULL_RESPONSE()
    add = response.received_messages.add
    for delivery in deliveries:
        received = add()
        received.ack_id = delivery.ack_id
        received.message.ParseFromString(delivery.message.body)
        if counts_attempts:
            received.delivery_attempt = delivery.failure_count + 1
    return response
