"""The service google.pubsub.v1.Publisher: what it reads from requests and writes into responses.

All state stands in the model; nothing here remembers anything between two calls.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.empty_pb2 import Empty
from google.pubsub_v1.types import pubsub

from local_cloud.pubsub.model import names, settings
from local_cloud.pubsub.model.pubsub import PubSub
from local_cloud.pubsub.model.refusal import unsupported
from local_cloud.pubsub.rpc import handlers, limits
from local_cloud.pubsub.rpc.envelope import PublishEnvelope, enveloped

SERVICE = "google.pubsub.v1.Publisher"

_TOPIC = pubsub.Topic.pb()
_DETACH_RESPONSE = pubsub.DetachSubscriptionResponse.pb()
_LIST_SNAPSHOTS_RESPONSE = pubsub.ListTopicSnapshotsResponse.pb()
_PUBLISH_RESPONSE = pubsub.PublishResponse.pb()
_LIST_TOPICS_RESPONSE = pubsub.ListTopicsResponse.pb()
_LIST_SUBSCRIPTIONS_RESPONSE = pubsub.ListTopicSubscriptionsResponse.pb()
_UNSUPPORTED = {
    "ingestion_data_source_settings": "ingestion into topics",
    "message_transforms": "message transforms",
    "schema_settings": "schemas",
}
_MUTABLE = {"labels", "message_retention_duration", "message_storage_policy"}


class Publisher:
    def __init__(self, model: PubSub) -> None:
        self._model = model

    def handlers(self) -> dict[str, Any]:
        """gRPC handlers by method name."""
        return {
            "CreateTopic": handlers.unary(self._create_topic, pubsub.Topic),
            "GetTopic": handlers.unary(self._get_topic, pubsub.GetTopicRequest),
            "ListTopics": handlers.unary(self._list_topics, pubsub.ListTopicsRequest),
            "DeleteTopic": handlers.unary(self._delete_topic, pubsub.DeleteTopicRequest),
            "ListTopicSubscriptions": handlers.unary(self._list_topic_subscriptions, pubsub.ListTopicSubscriptionsRequest),
            "Publish": handlers.unary(self._publish, PublishEnvelope),
            "UpdateTopic": handlers.unary(self._update_topic, pubsub.UpdateTopicRequest),
            "ListTopicSnapshots": handlers.unary(self._list_topic_snapshots, pubsub.ListTopicSnapshotsRequest),
            "DetachSubscription": handlers.unary(self._detach, pubsub.DetachSubscriptionRequest),
        }

    def _create_topic(self, request: Any, _context: Any) -> Any:
        name = names.check("topics", request.name)
        _check_topic(request)
        self._model.create_topic(name, request.SerializeToString())
        return request

    def _update_topic(self, request: Any, _context: Any) -> Any:
        with self._model.changing:
            kept = _TOPIC.FromString(self._model.topic(request.topic.name).settings)
            settings.merge(kept, request.topic, request.update_mask, _MUTABLE, _UNSUPPORTED)
            _check_topic(kept)
            self._model.configure_topic(kept.name, kept.SerializeToString())
        return kept

    def _get_topic(self, request: Any, _context: Any) -> Any:
        return _TOPIC.FromString(self._model.topic(request.topic).settings)

    def _list_topics(self, request: Any, _context: Any) -> Any:
        topics = {topic.name: topic for topic in self._model.topics(names.check_project(request.project))}
        shown, token = limits.page(topics, request.page_size, request.page_token)
        response = _LIST_TOPICS_RESPONSE(next_page_token=token)
        for name in shown:
            response.topics.add().ParseFromString(topics[name].settings)
        return response

    def _delete_topic(self, request: Any, _context: Any) -> Any:
        self._model.delete_topic(request.topic)
        return Empty()

    def _list_topic_subscriptions(self, request: Any, _context: Any) -> Any:
        found = sorted(subscription.name for subscription in self._model.topic(request.topic).subscriptions())
        shown, token = limits.page(found, request.page_size, request.page_token)
        return _LIST_SUBSCRIPTIONS_RESPONSE(subscriptions=shown, next_page_token=token)

    def _list_topic_snapshots(self, request: Any, _context: Any) -> Any:
        found = sorted(snapshot.name for snapshot in self._model.topic(request.topic).snapshots())
        shown, token = limits.page(found, request.page_size, request.page_token)
        return _LIST_SNAPSHOTS_RESPONSE(snapshots=shown, next_page_token=token)

    def _detach(self, request: Any, _context: Any) -> Any:
        subscription = self._model.subscription(request.subscription)
        with self._model.changing:
            self._model.detach(subscription.name, *settings.detached(subscription.settings))
        return _DETACH_RESPONSE()

    def _publish(self, request: Any, _context: Any) -> Any:
        self._model.topic(request.topic)
        publication = self._model.publish_bodies(request.topic, limits.checked_bodies(enveloped(request)))
        return _PUBLISH_RESPONSE(message_ids=list(map(str, publication.ids)))


def _check_topic(raw: Any) -> None:
    """Of a raw Topic; takes away what is for requests only."""
    present = {field.name for field, _value in raw.ListFields()}
    for field, what in _UNSUPPORTED.items():
        if field in present:
            raise unsupported(what)
    if raw.HasField("message_retention_duration"):
        settings.check_retention(raw.message_retention_duration.ToSeconds())
    raw.ClearField("tags")
