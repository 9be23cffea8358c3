"""What tests of faults share: orders at a service's `/faults`, over plain HTTP, so that the Google clients see only their effects, and what
those effects are where all services have them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import requests
from google.api_core.exceptions import Forbidden, GatewayTimeout, ServiceUnavailable, TooManyRequests

from tests.support import Service, wait_until

T = TypeVar("T")

REFUSALS: list[tuple[str, type[Exception]]] = [
    ("unavailable", ServiceUnavailable),
    ("http_503", ServiceUnavailable),
    ("deadline_exceeded", GatewayTimeout),
    ("too_many_requests", TooManyRequests),
    ("permission_denied", Forbidden),
]
"""Kinds that let a call over HTTP do nothing, and what Google's clients make of them."""


@dataclass
class Orders:
    """Faults of one project at the service with this URL."""

    url: str
    project: str

    def add(self, method: str, *faults: object) -> str:
        """The next calls of `method` meet these faults; returns the id."""
        return self.post({"project": self.project, "method": method, "faults": list(faults)})

    def rate(self, method: str, rate: float, seed: int, fault: object) -> str:
        return self.post({"project": self.project, "method": method, "rate": rate, "seed": seed, "fault": fault})

    def post(self, body: dict[str, Any]) -> str:
        answer = requests.post(f"{self.url}/faults", json=body, timeout=60)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = requests.get(f"{self.url}/faults", params={"project": self.project}, timeout=60).json()
        return found

    def clear(self) -> dict[str, Any]:
        found: dict[str, Any] = requests.delete(f"{self.url}/faults", params={"project": self.project}, timeout=60).json()
        return found

    def all_met(self, count: int) -> bool:
        report = self.report()
        return (report["pending"], report["met"]) == (0, count)


def slow_answer(service: Service, orders: Orders, method: str, ask: Callable[[], T]) -> T:
    """The answer of `ask`, whose call of `method` is slow by an hour of the service's clock; fails if it comes before that hour is over.

    Nothing else may wait to be met.
    """
    met_count = int(orders.report()["met"])
    orders.add(method, {"kind": "slow", "seconds": 3600})
    found: list[T] = []
    asking = threading.Thread(target=lambda: found.append(ask()))
    asking.start()
    wait_until(lambda: orders.all_met(met_count + 1), description="the slow call's arrival")
    assert found == []
    service.advance(3600)
    asking.join(60)
    (answer,) = found
    return answer
