"""Which calls came from whom, of each project: a set, so that it stays as small as the program is, however long it runs.

Who calls is what the caller says of itself: Fanout's processes call as `fanout-<role>/<version>`. Other callers are not recorded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

_HEADERS = (b"user-agent", b"x-goog-api-client")
_ROLE = re.compile(r"\bfanout-([a-z-]+)/")
PROJECT = "project"
"""The resource of a call that names none below its project."""


@lru_cache(maxsize=1024)
def role_in(text: str) -> str:
    """The role in a header by which clients name themselves; empty where there is none."""
    found = _ROLE.search(text)
    return found.group(1) if found else ""


def role_of(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The role of the caller of an HTTP request, by its raw headers."""
    return next((role for name, value in headers if name in _HEADERS and (role := role_in(value.decode("latin-1")))), "")


class Calls:
    """The calls of one service. Safe to use from any thread; kept in memory only."""

    def __init__(self) -> None:
        self._by_project: dict[str, set[tuple[str, str, str]]] = {}

    def add(self, project: str, role: str, method: str, resource: str) -> None:
        """`method` as in `pubsub.Pull`, `storage.objects.get`; `resource` as in `subscription:bulk`, or PROJECT."""
        if role and project:
            self._by_project.setdefault(project, set()).add((role, method, resource))

    def report(self, project: str) -> dict[str, object]:
        """`{"calls": [{"role", "method", "resource"}, …]}`, in order."""
        found = sorted(self._by_project.get(project, set()).copy())
        return {"calls": [{"role": role, "method": method, "resource": resource} for role, method, resource in found]}

    def clear(self, project: str) -> dict[str, object]:
        """Forget the project's calls; returns the last report of them."""
        report = self.report(project)
        self._by_project.pop(project, None)
        return report

    def routes(self) -> list[Route]:
        """`GET /calls?project=P` answers with the report, `DELETE /calls?project=P` also forgets them; without a project 400."""

        def answer(request: Request) -> JSONResponse:
            project = request.query_params.get("project", "")
            if not project:
                return JSONResponse({"error": f"/calls: say whose: {request.method} /calls?project=P"}, status_code=400)
            return JSONResponse(self.clear(project) if request.method == "DELETE" else self.report(project))

        return [Route("/calls", answer, methods=["GET", "DELETE"])]
