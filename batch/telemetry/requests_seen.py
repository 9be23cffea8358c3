"""Spans of HTTP requests: how an ASGI application's answer ends one. No library is imported here."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from batch.telemetry.ports import RequestSpan, ServiceWatch

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Any, Any, Send], Awaitable[None]]
HEADER = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
"""A well-formed `traceparent`."""


@contextmanager
def ending(span: RequestSpan, scope: Any, status: Callable[[], int]) -> Iterator[None]:
    """Around the application; ends the span with the route that the request took and the `status` of its answer."""
    failure: BaseException | None = None
    try:
        yield
    except BaseException as error:
        failure = error
        raise
    finally:
        span.end(status(), getattr(scope.get("route"), "path", ""), failure)


class WatchedRequests:
    """ASGI middleware of a service that has no other use for a request's context."""

    def __init__(self, app: App, watch: ServiceWatch) -> None:
        self._app, self._watch = app, watch

    async def __call__(self, scope: Any, receive: Any, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == b"traceparent" and HEADER.fullmatch(value)), b"")
        status = 0

        async def answered(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with ending(self._watch.request(scope["method"], scope["path"], scope["scheme"], given.decode()), scope, lambda: status):
            await self._app(scope, receive, answered)
