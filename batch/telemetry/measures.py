"""Counters and histograms by OpenTelemetry's conventions for messaging, added up here: a value costs a fraction of what the SDK takes.

What an attempt took is only noted; the next acknowledgement adds up all that was noted since the one before. No library is imported here.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field

SYSTEM = "gcp_pubsub"
SENT, CONSUMED = "messaging.client.sent.messages", "messaging.client.consumed.messages"
OPERATION, PROCESS = "messaging.client.operation.duration", "messaging.process.duration"
DESCRIPTIONS = {
    SENT: ("{message}", "Messages that a publish has sent."),
    CONSUMED: ("{message}", "Messages that a pull has brought."),
    OPERATION: ("s", "Duration of publishes, pulls and acknowledgements."),
    PROCESS: ("s", "Duration of attempts of handlers."),
}
"""Unit and description by name."""
CONVENTION = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
BOUNDS = {OPERATION: CONVENTION, PROCESS: (*CONVENTION, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)}
"""Upper bounds of histograms, in seconds. The conventions' own end at 10 s, where tasks often begin."""
Attributes = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class Histogram:
    """`counts` has one more than the bounds: what lies above all of them."""

    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    count: int = 0
    total: float = 0.0
    least: float = float("inf")
    most: float = float("-inf")

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def add_all(self, values: list[float]) -> None:
        """One or more, which are sorted here: so each costs no call of its own."""
        values.sort()
        before = 0
        for number, bound in enumerate(self.bounds):
            up_to = bisect_right(values, bound, before)
            self.counts[number] += up_to - before
            before = up_to
        self.counts[-1] += len(values) - before
        self.count += len(values)
        self.total += sum(values)
        self.least = min(self.least, values[0])
        self.most = max(self.most, values[-1])


class Measures:
    """All of one process; thread-safe. Values are cumulative from the start."""

    def __init__(self, common: Mapping[str, str], received: Mapping[str, str] | None = None) -> None:
        """`common` attributes stand at every value, `received` at those of a subscription."""
        self._common = {"messaging.system": SYSTEM, **common}
        self._received = {**self._common, **(received or {})}
        self._noted: dict[tuple[str, str], list[float]] = {}
        self._lock = threading.Lock()
        self._counters: dict[tuple[str, Attributes], int] = {}
        self._histograms: dict[tuple[str, Attributes], Histogram] = {}

    def ran(self, task_type: str, answer: str, seconds: float, count: int = 1) -> None:
        """Attempts have ended. Adds up nothing: `add_up` does."""
        noted = self._noted.get((task_type, answer))
        if noted is None:
            noted = self._noted.setdefault((task_type, answer), [])
        if count == 1:
            noted.append(seconds)
        else:
            noted.extend([seconds] * count)

    def add_up(self) -> None:
        """What `ran` has noted: once for each list of acknowledgements, so that no more is kept."""
        with self._lock:
            for (task_type, answer), noted in list(self._noted.items()):
                values = noted[:]
                del noted[: len(values)]  # others append meanwhile
                if values:
                    own = {"messaging.operation.name": "process", "fanout.task.type": task_type, "fanout.answer": answer}
                    self._histogram(PROCESS, self._received | own).add_all(values)

    def sent(self, topic: str, count: int, seconds: float, error: BaseException | None) -> None:
        """A publish of `count` messages has ended."""
        attributes = self._common | {"messaging.destination.name": topic}
        self._called(attributes, "send", "send", seconds, error)
        self._count(SENT, attributes, "send", count, error)

    def received(self, count: int, seconds: float, error: BaseException | None) -> None:
        """A pull has brought `count` messages."""
        self._called(self._received, "receive", "receive", seconds, error)
        if count or error is not None:
            self._count(CONSUMED, self._received, "receive", count, error)

    def settled(self, name: str, seconds: float, error: BaseException | None) -> None:
        """Messages were acknowledged, nacked or kept: `name` says which."""
        self._called(self._received, name, "settle", seconds, error)

    def values(self) -> tuple[dict[tuple[str, Attributes], int], dict[tuple[str, Attributes], Histogram]]:
        """Counters and histograms as they are now, by name and attributes."""
        self.add_up()
        with self._lock:
            copied = {key: Histogram(one.bounds, [], one.count, one.total, one.least, one.most) for key, one in self._histograms.items()}
            for key, one in self._histograms.items():
                copied[key].counts = list(one.counts)
            return dict(self._counters), copied

    def _called(self, attributes: Mapping[str, str], name: str, kind: str, seconds: float, error: BaseException | None) -> None:
        with self._lock:
            own = {"messaging.operation.name": name, "messaging.operation.type": kind} | _error(error)
            self._histogram(OPERATION, {**attributes, **own}).add_all([seconds])

    def _count(self, metric: str, attributes: Mapping[str, str], name: str, count: int, error: BaseException | None) -> None:
        key = metric, tuple(sorted({**attributes, "messaging.operation.name": name, **_error(error)}.items()))
        with self._lock:
            self._counters[key] = self._counters.get(key, 0) + count

    def _histogram(self, metric: str, attributes: Mapping[str, str]) -> Histogram:
        key = metric, tuple(sorted(attributes.items()))
        return self._histograms.setdefault(key, Histogram(BOUNDS[metric]))


def _error(error: BaseException | None) -> dict[str, str]:
    return {} if error is None else {"error.type": type(error).__name__}
