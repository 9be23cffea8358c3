"""Who is answered on a laptop: pages of other sites are not, also where their name was made to point at this machine (DNS rebinding)."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from batch.events import log
from batch.serving.answers import MEDIA_TYPE, encoded, problem

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Any, Send], Awaitable[None]]


def is_loopback(name: str) -> bool:
    """Whether a name or address means this machine wherever it is asked for."""
    with suppress(ValueError):
        return ipaddress.ip_address(name).is_loopback
    return name == "localhost"


def refusal(host: str | None, origin: str | None, names: Collection[str]) -> str:
    """Why a request is not answered, by its headers; empty if it is. `names` are answered beside loopback ones. Every browser sends a
    Host: one without (HTTP/1.0) comes from no page."""
    if host is not None and not is_loopback(name := _name_in(f"//{host}")) and name not in names:
        return f"a local service answers to 127.0.0.1 and localhost only, not to {host[:100]!r}: for another name set HOST to it"
    if origin is not None and urlsplit(f"//{host}").netloc != origin.partition("//")[2]:
        return f"a local service does not answer pages of other sites, such as {origin[:100]!r}"
    return ""


def _name_in(url: str) -> str:
    with suppress(ValueError):
        return urlsplit(url).hostname or ""
    return ""


class Guard:
    """An ASGI application that answers for `app`, or refuses with 403."""

    def __init__(self, app: App, names: Collection[str] = ()) -> None:
        self._app, self._names = app, frozenset(name.lower() for name in names) - {"", "0.0.0.0", "::"}

    async def __call__(self, scope: Message, receive: Any, send: Send) -> None:
        """One request."""
        if scope["type"] == "http":
            headers = {name: value.decode("latin-1") for name, value in scope["headers"] if name in (b"host", b"origin")}
            if text := refusal(headers.get(b"host"), headers.get(b"origin"), self._names):
                log("request_refused", f"{scope['method']} {scope['path']} was refused: {text}")
                body = encoded(problem(403, text))
                fields = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", b"%d" % len(body))]
                await send({"type": "http.response.start", "status": 403, "headers": fields})
                await send({"type": "http.response.body", "body": body})
                return
        await self._app(scope, receive, send)
