"""From a method of the model to a gRPC handler: raw protobuf in and out, refusals become status codes.

Every call of every service passes through `unary`, so that what concerns all of them stands in one place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from local_cloud.pubsub.refusal import Refusal, unsupported

Handler = Callable[[Any, Any], Any]


def unary(handle: Handler, request_type: Any) -> Any:
    """A gRPC handler of `handle(raw request, context) -> raw response`; `request_type` is the proto-plus class."""

    def call(request: Any, context: Any) -> Any:
        try:
            return handle(request, context)
        except Refusal as refusal:
            return context.abort(grpc.StatusCode[refusal.code], refusal.text)

    return grpc.unary_unary_rpc_method_handler(
        call, request_deserializer=request_type.pb().FromString, response_serializer=lambda response: response.SerializeToString()
    )


def missing(what: str, *, streaming: bool = False) -> Any:
    """A handler that refuses, in clear words, a method that the real service has."""
    refusal = unsupported(what)

    def call(_request: Any, context: Any) -> Any:
        return context.abort(grpc.StatusCode[refusal.code], refusal.text)

    if streaming:
        return grpc.stream_stream_rpc_method_handler(call)
    return grpc.unary_unary_rpc_method_handler(call)
