"""Calls of the Cloud Run API, of both versions: which call a request is, and the wrapper around the application, which records who makes it
and carries out faults.

A request that meets no fault reaches the application unchanged.
"""

from __future__ import annotations

import re

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from local_cloud.calls import PROJECT, Calls, role_of
from local_cloud.faults.http_faults import HttpFaults
from local_cloud.faults.kinds import RUN, kinds_for
from local_cloud.faults.script import Script
from local_cloud.faults.timers import Later
from local_cloud.run.api.endpoint import CANNOT_START

METHODS = (
    *(f"jobs.{verb}" for verb in ("list", "create", "get", "patch", "replaceJob", "delete", "run")),
    *(f"executions.{verb}" for verb in ("list", "get", "cancel", "delete")),
    *(f"{noun}.{verb}" for noun in ("tasks", "operations") for verb in ("list", "get")),
    "operations.wait",
)
_PROJECT = re.compile(r"/(?:v2/projects|apis/run\.googleapis\.com/v1/namespaces)/([^/]+)/(.+)")
_VERBS = {"GET": "get", "PATCH": "patch", "PUT": "replaceJob", "DELETE": "delete"}


def method_of(http_method: str, path: str) -> tuple[str, str]:
    """The project and the method (one of METHODS) of a request; both empty where it is no call of the API."""
    matched = _PROJECT.fullmatch(path)
    if matched is None:
        return "", ""
    project, below = matched.groups()
    # Collections and names in turn: jobs/lane/executions is a collection, jobs/lane:run a name with an action.
    parts = below.split("/")
    if len(parts) % 2:
        noun, verb = parts[-1], {"GET": "list", "POST": "create"}.get(http_method, "")
    else:
        noun, action = parts[-2], parts[-1].partition(":")[2]
        verb = action or _VERBS.get(http_method, "")
    method = f"{noun}.{verb}"
    return (project, method) if method in METHODS else ("", "")


def resource_of(path: str) -> str:
    """The job that a path names; of v1, where an execution's has none, also PROJECT."""
    _, found, rest = path.partition("/jobs/")
    return f"job:{re.split('[/:]', rest)[0]}" if found else PROJECT


class Faulty:
    """Wraps the application; tells the script what each method can meet."""

    def __init__(self, app: ASGIApp, script: Script, later: Later, calls: Calls) -> None:
        self._app = app
        self._calls = calls
        self._script = script
        self._faults = HttpFaults(later)
        for method in METHODS:
            script.allow(method, kinds_for(RUN, method))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault = None
        if scope["type"] == "http":
            project, method = method_of(scope["method"], scope["path"])
            self._calls.add(project, role_of(scope["headers"]), f"run.{method}", resource_of(scope["path"]))
            fault = self._script.next(project, method)
        if fault is not None and fault.reason:
            scope, fault = {**scope, CANNOT_START: fault.reason}, None
        if fault is None:
            await self._app(scope, receive, send)
        else:
            request = Request(scope, receive)
            response = await self._faults.answer(fault, request, self._answer)
            await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        """The application's answer as a whole; all of its answers are short."""
        captured = Response()
        parts: list[bytes] = []

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                captured.status_code = message["status"]
                captured.raw_headers = list(message["headers"])
            else:
                parts.append(message.get("body", b""))

        await self._app(request.scope, request.receive, send)
        captured.body = b"".join(parts)
        return captured
