"""Pub/Sub's REST form, as gcloud speaks it: JSON in and out, over the same handlers as gRPC.

The rule: nothing is decided here. A call over REST has the effect and the refusals of the same call over gRPC, faults included; a path
that is not in the table is refused by name.
Paths and bodies: https://cloud.google.com/pubsub/docs/reference/rest; the table is that of the `google.api.http` options in
google/pubsub/v1/pubsub.proto.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any

import anyio.to_thread
import grpc
from anyio import CapacityLimiter
from google.protobuf import json_format
from google.pubsub_v1.types import pubsub
from google.rpc import status_pb2
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from local_cloud.pubsub.rpc.context import Aborted, LocalContext
from local_cloud.web.connection import until_gone

# How long a pull waits for messages, in real time: a request over HTTP has no deadline, and behind gcloud there is a person.
_WAIT_LIMIT_S = 3.0
# As many calls at a time; a pull that waits is one of them.
_THREAD_COUNT = 100
_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
# Parameters of every method of Google's REST interfaces; they change nothing here.
_SYSTEM_PARAMETERS = {"alt", "$alt", "key", "access_token", "oauth_token", "fields", "prettyPrint", "quotaUser", "uploadType", "$.xgafv"}
_STATUS = grpc.StatusCode
# https://cloud.google.com/apis/design/errors#handling_errors, but for UNIMPLEMENTED: gcloud tries again for minutes on its 501.
_HTTP_CODES = {
    _STATUS.INVALID_ARGUMENT: 400,
    _STATUS.FAILED_PRECONDITION: 400,
    _STATUS.OUT_OF_RANGE: 400,
    _STATUS.UNIMPLEMENTED: 400,
    _STATUS.UNAUTHENTICATED: 401,
    _STATUS.PERMISSION_DENIED: 403,
    _STATUS.NOT_FOUND: 404,
    _STATUS.ALREADY_EXISTS: 409,
    _STATUS.ABORTED: 409,
    _STATUS.RESOURCE_EXHAUSTED: 429,
    _STATUS.CANCELLED: 499,
    _STATUS.UNAVAILABLE: 503,
    _STATUS.DEADLINE_EXCEEDED: 504,
}
_DETAILS_KEY = "grpc-status-details-bin"
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


def rest_route(handlers: Mapping[str, Any]) -> Route:
    """Everything below `/v1/`. `handlers` are those of the gRPC server, by method name."""
    limiter = CapacityLimiter(_THREAD_COUNT)

    async def endpoint(request: Request) -> JSONResponse:
        context = LocalContext(waits=True)
        try:
            method, request_type, name_field, name = find(request.method, request.path_params["rest"])
            message = _message(request_type(), name_field, name, await request.body(), request.query_params)
        except Aborted as refused:
            return _error(refused)
        # A client that has gone gets no messages.
        watch = asyncio.create_task(_disconnect_with(request, context))
        timer = asyncio.get_running_loop().call_later(_WAIT_LIMIT_S, context.stop_waiting)
        try:
            handle = handlers[method].unary_unary
            response = await anyio.to_thread.run_sync(handle, message, context, limiter=limiter, abandon_on_cancel=True)
        except Aborted as refused:
            return _error(refused)
        finally:
            watch.cancel()
            timer.cancel()
            context.disconnect()
        return JSONResponse(json_format.MessageToDict(response))

    return Route("/v1/{rest:path}", endpoint, methods=_METHODS)


async def _disconnect_with(request: Request, context: LocalContext) -> None:
    await until_gone(request.receive)
    context.disconnect()


def find(http_method: str, path: str) -> tuple[str, Any, str, str]:
    """The gRPC method, its raw request class, and the field (a path with dots) into which a name belongs, and that name.

    `path` is what follows `/v1/`. Raises Aborted when the local Pub/Sub has no such method.
    """
    matched = _PATH.fullmatch(path)
    if matched:
        project, collection, name, below, action = matched.groups()
        form = collection + ("/{}" if name else "") + (f"/{below}" if below else "") + (f":{action}" if action else "")
        if (http_method, form) in _CALLS:
            method, request_type, name_field = _CALLS[http_method, form]
            return method, request_type.pb(), name_field, f"{project}/{collection}/{name}" if name else project
    raise Aborted(grpc.StatusCode.UNIMPLEMENTED, f"The local Pub/Sub has no {http_method} /v1/{path}.")


def _message(message: Any, name_field: str, name: str, body: bytes, query: Mapping[str, str]) -> Any:
    """`message`, the raw request of the gRPC method, filled in. Raises Aborted when the JSON is not one."""
    parameters = {key: value for key, value in query.items() if key not in _SYSTEM_PARAMETERS}
    try:
        if body:
            if not body.lstrip().startswith(b"{"):
                raise json_format.ParseError("An object is expected.")
            json_format.Parse(body, message)
        json_format.ParseDict(parameters, message)
    except (json_format.ParseError, UnicodeDecodeError) as error:
        raise Aborted(_STATUS.INVALID_ARGUMENT, f"Invalid JSON payload received. {error}") from error
    *outer, field = name_field.split(".")
    named = message
    for part in outer:
        named = getattr(named, part)
    setattr(named, field, name)
    return message


def _error(refused: Aborted) -> JSONResponse:
    code = _HTTP_CODES.get(refused.code, 500)
    error: dict[str, Any] = {"code": code, "message": refused.text, "status": refused.code.name}
    details = dict(refused.metadata).get(_DETAILS_KEY)
    if details:
        error["details"] = json_format.MessageToDict(status_pb2.Status.FromString(details)).get("details", [])
    return JSONResponse({"error": error}, code)
