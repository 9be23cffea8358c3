"""Calls to the HTTP sides of the local cloud: JSON out, JSON in.

No proxy setting of the machine is obeyed: these addresses are on loopback.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException

from local_cloud.supervisor.child import ServiceFailed

REQUEST_S = 10.0

_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def call(
    service: str, url: str, body: Mapping[str, object] | None = None, *, method: str | None = None, within_s: float = REQUEST_S
) -> dict[str, object]:
    """GET, or POST with a body, or `method`; returns the JSON of the answer. Raises ServiceFailed, with the service's own message if it
    refused."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"}, method=method)
    try:
        return _answer(service, request, within_s)
    except (OSError, HTTPException, ValueError) as error:
        # HTTPException: an answer that was cut off, as by a kill between its head and its body.
        hint = "see its log, or start the local cloud again"
        raise ServiceFailed(f"{service} did not answer {url} as it should: {error}; {hint}") from error


def _answer(service: str, request: urllib.request.Request, within_s: float) -> dict[str, object]:
    try:
        with _direct.open(request, timeout=within_s) as answer:
            found: dict[str, object] = json.loads(answer.read())
            return found
    except urllib.error.HTTPError as error:
        with error:
            raise ServiceFailed(f"{service} refused {request.get_method()} {request.full_url}: {_reason(error)}") from error


def _reason(error: urllib.error.HTTPError) -> str:
    text = error.read().decode(errors="replace")
    try:
        found = json.loads(text)["error"]
    except (ValueError, KeyError, TypeError):
        found = text
    return str(found)[:2000] or f"HTTP {error.code}"
