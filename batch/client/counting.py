"""A bucket that counts what is asked of it: for commands that say how many requests they made."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, cast

from batch.services.ports import ObjectInfo, ObjectStore

PAGE = 1000
"""Objects that one request lists."""


class Requests:
    """How many requests went to a bucket through `store`, which passes every call on. Safe from any thread."""

    def __init__(self, store: ObjectStore) -> None:
        self.count = 0
        self._inner, self._lock = store, threading.Lock()

    @property
    def store(self) -> ObjectStore:
        """The bucket whose requests are counted."""
        return cast(ObjectStore, self)

    def list(self, prefix: str, start: str = "") -> Iterator[ObjectInfo]:
        """As the bucket's; a request for each page."""
        self._add()
        for number, info in enumerate(self._inner.list(prefix, start)):
            if number and number % PAGE == 0:
                self._add()
            yield info

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)

        def counted(*arguments: Any, **options: Any) -> Any:
            self._add()
            return found(*arguments, **options)

        return counted if callable(found) else found

    def _add(self) -> None:
        with self._lock:
            self.count += 1
