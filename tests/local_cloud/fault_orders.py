"""What tests of faults share: orders at a service's `/faults`, over plain HTTP, so that the Google clients see only their effects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import requests


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
        answer = requests.post(f"{self.url}/faults", json=body, timeout=10)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = requests.get(f"{self.url}/faults", params={"project": self.project}, timeout=10).json()
        return found

    def clear(self) -> dict[str, Any]:
        found: dict[str, Any] = requests.delete(f"{self.url}/faults", params={"project": self.project}, timeout=10).json()
        return found

    def all_met(self, count: int) -> bool:
        report = self.report()
        return (report["pending"], report["met"]) == (0, count)
