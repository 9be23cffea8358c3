"""Records who makes which gRPC call on what. Every handler is wrapped, and called as it would be without."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import grpc

from local_cloud.calls import PROJECT, Calls, role_in
from local_cloud.pubsub.rpc.faults import name_in

_HEADER = "x-goog-api-client"


def recorded(calls: Calls, service: str, handlers: Mapping[str, Any]) -> dict[str, Any]:
    """gRPC handlers by method name, of the service with this full name, such as google.pubsub.v1.Publisher."""
    short = service.split(".")[1]
    return {method: _wrapped(calls, f"{short}.{method}", handler) for method, handler in handlers.items()}


def _wrapped(calls: Calls, method: str, handler: Any) -> Any:
    codec = {"request_deserializer": handler.request_deserializer, "response_serializer": handler.response_serializer}
    if handler.stream_stream is not None:
        return grpc.stream_stream_rpc_method_handler(_stream(calls, method, handler.stream_stream), **codec)
    return grpc.unary_unary_rpc_method_handler(_unary(calls, method, handler.unary_unary), **codec)


def _unary(calls: Calls, method: str, handle: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def call(request: Any, context: Any) -> Any:
        role = _role(context)
        if role:
            project, resource = _place(name_in(request))
            calls.add(project, role, method, resource)
        return handle(request, context)

    return call


def _stream(calls: Calls, method: str, handle: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def call(requests: Iterator[Any], context: Any) -> Any:
        role = _role(context)
        return handle(noted(requests, role) if role else requests, context)

    def noted(requests: Iterator[Any], role: str) -> Iterator[Any]:
        """Only the first names the subscription."""
        for request in requests:
            if name := name_in(request):
                project, resource = _place(name)
                calls.add(project, role, method, resource)
            yield request

    return call


def _role(context: Any) -> str:
    """Empty also for a call that did not come over gRPC."""
    metadata = getattr(context, "invocation_metadata", None)
    if metadata is None:
        return ""
    return next((role_in(value) for key, value in metadata() if key == _HEADER), "")


@lru_cache(maxsize=4096)
def _place(name: str) -> tuple[str, str]:
    """Project and resource of `projects/P/topics/T` or `projects/P`."""
    parts = name.split("/", 3)
    if parts[0] != "projects" or len(parts) < 2:
        return "", PROJECT
    return parts[1], f"{parts[2].removesuffix('s')}:{parts[3]}" if len(parts) == 4 else PROJECT
