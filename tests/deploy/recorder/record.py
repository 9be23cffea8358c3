"""What was asked, and what is to fail: requests as values, and faults that are consumed in order."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

READING_VERBS = (":getIamPolicy", ":testIamPermissions", ":queryTestablePermissions", "/entries:list")


@dataclass(frozen=True, slots=True)
class Request:
    """`api`: the first name of the host, as `run` of `us-central1-run.local`, whose region is `region`; `body`: None if not JSON."""

    method: str
    api: str
    region: str
    path: str
    query: Mapping[str, str]
    raw: bytes = b""

    @property
    def body(self) -> Any:
        try:
            return json.loads(self.raw) if self.raw else None
        except ValueError:
            return None

    @property
    def is_writing(self) -> bool:
        return self.method not in ("GET", "HEAD") and not self.path.endswith(READING_VERBS)

    def __str__(self) -> str:
        return f"{self.method} {self.api} {self.path}"


@dataclass(slots=True)
class Fault:
    """Answers the `number`-th request (1: the first) that matches with `status`, once, before it has any effect.

    `method` and `pattern` (a regular expression, found in `API/path`) choose; `message` stands in the answer.
    """

    method: str
    pattern: str
    status: int = 403
    number: int = 1
    message: str = "injected by the test"
    seen_count: int = field(default=0, init=False)
    is_spent: bool = field(default=False, init=False)

    def hits(self, request: Request) -> bool:
        if self.is_spent or request.method != self.method or not re.search(self.pattern, f"{request.api}{request.path}"):
            return False
        self.seen_count += 1
        self.is_spent = self.seen_count == self.number
        return self.is_spent


class Log:
    """All requests in order, and those that were refused because the endpoint does not know them. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: list[Request] = []
        self._refused: list[str] = []
        self._faults: list[Fault] = []

    def add(self, request: Request) -> Fault | None:
        """Returns the fault that this request meets."""
        with self._lock:
            self._requests.append(request)
            return next((one for one in self._faults if one.hits(request)), None)

    def refuse(self, what: str) -> None:
        with self._lock:
            self._refused.append(what)

    def plan(self, fault: Fault) -> None:
        with self._lock:
            self._faults.append(fault)

    def clear(self) -> None:
        with self._lock:
            self._requests.clear()

    @property
    def requests(self) -> list[Request]:
        with self._lock:
            return list(self._requests)

    @property
    def faults(self) -> list[Fault]:
        with self._lock:
            return list(self._faults)

    @property
    def refused(self) -> list[str]:
        with self._lock:
            return list(self._refused)
