"""Which gRPC method a path of Pub/Sub's REST form means.

The rule: a path that is not in the table is refused by name. Source: the `google.api.http` options of google/pubsub/v1/pubsub.proto.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import grpc
from google.pubsub_v1.types import pubsub

from local_cloud.pubsub.local_context import Aborted


@dataclass(frozen=True, slots=True)
class RestCall:
    """`request_type` is the raw class; `name` belongs into its field `name_field`, a path with dots."""

    method: str
    request_type: Any
    name_field: str
    name: str


_PATH = re.compile(r"(projects/[^/]+)/(topics|subscriptions|snapshots)(?:/([^/:]+)(?:/(subscriptions|snapshots)|:(\w+))?)?")

# By HTTP method and form of the path; {} is one name.
_CALLS: dict[tuple[str, str], tuple[str, Any, str]] = {
    ("PUT", "topics/{}"): ("CreateTopic", pubsub.Topic, "name"),
    ("PATCH", "topics/{}"): ("UpdateTopic", pubsub.UpdateTopicRequest, "topic.name"),
    ("GET", "topics/{}"): ("GetTopic", pubsub.GetTopicRequest, "topic"),
    ("GET", "topics"): ("ListTopics", pubsub.ListTopicsRequest, "project"),
    ("DELETE", "topics/{}"): ("DeleteTopic", pubsub.DeleteTopicRequest, "topic"),
    ("POST", "topics/{}:publish"): ("Publish", pubsub.PublishRequest, "topic"),
    ("GET", "topics/{}/subscriptions"): ("ListTopicSubscriptions", pubsub.ListTopicSubscriptionsRequest, "topic"),
    ("GET", "topics/{}/snapshots"): ("ListTopicSnapshots", pubsub.ListTopicSnapshotsRequest, "topic"),
    ("PUT", "subscriptions/{}"): ("CreateSubscription", pubsub.Subscription, "name"),
    ("PATCH", "subscriptions/{}"): ("UpdateSubscription", pubsub.UpdateSubscriptionRequest, "subscription.name"),
    ("GET", "subscriptions/{}"): ("GetSubscription", pubsub.GetSubscriptionRequest, "subscription"),
    ("GET", "subscriptions"): ("ListSubscriptions", pubsub.ListSubscriptionsRequest, "project"),
    ("DELETE", "subscriptions/{}"): ("DeleteSubscription", pubsub.DeleteSubscriptionRequest, "subscription"),
    ("POST", "subscriptions/{}:pull"): ("Pull", pubsub.PullRequest, "subscription"),
    ("POST", "subscriptions/{}:acknowledge"): ("Acknowledge", pubsub.AcknowledgeRequest, "subscription"),
    ("POST", "subscriptions/{}:modifyAckDeadline"): ("ModifyAckDeadline", pubsub.ModifyAckDeadlineRequest, "subscription"),
    ("POST", "subscriptions/{}:seek"): ("Seek", pubsub.SeekRequest, "subscription"),
    ("POST", "subscriptions/{}:detach"): ("DetachSubscription", pubsub.DetachSubscriptionRequest, "subscription"),
    ("PUT", "snapshots/{}"): ("CreateSnapshot", pubsub.CreateSnapshotRequest, "name"),
    ("PATCH", "snapshots/{}"): ("UpdateSnapshot", pubsub.UpdateSnapshotRequest, "snapshot.name"),
    ("GET", "snapshots/{}"): ("GetSnapshot", pubsub.GetSnapshotRequest, "snapshot"),
    ("GET", "snapshots"): ("ListSnapshots", pubsub.ListSnapshotsRequest, "project"),
    ("DELETE", "snapshots/{}"): ("DeleteSnapshot", pubsub.DeleteSnapshotRequest, "snapshot"),
}
METHODS = frozenset(method for method, _, _ in _CALLS.values())


def find(http_method: str, path: str) -> RestCall:
    """`path` is what follows `/v1/`. Raises Aborted when the local Pub/Sub has no such method."""
    matched = _PATH.fullmatch(path)
    if matched:
        project, collection, name, below, action = matched.groups()
        form = collection + ("/{}" if name else "") + (f"/{below}" if below else "") + (f":{action}" if action else "")
        if (http_method, form) in _CALLS:
            method, request_type, name_field = _CALLS[http_method, form]
            return RestCall(method, request_type.pb(), name_field, f"{project}/{collection}/{name}" if name else project)
    raise Aborted(grpc.StatusCode.UNIMPLEMENTED, f"The local Pub/Sub has no {http_method} /v1/{path}.")
