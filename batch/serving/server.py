"""The server of both services: uvicorn with limits on connections, and an eye on those that are slow."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import Counter
from math import ceil, inf
from typing import Any

import uvicorn

from batch.events import log
from batch.memory import collect_seldom
from batch.serving.guard import App, Guard, is_loopback
from batch.serving.limits import LimitedProtocol, Limits

TELL_EVERY_S = 60.0
ACCEPTED_AT_ONCE = 256
PAUSE_S = 1.0


class Server(uvicorn.Server):
    """Serves one application until a signal, or until `should_exit` is set."""

    def __init__(
        self, app: App, door: socket.socket, *, stop_timeout_s: float, host: str = "", local: bool = False, limits: Limits | None = None
    ) -> None:
        """Serves on `door`, which was opened on `host`. `stop_timeout_s` is what requests under way have left after a signal. On loopback,
        or where it is `local` (its broker is an emulator), pages of other sites are refused."""
        self._door = door
        limits = limits or Limits()
        self._cut: Counter[str] = Counter()
        self._kind: type[LimitedProtocol] = type(
            "Connection", (LimitedProtocol,), {"limits": limits, "most": limits.connections, "cut": self._cut}
        )
        self._opening: set[asyncio.Task[Any]] = set()
        super().__init__(
            uvicorn.Config(
                Guard(app, [host]) if local or is_loopback(door.getsockname()[0]) else app,
                http=self._kind,
                ws="none",
                access_log=False,
                log_config=None,
                timeout_keep_alive=ceil(limits.idle_s),
                timeout_graceful_shutdown=max(1, ceil(stop_timeout_s)),
            )
        )
        self._told_at = -inf

    def serve_door(self) -> None:
        """Until a signal."""
        self.run(sockets=[self._door])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002 - it is the door
        """Accepts itself. uvloop takes one connection in a turn of the loop, and a turn that serves 200 others takes 20 ms: of 256 clients
        who come together the last would wait for seconds."""
        await super().startup(sockets=[])
        if threading.current_thread() is threading.main_thread():  # a process of its own, which has imported everything by now
            collect_seldom()
        self._door.setblocking(False)
        asyncio.get_running_loop().add_reader(self._door, self._accept)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Called by the server after a signal."""
        asyncio.get_running_loop().remove_reader(self._door)
        await super().shutdown(sockets=sockets)
        for connection in list(self.server_state.connections):  # of clients who did not let them end in time
            connection.transport.abort()
        await asyncio.sleep(0)

    def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                connection, _address = self._door.accept()
            except (BlockingIOError, ConnectionError):
                return
            except OSError as error:  # no file is left for it: those that are open must end first
                log("connections_cut", f"no connection could be accepted for {PAUSE_S:g} s: {error}")
                loop.remove_reader(self._door)
                loop.call_later(PAUSE_S, self._resume)
                return
            connection.setblocking(False)
            opening = loop.create_task(loop.connect_accepted_socket(self._connection, connection))
            self._opening.add(opening)
            opening.add_done_callback(self._opening.discard)

    def _resume(self) -> None:
        if not self.should_exit:
            asyncio.get_running_loop().add_reader(self._door, self._accept)

    def _connection(self) -> LimitedProtocol:
        return self._kind(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    async def on_tick(self, counter: int) -> bool:
        """Called by the server ten times a second."""
        now = asyncio.get_running_loop().time()
        for connection in list(self.server_state.connections):
            if isinstance(connection, LimitedProtocol):
                connection.look(now)
        if self._cut and now - self._told_at >= TELL_EVERY_S:
            counts = ", ".join(f"{count} for {reason}" for reason, count in self._cut.most_common())
            log("connections_cut", f"requests were refused unread and their connections closed: {counts}", counts=dict(self._cut))
            self._cut.clear()
            self._told_at = now
        return await super().on_tick(counter)
