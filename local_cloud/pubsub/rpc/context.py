"""Contexts in place of gRPC's, for calls whose answer does not go out over gRPC: REST calls, and effects that a fault delays.

The rule: an error never reaches a gRPC client from here. It is raised as `Aborted`, and the code that made the call decides.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import grpc

# Longer than any client waits: the end comes from `stop_waiting`.
_LONG_S = 3600.0


class Aborted(Exception):
    """The answer is an error. `code` is a gRPC status; `metadata` are (key, value) pairs sent along with it."""

    def __init__(self, code: grpc.StatusCode, text: str, metadata: Sequence[tuple[str, Any]] = ()) -> None:
        super().__init__(f"{code.name}: {text}")
        self.code = code
        self.text = text
        self.metadata = tuple(metadata)


class LocalContext:
    """A client that is connected until `disconnect`. With `waits`, it waits for messages until `stop_waiting`, otherwise not at all."""

    def __init__(self, *, waits: bool = False) -> None:
        self._waits = waits
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []
        self._is_gone = False
        self._metadata: Sequence[tuple[str, Any]] = ()

    def disconnect(self) -> None:
        """The client has gone: its calls stop waiting for messages."""
        with self._lock:
            self._is_gone = True
        self._wake()

    def stop_waiting(self) -> None:
        """The client takes an empty answer from now on."""
        self._waits = False
        self._wake()

    def _wake(self) -> None:
        with self._lock:
            callbacks = list(self._callbacks)
        for callback in callbacks:
            callback()

    def is_active(self) -> bool:
        return not self._is_gone

    def time_remaining(self) -> float | None:
        return _LONG_S if self._waits else 0.0

    def add_callback(self, callback: Callable[[], None]) -> bool:
        with self._lock:
            if self._is_gone:
                return False
            self._callbacks.append(callback)
            return True

    def set_trailing_metadata(self, metadata: Sequence[tuple[str, Any]]) -> None:
        self._metadata = metadata

    def abort(self, code: grpc.StatusCode, text: str) -> NoReturn:
        raise Aborted(code, text, self._metadata)


class ForwardedContext(LocalContext):
    """Connected, and with the deadline, of the gRPC client behind it; but the answer does not go to that client."""

    def __init__(self, context: Any) -> None:
        super().__init__()
        self._context = context

    def is_active(self) -> bool:
        return bool(self._context.is_active())

    def time_remaining(self) -> float | None:
        remaining_s: float | None = self._context.time_remaining()
        return remaining_s

    def add_callback(self, callback: Callable[[], None]) -> bool:
        return bool(self._context.add_callback(callback))
