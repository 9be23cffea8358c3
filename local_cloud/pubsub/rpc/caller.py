"""The client behind a gRPC call, as a waiting pull sees it: whether it is connected, and how long the pull may wait.

How long a pull waits is measured on Google's emulator and the real service: until about a second before the client's
deadline, then an empty answer; 89 s without a deadline. The client's deadline is real time, so this is not the model's clock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from local_cloud.clock import Clock

MARGIN_S = 1.0
WITHOUT_DEADLINE_S = 89.0
# grpc reports "no deadline" as None or as a moment in the far future, by version.
_NO_DEADLINE_S = 1e7


class RpcCaller:
    """Wraps a grpc.ServicerContext."""

    def __init__(self, context: Any, clock: Clock) -> None:
        self._context = context
        self._clock = clock
        self._until_s = clock.now() + WITHOUT_DEADLINE_S

    def is_connected(self) -> bool:
        return bool(self._context.is_active())

    def wait_limit_s(self) -> float:
        remaining_s: float | None = self._context.time_remaining()
        if remaining_s is None or remaining_s > _NO_DEADLINE_S:
            return self._until_s - self._clock.now()
        return remaining_s - MARGIN_S

    def on_disconnect(self, wake: Callable[[], None]) -> None:
        if not self._context.add_callback(wake):
            wake()
