"""Scripted errors for the in-memory twins: a list for each method, met in order, and accounted for at the end."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class Faults:
    """What is to go wrong. Mixed into the twins; safe from any thread."""

    def __init__(self) -> None:
        self._scripted: dict[str, deque[tuple[Exception, bool]]] = {}
        self._faults_lock = threading.Lock()

    def fail_next(self, method: str, error: Exception, *, after_effect: bool = False) -> None:
        """The next call of `method` that has no earlier fault raises `error`: instead of its effect, or, as a lost response
        does, after it. Raises AttributeError when there is no such method."""
        if not callable(getattr(self, method)):
            raise AttributeError(f"{type(self).__name__}.{method} is not a method")
        with self._faults_lock:
            self._scripted.setdefault(method, deque()).append((error, after_effect))

    def unmet(self) -> list[str]:
        """`method: error` of every scripted fault that no call has met; a test asserts at its end that there are none."""
        with self._faults_lock:
            return [f"{method}: {error!r}" for method, errors in self._scripted.items() for error, _ in errors]

    @contextmanager
    def _fault(self, method: str) -> Iterator[None]:
        with self._faults_lock:
            errors = self._scripted.get(method)
            error, after_effect = errors.popleft() if errors else (None, False)
        if error is not None and not after_effect:
            raise error
        yield
        if error is not None:
            raise error
