"""Which request it was, and of which trace: from its headers to what is logged meanwhile, to the messages that it publishes, and back.

`X-Request-Id` and the W3C's `traceparent` are taken where they are well formed; every answer has an X-Request-Id.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from batch.logs import REQUEST_ID, TRACEPARENT, running, trace_field
from batch.model.delivery import GOOGLE_TRACEPARENT, Outgoing
from batch.telemetry.ports import RequestSpan, ServiceWatch
from batch.telemetry.requests_seen import HEADER, App, Message, Send, ending

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")


@dataclass(frozen=True, slots=True)
class RequestOf:
    """The attributes that say of a message which request it came with. `span` is the context of its span, empty without telemetry."""

    attributes: Mapping[str, str]
    watch: ServiceWatch | None = None
    span: str = ""

    def facts(self) -> dict[str, Any]:
        """For each line that is logged while it runs."""
        return trace_field(self.attributes, self.span)


def tagged_by() -> Callable[[Outgoing], Outgoing]:
    """Gives a message the attributes of the request that runs here; also in threads, where none runs."""
    request = running.get()
    attributes = request.attributes if isinstance(request, RequestOf) else {}
    return lambda message: Outgoing(message.data, {**message.attributes, **attributes})


def watch_here() -> ServiceWatch | None:
    """Of the request that runs here, where telemetry is on."""
    request = running.get()
    return request.watch if isinstance(request, RequestOf) else None


class RequestIds:
    """ASGI middleware. With telemetry each request has a span, and its messages that span's context."""

    def __init__(self, app: App, rng: random.Random, watch: ServiceWatch | None = None) -> None:
        self._app, self._rng, self._watch = app, rng, watch

    async def __call__(self, scope: Any, receive: Any, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = b""
        attributes: dict[str, str] = {}
        for name, value in scope["headers"]:
            if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
                request_id = value
            elif name == b"traceparent" and HEADER.fullmatch(value):
                attributes[TRACEPARENT] = value.decode()
        request_id = request_id or b"%032x" % self._rng.getrandbits(128)
        attributes[REQUEST_ID] = request_id.decode()
        span: RequestSpan | None = None
        if self._watch is not None:
            span = self._watch.request(scope["method"], scope["path"], scope["scheme"], attributes.get(TRACEPARENT, ""))
            attributes |= {TRACEPARENT: span.traceparent, GOOGLE_TRACEPARENT: span.traceparent}
        running.set(RequestOf(attributes, self._watch, "" if span is None else span.traceparent))
        status = 0

        async def answered(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id)]
            await send(message)

        if span is None:
            await self._app(scope, receive, answered)
        else:
            with ending(span, scope, lambda: status):
                await self._app(scope, receive, answered)
