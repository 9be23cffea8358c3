"""Faults of a running local cloud, over HTTP: adding, listing and clearing them.

Each service keeps its own; clearing a project clears it on all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import quote

from local_cloud.addresses import Addresses
from local_cloud.supervisor.http_call import call

Fault = str | Mapping[str, object]
"""A kind of fault, or an object with `kind` and its parameters (`seconds`, `count`, …): see `local_cloud/faults/kinds.py`."""


class FaultRequests:
    """Every method raises ServiceFailed when a service does not answer or refuses; the message says what it would accept."""

    def __init__(self, addresses: Addresses) -> None:
        self._http = addresses.http

    def add(self, service: str, project: str, method: str, *faults: Fault) -> str:
        """Make the next calls of `method` ("Pull", "objects.insert", "jobs.run", …) in `project` meet these faults, one each, in order.

        `service`: "pubsub" (Monitoring too), "storage" or "run". Returns the id of this list.
        """
        return self._post(service, {"project": project, "method": method, "faults": list(faults)})

    def add_rate(self, service: str, project: str, method: str, fault: Fault, *, rate: float, seed: int) -> str:
        """Make each call of `method` meet `fault` with probability `rate`, drawn by a generator with this seed. Returns an id."""
        return self._post(service, {"project": project, "method": method, "rate": rate, "seed": seed, "fault": fault})

    def report(self, project: str | None = None, services: Sequence[str] = ()) -> dict[str, dict[str, object]]:
        """By service: the faults of `project`, or of all projects, and which of them were met."""
        query = "" if project is None else f"?project={quote(project, safe='')}"
        return {name: call(name, f"{self._http[name]}/faults{query}") for name in services or self._http}

    def clear(self, project: str) -> dict[str, dict[str, object]]:
        """Forget the faults of `project`; returns their last report."""
        query = f"?project={quote(project, safe='')}"
        return {name: call(name, f"{url}/faults{query}", method="DELETE") for name, url in self._http.items()}

    def _post(self, service: str, body: Mapping[str, object]) -> str:
        return str(call(service, f"{self._http[service]}/faults", body)["id"])
