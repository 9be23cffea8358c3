"""A server with limits in a thread, and clients that write bytes as they like."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from batch.serving.limits import LimitedProtocol, Limits, Part
from batch.serving.listening import listening
from batch.serving.server import Server
from tests.support import wait_until

ANSWER_LIMIT_S = 30.0


class App:
    """Answers with the method, path and size of the body. `/held` waits for `release`, `/endless` answers without end, `/lazy` does not
    read, `/later` not before `release`; `/busy` keeps the event loop until `release`, and counts its turns until 101 connections are
    open."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.began = threading.Semaphore(0)
        self.requests: list[tuple[str, int]] = []
        self.left_count = 0
        self.turn_count = 0
        self.connections: Callable[[], list[LimitedProtocol]] = list

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        self.began.release()
        path = scope["path"]
        if path == "/later":
            await asyncio.to_thread(self.release.wait, ANSWER_LIMIT_S)
        size = 0 if path == "/lazy" else await self._size(receive)
        self.requests.append((path, size))
        if path == "/held":
            await asyncio.to_thread(self.release.wait, ANSWER_LIMIT_S)
        if path == "/busy":
            self.release.wait(ANSWER_LIMIT_S)  # and the loop with it
            while len(self.connections()) < 101 and self.turn_count < 10_000:
                self.turn_count += 1
                await asyncio.sleep(0)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        body = f"{scope['method']} {path} {size} {headers.get('trail', '')}".strip().encode()
        if path == "/endless":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for _ in range(100_000):
                await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
        else:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": b"" if path == "/endless" else body})

    async def _size(self, receive: Any) -> int:
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.left_count += 1
                return -1
            size += len(message["body"])
            if not message["more_body"]:
                return size


class Client:
    """One connection."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_LIMIT_S)
        self.got = b""
        self.was_reset = False

    def send(self, data: bytes) -> Client:
        """As much of it as the server takes before it closes the connection."""
        try:
            self._socket.sendall(data)
        except OSError:
            self.was_reset = True
        return self

    def end(self) -> Client:
        """Say that nothing more comes."""
        self._socket.shutdown(socket.SHUT_WR)
        return self

    def all(self) -> bytes:
        """What the server sends until it closes the connection."""
        while part := self._received():
            self.got += part
        return self.got

    def until(self, text: bytes) -> bytes:
        """What the server sends, as soon as it holds `text`."""
        while text not in self.got:
            part = self._received()
            assert part, f"the connection was closed after {self.got[:500]!r}"
            self.got += part
        return self.got

    def _received(self) -> bytes:
        try:
            return self._socket.recv(65536)
        except ConnectionError:
            return b""

    def close(self) -> None:
        self._socket.close()


class Served:
    """A running server."""

    def __init__(self, limits: Limits, host: str) -> None:
        self.app = App()
        self._socket = listening("127.0.0.1", 0)
        self.port: int = self._socket.getsockname()[1]
        self.server = Server(self.app, self._socket, stop_timeout_s=1, limits=limits, host=host)
        self.app.connections = self.connections
        self._thread = threading.Thread(target=self.server.serve_door)
        self._thread.start()
        self._clients: list[Client] = []
        wait_until(lambda: self.server.started, description="the server")

    def client(self) -> Client:
        one = Client(self.port)
        self._clients.append(one)
        return one

    def asked(self, data: bytes) -> bytes:
        """What a client gets that sends `data`, until its connection is closed."""
        return self.client().send(data).all()

    @property
    def connection_count(self) -> int:
        return len(self.server.server_state.connections)

    @property
    def is_refused(self) -> bool:
        """Whether no open connection is read any more."""
        return all(one._part is Part.GONE for one in self.connections())

    def has_body_bytes(self, count: int) -> bool:
        """Whether so much has come of the bodies that are under way."""
        return sum(one._body_bytes for one in self.connections()) == count

    def connections(self) -> list[LimitedProtocol]:
        return [one for one in list(self.server.server_state.connections) if isinstance(one, LimitedProtocol)]

    def stop(self) -> None:
        self.app.release.set()
        for client in self._clients:
            client.close()
        self.end()
        self._socket.close()

    def end(self) -> None:
        """As after a signal."""
        self.server.should_exit = True
        self._thread.join()


@contextmanager
def served(host: str = "", **limits: Any) -> Iterator[Served]:
    one = Served(Limits(**limits), host)
    try:
        yield one
    finally:
        one.stop()
