"""A TCP proxy on loopback that holds all bytes back for a while, each way: a service that is farther away.

    python -m bench.delay_proxy <host:port> <seconds each way>

prints `{"address": "127.0.0.<n>:<port>"}` and ends with its standard input. Order and content stay; nothing is lost while less than
BUFFER_BYTES are on their way. It adds time, and takes none away: what it costs itself comes on top.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from bench.page import ROOT

BUFFER_BYTES = 256 * 1024 * 1024
"""On its way in one direction of one connection; beyond that the sender waits, as with any full line."""


ADDRESSES = 20


class Direction(asyncio.Protocol):
    """One side of a connection: what it receives goes to `other`, its partner, `delay_s` later. None is the end."""

    def __init__(self, delay_s: float, loop: asyncio.AbstractEventLoop) -> None:
        self.other: Direction | None = None
        self.transport: asyncio.Transport | None = None
        self._delay_s = delay_s
        self._on_way: deque[tuple[float, bytes | None]] = deque()
        self._byte_count = 0
        self._loop = loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._byte_count += len(data)
        if self._byte_count > BUFFER_BYTES and self.transport is not None:
            self.transport.pause_reading()
        self._later(data)

    def connection_lost(self, _error: Exception | None) -> None:
        self._later(None)

    def _later(self, data: bytes | None) -> None:
        self._on_way.append((self._loop.time() + self._delay_s, data))
        if len(self._on_way) == 1:
            self._loop.call_later(self._delay_s, self._arrived)

    def _arrived(self) -> None:
        """Pass on what has been on its way for long enough."""
        now_s = self._loop.time()
        while self._on_way and self._on_way[0][0] <= now_s:
            self._pass_on(self._on_way.popleft()[1])
        if self._on_way:
            self._loop.call_at(self._on_way[0][0], self._arrived)

    def _pass_on(self, data: bytes | None) -> None:
        target = self.other.transport if self.other is not None else None
        if data is None:
            if target is not None:
                target.close()
            return
        if target is not None and not target.is_closing():
            target.write(data)
        self._byte_count -= len(data)
        if self.transport is not None and self._byte_count <= BUFFER_BYTES and not self.transport.is_closing():
            self.transport.resume_reading()


class Accepted(Direction):
    """The client's side: it opens the other side first, and reads nothing before."""

    def __init__(self, delay_s: float, loop: asyncio.AbstractEventLoop, host: str, port: int) -> None:
        super().__init__(delay_s, loop)
        self._target = (host, port)
        self._connecting: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self.transport is not None
        self.transport.pause_reading()
        self._connecting = self._loop.create_task(self._connect())

    async def _connect(self) -> None:
        assert self.transport is not None
        try:
            _, partner = await self._loop.create_connection(lambda: Direction(self._delay_s, self._loop), *self._target)
        except OSError:
            self.transport.abort()
            return
        self.other, partner.other = partner, self
        self.transport.resume_reading()


async def serve(host: str, port: int, delay_s: float) -> asyncio.Server:
    """A running proxy on the same port of another loopback address: the local cloud refuses requests for a port that is not its own.

    Raises OSError when every address is taken, or when there is only one, as on systems other than Linux.
    """
    loop = asyncio.get_running_loop()
    for last in range(2, ADDRESSES):
        try:
            return await loop.create_server(lambda: Accepted(delay_s, loop, host, port), f"127.0.0.{last}", port)
        except OSError:
            continue
    raise OSError(f"no loopback address from 127.0.0.2 to 127.0.0.{ADDRESSES - 1} has port {port} free")


@contextmanager
def delayed(address: str, delay_s: float) -> Iterator[str]:
    """The address of a proxy before `address` (host:port), in a process of its own; with no delay, `address` itself."""
    if delay_s == 0:
        yield address
        return
    command = [sys.executable, "-m", "bench.delay_proxy", address, f"{delay_s}"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())["address"]
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(10)


async def main(address: str, delay_s: float) -> None:
    """Serve until standard input ends."""
    host, port = address.rsplit(":", 1)
    server = await serve(host, int(port), delay_s)
    own_host, own_port = server.sockets[0].getsockname()
    print(json.dumps({"address": f"{own_host}:{own_port}"}), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2])))
