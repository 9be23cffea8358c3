"""The host name by which gcloud knows this service: it takes the service for its proxy and never looks the name up.

Requests through the proxy setting are answered for this name only, so that the service is nobody's way to another machine.
"""

from __future__ import annotations

import re

GCLOUD_HOST = "run.local"
_KNOWN = re.compile(r"(?:([a-z]+-[a-z]+[0-9]+)-)?run\.local(?::80)?\Z")


def is_gcloud_host(host: str) -> bool:
    """`run.local`, or `us-central1-run.local` as gcloud writes it for a region."""
    return _KNOWN.match(host) is not None


def region_of(host: str) -> str:
    """The region that gcloud has put before the name; empty without one."""
    found = _KNOWN.match(host)
    return (found.group(1) or "") if found else ""
