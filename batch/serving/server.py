"""The server of both services: uvicorn with limits on connections, and an eye on those that are slow."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from math import ceil, inf
from typing import Any

import uvicorn

from batch.events import log
from batch.serving.limits import LimitedProtocol, Limits

TELL_EVERY_S = 60.0


class Server(uvicorn.Server):
    """Serves one application until a signal, or until `should_exit` is set."""

    def __init__(self, app: Callable[..., Any], *, stop_timeout_s: float, limits: Limits | None = None) -> None:
        """`stop_timeout_s` is what requests under way have left after a signal."""
        limits = limits or Limits()
        self._cut: Counter[str] = Counter()
        own = {"limits": limits, "most": limits.connections, "cut": self._cut}
        super().__init__(
            uvicorn.Config(
                app,
                http=type("Connection", (LimitedProtocol,), own),
                ws="none",
                access_log=False,
                log_config=None,
                timeout_keep_alive=ceil(limits.idle_s),
                timeout_graceful_shutdown=max(1, ceil(stop_timeout_s)),
            )
        )
        self._told_at = -inf

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
