"""One request to the front door and its answer, tried again while that may help. No I/O: the clients do what a step asks for."""

from __future__ import annotations

import json
import random
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from batch.model.clock import Clock
from batch.model.errors import DependencyUnavailable, FanoutError, MessageRefused

T = TypeVar("T")
NDJSON = "application/x-ndjson"
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 30.0
RETRIED = frozenset({429, 502, 503, 504})
_PROBLEM = "application/problem+json"


class DoorRefused(FanoutError):
    """The front door answered with an error. `problem` is its RFC 9457 object: `errors` points at each place that is wrong, and where a
    submission was interrupted `submission_id`, `accepted_count` and `uncertain` say what is known."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        self.status, self.problem = status, dict(problem)
        super().__init__(f"{status}: {problem.get('error') or problem.get('detail') or 'without a reason'}")


@dataclass(frozen=True, slots=True)
class Call:
    """A request that may be sent more than once: `key` is its Idempotency-Key, where it would have an effect twice."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    key: str = ""
    streams: bool = False

    def __post_init__(self) -> None:
        """Raises MessageRefused for a key that no header can carry."""
        if not self.key.isprintable() or self.key != self.key.strip():
            reason = f"a key is a line of text without spaces around it, got {self.key[:80]!r}"
            raise MessageRefused("invalid", reason, ("idempotency_key",))

    @property
    def headers(self) -> dict[str, str | bytes]:
        """Those of the request itself."""
        return ({"Idempotency-Key": self.key.encode()} if self.key else {}) | ({"Content-Type": NDJSON} if self.body is not None else {})


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; the names of `headers` are in lower case. `stream`: the body is still to be read there."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""
    stream: Any = None

    def refusal(self) -> DoorRefused:
        """The error that it is."""
        try:
            problem = json.loads(self.body)
        except ValueError:
            problem = None
        if not isinstance(problem, dict):  # of something on the way, such as a proxy
            elsewhere = f"the front door is not here, but perhaps at {self.headers['location']}" if "location" in self.headers else ""
            problem = {"status": self.status, "error": elsewhere or self.body[:500].decode("utf-8", "replace")}
        return DoorRefused(self.status, problem)


@dataclass(frozen=True, slots=True)
class Wait:
    """Go on after `seconds`."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a request that fails is tried again, and by whose clock and rng."""

    for_s: float
    clock: Clock
    rng: random.Random


Steps = Generator[Any, Any, T]
"""Yields a Call, and is sent its Answer, or a DependencyUnavailable if the connection failed; a Wait; or a NEXT_PART (`operations`)."""


def answered(call: Call, patience: Patience) -> Steps[Answer]:
    """A good answer. Raises DoorRefused, and DependencyUnavailable if no connection held."""
    until_s = patience.clock.monotonic() + patience.for_s
    longest_s = FIRST_WAIT_S
    while True:
        got = yield call
        if isinstance(got, Answer) and got.status < 300:
            return got
        wait_s = _wait_s(got, patience.rng.uniform(0, longest_s), patience.clock.now())
        if wait_s is None or patience.clock.monotonic() + wait_s > until_s:
            if isinstance(got, Answer):
                raise got.refusal()
            raise DependencyUnavailable(f"the front door did not answer {call.method} {call.path}: {got}") from got
        yield Wait(wait_s)
        longest_s = min(LONGEST_WAIT_S, 2 * longest_s)


def _wait_s(got: Answer | DependencyUnavailable, backoff_s: float, now: float) -> float | None:
    """Before the next try; None if another cannot help. The front door names a time where one can; a proxy need not."""
    if not isinstance(got, Answer):
        return backoff_s
    given = got.headers.get("retry-after", "")
    if given:
        return backoff_s + max(0.0, _seconds(given, now)) if got.status in {*RETRIED, 409} else None
    return backoff_s if got.status in RETRIED and not got.headers.get("content-type", "").startswith(_PROBLEM) else None


def _seconds(given: str, now: float) -> float:
    try:
        return float(given) if given.strip().isdigit() else parsedate_to_datetime(given).timestamp() - now
    except ValueError:
        return 0.0
