"""Answers as values: a status and a JSON body, or an error in the form that Google's REST interfaces give it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_WORDS = {
    400: "INVALID_ARGUMENT",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ALREADY_EXISTS",
    412: "FAILED_PRECONDITION",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
}


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: Any


class Refused(Exception):
    """An error answer. `status` is HTTP's."""

    def __init__(self, status: int, message: str, word: str = "") -> None:
        super().__init__(message)
        self.answer = Answer(status, {"error": {"code": status, "message": message, "status": word or _WORDS.get(status, "UNKNOWN")}})


class Unknown(Exception):
    """A request that the endpoint does not know."""


def not_found(name: str) -> Refused:
    return Refused(404, f"Resource {name} was not found.")
