"""A bucket that counts what is asked of it: for commands that say how many requests they made."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, cast

from batch.services.ports import ObjectInfo, ObjectStore

PAGE = 1000
"""Objects that one request lists."""


class Requests:
    """How many requests went to a bucket through `store`. Safe from any thread."""

    def __init__(self, store: ObjectStore) -> None:
        self.count = 0
        self._lock = threading.Lock()
        self.store = cast(ObjectStore, _Counting(store, self))

    def add(self) -> None:
        """One more."""
        with self._lock:
            self.count += 1


class _Counting:
    def __init__(self, store: ObjectStore, requests: Requests) -> None:
        self._store, self._requests = store, requests

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        self._requests.add()
        for number, info in enumerate(self._store.list(prefix)):
            if number and number % PAGE == 0:
                self._requests.add()
            yield info

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if not callable(found):
            return found

        def counted(*arguments: Any, **options: Any) -> Any:
            self._requests.add()
            return found(*arguments, **options)

        return counted
