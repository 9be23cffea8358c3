"""The server of both services: uvicorn with limits on connections, and an eye on those that are slow."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from math import ceil, inf

import uvicorn

from batch.events import log
from batch.serving.guard import App, Guard, is_loopback
from batch.serving.limits import LimitedProtocol, Limits

TELL_EVERY_S = 60.0


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
        own = {"limits": limits, "most": limits.connections, "cut": self._cut}
        super().__init__(
            uvicorn.Config(
                Guard(app, [host]) if local or is_loopback(door.getsockname()[0]) else app,
                http=type("Connection", (LimitedProtocol,), own),
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
