"""A bucket as one run of a handler sees it: its requests are counted, and at one of them something may happen.

Requests are those that the bucket gets, not calls of the context: `read` (a download, too), `info` (which `ctx.exists` asks for), `write`
(an upload, too), and what else a store can do.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from batch.services.ports import ObjectInfo, ObjectStore

T = TypeVar("T")
REQUESTS = ("read", "info", "write", "list", "patch_metadata", "delete")


class Crashed(BaseException):
    """The process that ran the handler has died. Not an Exception: no handler goes on after it."""


@dataclass(frozen=True, slots=True)
class Moment:
    """The `number`-th request (from 1) of a kind; `kind` is empty for requests of any."""

    kind: str
    number: int


def moment(text: str) -> Moment:
    """`"write"`, `"write 2"` (its second), `"request 3"` (its third of any kind). Raises ValueError."""
    kind, _, number = text.partition(" ")
    if kind not in (*REQUESTS, "request") or (number and not number.isdecimal()) or number == "0":
        raise ValueError(f"no such moment: {text!r}; give 'request' or one of {', '.join(REQUESTS)}, and a number from 1, as in 'write 2'")
    return Moment("" if kind == "request" else kind, int(number or 1))


class WatchedStore:
    """Implements `batch.services.ports.ObjectStore` on another one; safe from any thread. `before` and `after` are called at the
    moment `at`: before the request has its effect, and after it, before the handler has the answer. What they raise, the handler gets.

    `requests` names what the handler asked for, in order; `written` counts the writes of each object that took effect.
    """

    def __init__(self, store: ObjectStore, at: Moment | None = None) -> None:
        self.bucket_name = store.bucket_name
        self.requests: list[str] = []
        self.written: Counter[str] = Counter()
        self.dead = False
        """The process behind it has died: whatever is still asked for has no effect."""
        self.met = False
        self.before: Callable[[], object] = lambda: None
        self.after: Callable[[], object] = lambda: None
        self._store = store
        self._at = at
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def write(self, name: str, data: bytes, **options: Any) -> ObjectInfo:
        return self._written(name, lambda: self._store.write(name, data, **options))

    def upload(self, name: str, path: str | os.PathLike[str], **options: Any) -> ObjectInfo:
        return self._written(name, lambda: self._store.upload(name, path, **options))

    def _written(self, name: str, write: Callable[[], ObjectInfo]) -> ObjectInfo:
        def take_effect() -> ObjectInfo:
            info = write()
            with self._lock:
                self.written[name] += 1
            return info

        return self._request("write", name, take_effect)

    def read(self, name: str) -> bytes:
        return self._request("read", name, lambda: self._store.read(name))

    def read_stored(self, name: str, max_bytes: int | None = None) -> tuple[bytes, bytes | None]:
        return self._request("read", name, lambda: self._store.read_stored(name, max_bytes))

    def read_with_info(self, name: str) -> tuple[bytes, ObjectInfo]:
        return self._request("read", name, lambda: self._store.read_with_info(name))

    def download(self, name: str, path: str | os.PathLike[str], *, max_bytes: int | None = None) -> ObjectInfo:
        return self._request("read", name, lambda: self._store.download(name, path, max_bytes=max_bytes))

    def info(self, name: str) -> ObjectInfo | None:
        return self._request("info", name, lambda: self._store.info(name))

    def list(self, prefix: str, start: str = "") -> Iterator[ObjectInfo]:
        return self._request("list", prefix, lambda: self._store.list(prefix, start))

    def patch_metadata(self, name: str, metadata: Mapping[str, str]) -> ObjectInfo:
        return self._request("patch_metadata", name, lambda: self._store.patch_metadata(name, metadata))

    def delete(self, name: str, *, if_generation: int | None = None) -> bool:
        return self._request("delete", name, lambda: self._store.delete(name, if_generation=if_generation))

    def _request(self, kind: str, name: str, take_effect: Callable[[], T]) -> T:
        self._demand_alive()
        now = self._count(kind, name)
        if now:
            self.before()
            self._demand_alive()
        answer = take_effect()
        if now:
            self.after()
            self._demand_alive()
        return answer

    def _count(self, kind: str, name: str) -> bool:
        """Whether this request is the moment."""
        with self._lock:
            self.requests.append(f"{kind} {name}")
            self._counts[kind] += 1
            of_kind = len(self.requests) if self._at and not self._at.kind else self._counts[kind]
            now = self._at is not None and self._at.kind in ("", kind) and of_kind == self._at.number
            self.met = self.met or now
            return now

    def _demand_alive(self) -> None:
        if self.dead:
            raise Crashed("the process that ran the handler has died")
