"""The TCP connection behind an HTTP request: what the client wrote as its target, and two ways of cutting the connection off.

Only faults cut connections. Every request of `HttpServer` carries its own in the scope, under `KEY`.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import MutableMapping
from typing import Any, cast

from starlette.types import Receive
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

KEY = "local_cloud.web.connection"
# On, and 0 seconds: the socket is closed with a reset and drops what it has not sent.
_RESET = struct.pack("ii", 1, 0)


class Connection:
    """`target` is the request's target as it was sent: a path, or a whole URL from a client that takes the server for its proxy."""

    def __init__(self, target: str, transport: asyncio.Transport) -> None:
        self.target = target
        self._transport = transport

    def reset(self) -> None:
        """Let the client see "connection reset by peer"; what is on its way to it may be lost."""
        # A socket of our own on the same connection: the one of the event loop takes no options in every loop.
        duplicate = socket.socket(fileno=os.dup(self._transport.get_extra_info("socket").fileno()))
        with duplicate:
            duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._transport.abort()

    def close(self) -> None:
        """Send what was written, then end the connection in order, though the answer is not complete."""
        self._transport.close()


def connection_of(scope: MutableMapping[str, Any]) -> Connection:
    """Raises RuntimeError when the request did not come through `HttpServer`."""
    found = scope.get(KEY)
    if not isinstance(found, Connection):
        raise RuntimeError("this request has no connection to cut: it did not come through local_cloud.web.service.HttpServer")
    return found


async def until_gone(receive: Receive) -> None:
    """Return when the server knows that the connection has ended: before that it would complain about a missing answer."""
    while (await receive())["type"] != "http.disconnect":
        continue


class Protocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, which also puts the connection into the scope."""

    def on_headers_complete(self) -> None:
        scope = cast(dict[str, Any], self.scope)
        scope[KEY] = Connection(self.url.decode("latin-1"), self.transport)
        super().on_headers_complete()
