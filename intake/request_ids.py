"""Which request it was, and of which trace: from its headers to what is logged meanwhile, to the messages that it publishes, and back.

`X-Request-Id` and the W3C's `traceparent` are taken where they are well formed; every answer has an X-Request-Id.
"""

from __future__ import annotations

import random
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from batch.logs import REQUEST_ID, TRACEPARENT, running, trace_field
from batch.model.delivery import Outgoing

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Any, Any, Send], Awaitable[None]]
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(frozen=True, slots=True)
class RequestOf:
    """The attributes that say of a message which request it came with."""

    attributes: Mapping[str, str]

    def facts(self) -> dict[str, Any]:
        """For each line that is logged while it runs."""
        return trace_field(self.attributes)


def tagged_by() -> Callable[[Outgoing], Outgoing]:
    """Gives a message the attributes of the request that runs here; also in threads, where none runs."""
    request = running.get()
    attributes = request.attributes if isinstance(request, RequestOf) else {}
    return lambda message: Outgoing(message.data, {**message.attributes, **attributes})


class RequestIds:
    """ASGI middleware."""

    def __init__(self, app: App, rng: random.Random) -> None:
        self._app, self._rng = app, rng

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
            elif name == b"traceparent" and _TRACEPARENT.fullmatch(value):
                attributes[TRACEPARENT] = value.decode()
        request_id = request_id or b"%032x" % self._rng.getrandbits(128)
        attributes[REQUEST_ID] = request_id.decode()
        running.set(RequestOf(attributes))

        async def answered(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id)]
            await send(message)

        await self._app(scope, receive, answered)
