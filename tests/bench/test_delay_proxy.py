"""The proxy that adds a round trip: it holds bytes back exactly as long as told, keeps their order, and passes on the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from bench import delay_proxy
from bench.delay_proxy import Direction, delayed, serve


class Loop:
    """A loop whose clock the test moves."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.due: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now_s

    def call_at(self, when_s: float, step: Callable[[], None]) -> None:
        self.due.append((when_s, step))

    def call_later(self, after_s: float, step: Callable[[], None]) -> None:
        self.call_at(self.now_s + after_s, step)

    def advance_to(self, now_s: float) -> None:
        while self.due and min(self.due, key=lambda one: one[0])[0] <= now_s:
            when_s, step = min(self.due, key=lambda one: one[0])
            self.due.remove((when_s, step))
            self.now_s = max(self.now_s, when_s)
            step()
        self.now_s = now_s


class Transport(asyncio.Transport):
    """What was written to it, and whether it reads and is open."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.reads = True
        self.is_open = True

    def write(self, data: Any) -> None:
        self.written += data

    def close(self) -> None:
        self.is_open = False

    def is_closing(self) -> bool:
        return not self.is_open

    def is_reading(self) -> bool:
        return self.reads

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True


def pair(delay_s: float) -> tuple[Loop, Direction, Transport, Transport]:
    loop: Any = Loop()
    near, far = Direction(delay_s, loop), Direction(delay_s, loop)
    near.other, far.other = far, near
    transports = Transport(), Transport()
    near.connection_made(transports[0])
    far.connection_made(transports[1])
    return loop, near, *transports


def test_bytes_arrive_after_the_delay_and_not_before() -> None:
    loop, near, _, far = pair(0.025)
    near.data_received(b"a")
    loop.advance_to(0.010)
    near.data_received(b"b")
    loop.advance_to(0.024)
    assert far.written == b""
    loop.advance_to(0.025)
    assert far.written == b"a"
    loop.advance_to(0.034)
    assert far.written == b"a"
    loop.advance_to(0.036)
    assert far.written == b"ab"


def test_the_line_is_used_again_after_a_pause() -> None:
    loop, near, _, far = pair(0.025)
    near.data_received(b"a")
    loop.advance_to(1.0)
    near.data_received(b"b")
    loop.advance_to(1.024)
    assert far.written == b"a"
    loop.advance_to(1.026)
    assert far.written == b"ab"


def test_the_end_comes_after_the_last_bytes() -> None:
    loop, near, _, far = pair(0.025)
    near.data_received(b"a")
    near.connection_lost(None)
    loop.advance_to(0.02)
    assert not far.is_closing()
    loop.advance_to(0.03)
    assert far.written == b"a"
    assert far.is_closing()


def test_a_full_line_makes_the_sender_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delay_proxy, "BUFFER_BYTES", 10)
    loop, near, sender, _ = pair(0.025)
    near.data_received(b"x" * 10)
    assert sender.is_reading()
    near.data_received(b"x")
    assert not sender.is_reading()
    loop.advance_to(0.03)
    assert sender.is_reading()


class Upper:
    """A server that sends back what it gets in capitals; `until_closed` waits until its connections are gone."""

    def __init__(self) -> None:
        self._left = asyncio.Event()

    async def start(self) -> tuple[asyncio.Server, int]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return server, server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data.upper())
        writer.close()
        await writer.wait_closed()
        self._left.set()

    async def until_closed(self, writer: asyncio.StreamWriter) -> None:
        writer.close()
        await writer.wait_closed()
        await self._left.wait()
        for _ in range(3):
            await asyncio.sleep(0)  # the loop closes sockets a round later


def test_everything_comes_through_in_order() -> None:
    sent = b"".join(f"{number:x} ".encode() for number in range(200_000))

    async def talk() -> bytes:
        upper = Upper()
        server, port = await upper.start()
        proxy = await serve("127.0.0.1", port, 0.001)
        reader, writer = await asyncio.open_connection(*proxy.sockets[0].getsockname())
        writer.write(sent)
        got = await reader.readexactly(len(sent))
        await upper.until_closed(writer)
        proxy.close()
        server.close()
        return got

    assert asyncio.run(talk()) == sent.upper()


def test_a_server_that_is_not_there_ends_the_connection() -> None:
    async def talk() -> bytes:
        server, port = await Upper().start()
        server.close()
        await server.wait_closed()
        proxy = await serve("127.0.0.1", port, 0.001)
        reader, writer = await asyncio.open_connection(*proxy.sockets[0].getsockname())
        got = await reader.read()
        writer.close()
        await writer.wait_closed()
        proxy.close()
        return got

    assert asyncio.run(talk()) == b""


def test_without_a_delay_there_is_no_proxy() -> None:
    with delayed("127.0.0.1:9", 0) as address:
        assert address == "127.0.0.1:9"


def test_a_proxy_keeps_the_port_and_ends_with_its_block() -> None:
    """The local cloud refuses requests whose Host header has another port."""

    async def talk() -> tuple[str, int, bytes]:
        upper = Upper()
        server, port = await upper.start()
        context = delayed(f"127.0.0.1:{port}", 0.001)
        address = await asyncio.to_thread(context.__enter__)
        host, own_port = address.split(":")
        reader, writer = await asyncio.open_connection(host, int(own_port))
        writer.write(b"hello")
        got = await reader.readexactly(5)
        await upper.until_closed(writer)
        await asyncio.to_thread(context.__exit__, None, None, None)
        server.close()
        with pytest.raises(OSError, match="Connect call failed"):
            await asyncio.open_connection(host, int(own_port))
        return host, int(own_port) - port, got

    host, difference, got = asyncio.run(talk())
    assert host != "127.0.0.1"
    assert difference == 0
    assert got == b"HELLO"
