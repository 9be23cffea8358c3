"""Bodies of answers: JSON that can be encoded whatever a client sent, and RFC 9457 problems."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

MEDIA_TYPE = "application/problem+json"


def encoded(body: Any) -> bytes:
    """One line of JSON. Half characters become question marks, and what JSON does not know (NaN) is written as Python writes it: an answer
    that repeats what a client sent must not fail."""
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode(errors="replace")


def problem(status: int, error: str, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The members of a problem."""
    title = HTTPStatus(status).phrase
    return {"type": "about:blank", "title": title, "status": status, "detail": error, "error": error, **(more or {})}
