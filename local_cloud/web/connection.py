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
# SO_LINGER on, for 0 seconds: closing the socket sends a reset and drops what was not sent.
_RESET = struct.pack("ii", 1, 0)


class Connection:
    """`target` is the request's target as it was sent: a path, or a whole URL from a client that takes the server for its proxy."""

    def __init__(self, target: str, transport: asyncio.Transport) -> None:
        self.target = target
        self._transport = transport

    def reset(self) -> None:
        """The client sees "connection reset by peer"; bytes on their way to it may be lost."""
        # A second socket object on the same connection, as that of some event loops takes no options.
        duplicate = socket.socket(fileno=os.dup(self._transport.get_extra_info("socket").fileno()))
        with duplicate:
            duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._transport.abort()

    def close(self) -> None:
        """Send what was written, then close the connection, though the answer is incomplete."""
        self._transport.close()


def connection_of(scope: MutableMapping[str, Any]) -> Connection:
    """The connection of a request. Raises RuntimeError when the request did not come through `HttpServer`."""
    found = scope.get(KEY)
    if not isinstance(found, Connection):
        raise RuntimeError("this request has no connection to cut: it did not come through local_cloud.web.service.HttpServer")
    return found


def target_of(scope: MutableMapping[str, Any]) -> str:
    """The target of a request as it was sent; its path when the request did not come through `HttpServer`."""
    found = scope.get(KEY)
    return found.target if isinstance(found, Connection) else str(scope["path"])


async def until_gone(receive: Receive) -> None:
    """Return once the server knows that the connection is closed: earlier it would complain about a missing answer."""
    while (await receive())["type"] != "http.disconnect":
        continue


class Protocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, which also puts the connection into the scope."""

    def on_headers_complete(self) -> None:
        scope = cast(dict[str, Any], self.scope)
        scope[KEY] = Connection(self.url.decode("latin-1"), self.transport)
        super().on_headers_complete()
