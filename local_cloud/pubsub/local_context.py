"""Stands where gRPC's context stands, for calls whose answer does not go out over gRPC: REST, and effects without a caller.

The rule: an error never reaches a gRPC client from here. It is raised as `Aborted`, and whoever made the call decides.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import grpc

# Longer than anybody waits: the end comes from `lose_patience`.
_PATIENT_S = 3600.0


class Aborted(Exception):
    """The answer is an error. `code` is a gRPC status; `metadata` are (key, value) pairs sent along with it."""

    def __init__(self, code: grpc.StatusCode, text: str, metadata: Sequence[tuple[str, Any]] = ()) -> None:
        super().__init__(f"{code.name}: {text}")
        self.code = code
        self.text = text
        self.metadata = tuple(metadata)


class LocalContext:
    """A caller who is there until `leave`. With `waits`, he waits for messages until `lose_patience`, otherwise not at all."""

    def __init__(self, *, waits: bool = False) -> None:
        self._waits = waits
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []
        self._gone = False
        self._metadata: Sequence[tuple[str, Any]] = ()

    def leave(self) -> None:
        """The caller has gone: what waits for him stops waiting."""
        with self._lock:
            self._gone = True
        self._wake()

    def lose_patience(self) -> None:
        """The caller takes an empty answer from now on."""
        self._waits = False
        self._wake()

    def _wake(self) -> None:
        with self._lock:
            callbacks = list(self._callbacks)
        for callback in callbacks:
            callback()

    def is_active(self) -> bool:
        return not self._gone

    def time_remaining(self) -> float | None:
        return _PATIENT_S if self._waits else 0.0

    def add_callback(self, callback: Callable[[], None]) -> bool:
        with self._lock:
            if self._gone:
                return False
            self._callbacks.append(callback)
            return True

    def invocation_metadata(self) -> Sequence[tuple[str, Any]]:
        return ()

    def set_trailing_metadata(self, metadata: Sequence[tuple[str, Any]]) -> None:
        self._metadata = metadata

    def abort(self, code: grpc.StatusCode, text: str) -> NoReturn:
        raise Aborted(code, text, self._metadata)

    def abort_with_status(self, status: Any) -> NoReturn:
        raise Aborted(status.code, status.details, status.trailing_metadata or ())


class Behind(LocalContext):
    """As patient as the gRPC caller behind it, and there as long as he is; only his answer is not decided here."""

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
