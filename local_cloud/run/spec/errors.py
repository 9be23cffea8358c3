"""Refusals of the Cloud Run API: code, canonical status and message, in the JSON that Google's clients read.

The message is for the person who sent the request; the server's internals do not belong in it.
"""

from __future__ import annotations

from collections.abc import Sequence

CODES = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "ABORTED": 409,
    "UNIMPLEMENTED": 501,
}


class ApiError(Exception):
    """A request that is refused. `status` is one of the names in `CODES`; `violations` are (field, description) pairs."""

    def __init__(self, status: str, message: str, violations: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.code = CODES[status]
        self.message = message
        self.violations = tuple(violations)

    def to_json(self) -> dict[str, object]:
        error: dict[str, object] = {"code": self.code, "message": self.message, "status": self.status}
        if self.violations:
            fields = [{"field": field, "description": description} for field, description in self.violations]
            error["details"] = [{"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": fields}]
        return {"error": error}


def not_found(kind: str, name: str) -> ApiError:
    return ApiError("NOT_FOUND", f"Resource '{name}' of kind '{kind}' in the local cloud does not exist")


def check_etag(given: str, current: str, name: str) -> None:
    """Raises ApiError ABORTED when the caller names an outdated version; an empty etag matches all."""
    if given and given != current:
        raise ApiError("ABORTED", f"Conflict for resource '{name}': got etag {given} but the current one is {current}; read it again")
