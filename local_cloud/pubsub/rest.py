"""Pub/Sub's REST form, as gcloud speaks it: JSON in and out, over the same handlers as gRPC.

The rule: nothing is decided here. A call over REST has the effect and the refusals of the same call over gRPC, faults included.
Paths and bodies: https://cloud.google.com/pubsub/docs/reference/rest
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import anyio.to_thread
import grpc
from anyio import CapacityLimiter
from google.protobuf import json_format
from google.rpc import status_pb2
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from local_cloud.pubsub.local_context import Aborted, LocalContext
from local_cloud.pubsub.rest_calls import RestCall, find
from local_cloud.web.connection import until_gone

# How long a pull waits for messages, in real time: a request over HTTP does not say how patient its caller is, and behind gcloud
# there is a person.
_PATIENCE_S = 3.0
# As many calls at a time; a pull that waits is one of them.
_THREAD_COUNT = 100
_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
# What every method of Google's REST interfaces takes and what changes nothing here.
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


def rest_route(handlers: Mapping[str, Any]) -> Route:
    """Everything below `/v1/`. `handlers` are those of the gRPC server, by method name."""
    limiter = CapacityLimiter(_THREAD_COUNT)

    async def endpoint(request: Request) -> JSONResponse:
        context = LocalContext(waits=True)
        try:
            call = find(request.method, request.path_params["rest"])
            handler = handlers[call.method]
            message = _message(call, await request.body(), request.query_params)
        except Aborted as refused:
            return _error(refused)
        # A client that went away must not take messages along.
        watch = asyncio.create_task(_leave_with(request, context))
        patience = asyncio.get_running_loop().call_later(_PATIENCE_S, context.lose_patience)
        try:
            response = await anyio.to_thread.run_sync(handler.unary_unary, message, context, limiter=limiter, abandon_on_cancel=True)
        except Aborted as refused:
            return _error(refused)
        finally:
            watch.cancel()
            patience.cancel()
            context.leave()
        return JSONResponse(json_format.MessageToDict(response))

    return Route("/v1/{rest:path}", endpoint, methods=_METHODS)


async def _leave_with(request: Request, context: LocalContext) -> None:
    await until_gone(request.receive)
    context.leave()


def _message(call: RestCall, body: bytes, query: Mapping[str, str]) -> Any:
    """The raw request of the gRPC method. Raises Aborted when the JSON is not one."""
    message = call.request_type()
    parameters = {name: value for name, value in query.items() if name not in _SYSTEM_PARAMETERS}
    try:
        if body:
            if not body.lstrip().startswith(b"{"):
                raise json_format.ParseError("An object is expected.")
            json_format.Parse(body, message)
        json_format.ParseDict(parameters, message)
    except (json_format.ParseError, UnicodeDecodeError) as error:
        raise Aborted(_STATUS.INVALID_ARGUMENT, f"Invalid JSON payload received. {error}") from error
    *outer, field = call.name_field.split(".")
    named = message
    for part in outer:
        named = getattr(named, part)
    setattr(named, field, call.name)
    return message


def _error(refused: Aborted) -> JSONResponse:
    code = _HTTP_CODES.get(refused.code, 500)
    error: dict[str, Any] = {"code": code, "message": refused.text, "status": refused.code.name}
    details = dict(refused.metadata).get(_DETAILS_KEY)
    if details:
        error["details"] = json_format.MessageToDict(status_pb2.Status.FromString(details)).get("details", [])
    return JSONResponse({"error": error}, code)
