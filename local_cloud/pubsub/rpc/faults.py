"""Carries out faults on gRPC calls: each handler is wrapped, so that it asks the script first.

The rule: without a fault the handler is called as it would be without this module, with the same request and context.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import grpc
from google.protobuf.empty_pb2 import Empty
from google.pubsub_v1.types import pubsub

from local_cloud.faults.kinds import MONITORING, PUBSUB, kinds_for
from local_cloud.faults.script import Fault, Script
from local_cloud.faults.timers import Later
from local_cloud.pubsub.rpc.context import Aborted, ForwardedContext, LocalContext
from local_cloud.pubsub.rpc.duplicates import Duplicates

Handle = Callable[[Any, Any], Any]

_PULL_RESPONSE = pubsub.PullResponse.pb()
# The fields in which requests name their resource, in the order in which to look for them.
_NAMING_FIELDS = ("name", "topic", "subscription", "snapshot", "project")
_CODES = {
    "unavailable": grpc.StatusCode.UNAVAILABLE,
    "deadline_exceeded": grpc.StatusCode.DEADLINE_EXCEEDED,
    "too_many_requests": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "permission_denied": grpc.StatusCode.PERMISSION_DENIED,
    "lost_response": grpc.StatusCode.UNAVAILABLE,
    "effect_after": grpc.StatusCode.UNAVAILABLE,
    "deadline_with_lease": grpc.StatusCode.DEADLINE_EXCEEDED,
}


def name_in(request: Any) -> str:
    """The full name of the resource, or project, that a raw request is about; empty when there is none."""
    descriptor = getattr(request, "DESCRIPTOR", None)
    if descriptor is None:
        return ""
    field = next((name for name in _NAMING_FIELDS if name in descriptor.fields_by_name), None)
    value = getattr(request, field) if field else ""
    return value if isinstance(value, str) else name_in(value)


def project_of(request: Any) -> str:
    """The project id in a raw request's name; empty when there is none."""
    parts = name_in(request).split("/", 2)
    return parts[1] if parts[0] == "projects" and len(parts) > 1 else ""


class RpcFaults:
    """Of one server: `wrap` the handlers of each service before they are served."""

    def __init__(self, script: Script, later: Later) -> None:
        self._script = script
        self._later = later
        self._duplicates = Duplicates()
        script.on_clear(self._duplicates.clear)

    def wrap(self, service: str, handlers: Mapping[str, Any]) -> dict[str, Any]:
        """gRPC handlers by method name, of the service with this full name; tells the script which faults its methods can meet."""
        group = PUBSUB if service.startswith("google.pubsub") else MONITORING
        wrapped = {}
        for method, handler in handlers.items():
            self._script.allow(method, kinds_for(group, method))
            wrapped[method] = self._wrapped(method, handler)
        return wrapped

    def _wrapped(self, method: str, handler: Any) -> Any:
        codec = {"request_deserializer": handler.request_deserializer, "response_serializer": handler.response_serializer}
        if handler.stream_stream is not None:
            return grpc.stream_stream_rpc_method_handler(self._stream(method, handler.stream_stream), **codec)
        return grpc.unary_unary_rpc_method_handler(self._unary(method, self._with_duplicates(method, handler.unary_unary)), **codec)

    def _unary(self, method: str, handle: Handle) -> Handle:
        script = self._script

        def call(request: Any, context: Any) -> Any:
            fault = None if script.is_empty else script.next(project_of(request), method)
            return handle(request, context) if fault is None else self._meet(fault, handle, request, context)

        return call

    def _stream(self, method: str, handle: Handle) -> Handle:
        def call(requests: Iterator[Any], context: Any) -> Any:
            if self._script.is_empty:
                return handle(requests, context)
            first = list(itertools.islice(requests, 1))
            fault = self._script.next(project_of(first[0]), method) if first else None
            if fault is not None:
                _abort(fault, context)
            return handle(itertools.chain(first, requests), context)

        return call

    def _with_duplicates(self, method: str, handle: Handle) -> Handle:
        duplicates = self._duplicates

        def pull(request: Any, context: Any) -> Any:
            return duplicates.take(request.subscription, request.max_messages) or handle(request, context)

        def settle(request: Any, context: Any) -> Any:
            duplicates.resolve(request)
            return handle(request, context)

        return {"Pull": pull, "Acknowledge": settle, "ModifyAckDeadline": settle}.get(method, handle)

    def _meet(self, fault: Fault, handle: Handle, request: Any, context: Any) -> Any:
        match fault.kind:
            case "slow":
                self._later.pause(fault.seconds or 0.0)
                return handle(request, context)
            case "empty_pull":
                return _PULL_RESPONSE()
            case "few_messages":
                request.max_messages = min(request.max_messages, fault.count or 1)
                return handle(request, context)
            case "duplicate_delivery":
                response = handle(request, context)
                self._duplicates.add(request.subscription, list(response.received_messages))
                return response
            case "late_ack":
                self._later.do(fault.seconds or 0.0, lambda: _discard_answer(handle, request, LocalContext()))
                return Empty()
            case "effect_after":
                self._later.do(fault.seconds or 0.0, lambda: _discard_answer(handle, request, LocalContext()))
            case "lost_response" | "deadline_with_lease":
                _discard_answer(handle, request, ForwardedContext(context))
        return _abort(fault, context)


def _discard_answer(handle: Handle, request: Any, context: LocalContext) -> None:
    # No client gets the answer, nor the error.
    with suppress(Aborted):
        handle(request, context)


def _abort(fault: Fault, context: Any) -> Any:
    return context.abort(_CODES[fault.kind], f"This call was asked to fail (fault {fault.kind}, see GET /faults).")
