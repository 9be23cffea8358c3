"""Calls that are waited for with a bound. What takes longer goes on by itself: a call to a service cannot be stopped from outside.

Each call has a daemon thread of its own, so that a stuck one holds up no other, nor the end of the process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Started(Generic[T]):
    """A call under way. `on_end` is called when it has ended, in its thread."""

    def __init__(self, call: Callable[[], T], name: str, on_end: Callable[[], object] = lambda: None) -> None:
        self._call, self._on_end = call, on_end
        self._result: T | None = None
        self._error: Exception | None = None
        self._ended = threading.Event()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def _run(self) -> None:
        try:
            self._result = self._call()
        except Exception as error:  # noqa: BLE001 - it belongs to whoever waits
            self._error = error
        finally:
            self._ended.set()
            self._on_end()

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    def wait(self, timeout_s: float) -> bool:
        """Whether it has ended within `timeout_s`."""
        return self._ended.wait(max(0.0, timeout_s))

    def result(self) -> T:
        """What the call returned. Raises what it raised; RuntimeError while it runs."""
        if not self.ended:
            raise RuntimeError("the call has not ended")
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]
