"""Where a local cloud can be reached: the addresses of its services, and the environment that sends clients there.

Storage and Run take addresses with a scheme, Pub/Sub and Monitoring without one; the last two share a port. gcloud uses Run as its proxy
and calls it `run.local`, a name that is never looked up: Run answers requests through the proxy setting for this name only, so that it is
no way to another machine.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

PROJECT = "local"
PASSED = ("PUBSUB_EMULATOR_HOST", "STORAGE_EMULATOR_HOST", "CLOUD_RUN_EMULATOR_HOST", "CLOUD_MONITORING_EMULATOR_HOST")
"""The variables that workers get as well."""
GCLOUD_HOST = "run.local"
_GCLOUD_HOSTS = re.compile(r"(?:([a-z]+-[a-z]+[0-9]+)-)?run\.local(?::80)?\Z")


@dataclass(frozen=True, slots=True)
class Addresses:
    """`pubsub` is `host:port` of Pub/Sub and Monitoring; `pubsub_http` (clock, gauges, health), `storage` and `run` are URLs."""

    pubsub: str
    pubsub_http: str
    storage: str
    run: str

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs in its environment."""
        return {**emulators(pubsub=self.pubsub, storage=self.storage, run=self.run), "GOOGLE_CLOUD_PROJECT": PROJECT}

    @property
    def http(self) -> dict[str, str]:
        """The URL of each service's HTTP side, which answers `GET /` and has the clock."""
        return {"pubsub": self.pubsub_http, "storage": self.storage, "run": self.run}


def emulators(*, pubsub: str, storage: str, run: str) -> dict[str, str]:
    """The variables of PASSED with their values."""
    return dict(zip(PASSED, (pubsub, storage, run, pubsub), strict=True))


def is_gcloud_host(host: str) -> bool:
    """`run.local`, or `us-central1-run.local` as gcloud writes it for a region."""
    return _GCLOUD_HOSTS.match(host) is not None


def region_of(host: str) -> str:
    """The region that gcloud has put before the name; empty without one."""
    found = _GCLOUD_HOSTS.match(host)
    return (found.group(1) or "") if found else ""
