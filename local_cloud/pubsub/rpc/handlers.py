"""From a method of the model to a gRPC handler: raw protobuf in and out, refusals become status codes.

Every call of every service passes through here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from local_cloud.pubsub.model.refusal import Refusal, unsupported

Handler = Callable[[Any, Any], Any]
StreamHandler = Callable[[Any, Any], Iterator[Any]]


def unary(handle: Handler, request_type: Any) -> Any:
    """A gRPC handler of `handle(raw request, context) -> raw response`; `request_type` is the proto-plus class, or the raw one."""
    raw_type = request_type if hasattr(request_type, "FromString") else request_type.pb()

    def call(request: Any, context: Any) -> Any:
        try:
            return handle(request, context)
        except Refusal as refusal:
            return abort(context, refusal)

    return grpc.unary_unary_rpc_method_handler(
        call, request_deserializer=raw_type.FromString, response_serializer=lambda response: response.SerializeToString()
    )


def streaming(handle: StreamHandler, request_type: Any) -> Any:
    """A gRPC handler of `handle(iterator of raw requests, context) -> iterator of raw responses`."""

    def call(requests: Any, context: Any) -> Iterator[Any]:
        try:
            yield from handle(requests, context)
        except Refusal as refusal:
            abort(context, refusal)

    return grpc.stream_stream_rpc_method_handler(
        call, request_deserializer=request_type.pb().FromString, response_serializer=lambda response: response.SerializeToString()
    )


def abort(context: Any, refusal: Refusal) -> Any:
    """End the call with the refusal; raises the exception that grpc expects."""
    code = grpc.StatusCode[refusal.code]
    if refusal.reason:
        info = AnyMessage()
        info.Pack(ErrorInfo(reason=refusal.reason, domain="pubsub.googleapis.com", metadata=refusal.metadata))
        status = Status(code=code.value[0], message=refusal.text, details=[info])
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    return context.abort(code, refusal.text)


def missing(what: str) -> Any:
    """A handler that refuses, in clear words, a method that the real service has."""
    refusal = unsupported(what)

    def call(_request: Any, context: Any) -> Any:
        return context.abort(grpc.StatusCode[refusal.code], refusal.text)

    return grpc.unary_unary_rpc_method_handler(call)


class Missing(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Refuses by name the methods that no service here has: schemas, IAM."""

    def service(self, details: Any) -> Any:
        return missing(f"the method {details.method.lstrip('/')}")
