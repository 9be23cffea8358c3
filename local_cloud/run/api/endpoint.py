"""Turns an HTTP request into a call of a function of plain values, and its result into JSON, the same way for both versions of the API.

Handlers run in a thread, so that one that writes to disk does not delay the others; refusals become the API's error JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from local_cloud.addresses import is_gcloud_host
from local_cloud.run.spec.errors import ApiError, not_found
from local_cloud.web.connection import target_of
from local_cloud.web.json_text import strict_json

CANNOT_START = "local_cloud.cannot_start"
"""In the scope of a request: a value of `Call.cannot_start`."""


@dataclass(frozen=True)
class Call:
    """`path`: the named parts of the path. `host`: as the client wrote it. `cannot_start`: why the execution that the call makes never
    starts, where it was asked for."""

    path: Mapping[str, str]
    query: Mapping[str, str]
    body: bytes
    host: str
    cannot_start: str = ""

    def asked(self, name: str) -> bool:
        return self.query.get(name, "").lower() in ("true", "1")

    def json(self) -> object:
        """The body, `{}` where there is none. Raises ApiError INVALID_ARGUMENT."""
        try:
            found: object = strict_json(self.body or b"{}")
        except ValueError as error:
            raise ApiError("INVALID_ARGUMENT", f"Invalid JSON payload received: {error}") from error
        return found


Handler = Callable[[Call], dict[str, object] | Response]


def route(method: str, path: str, handler: Handler) -> Route:
    async def endpoint(request: Request) -> Response:
        host, obstacle = request.headers.get("host", ""), request.scope.get(CANNOT_START, "")
        call = Call(request.path_params, request.query_params, await request.body(), host, obstacle)
        try:
            answer = await run_in_threadpool(handler, call)
            return answer if isinstance(answer, Response) else JSONResponse(answer)
        except ApiError as error:
            return JSONResponse(error.to_json(), status_code=error.code)

    return Route(path, endpoint, methods=[method])


def locked_route(lock: AbstractContextManager[object], method: str, path: str, handler: Handler) -> Route:
    """The same for a handler that reads or changes what `lock` guards."""

    def locked(call: Call) -> dict[str, object] | Response:
        with lock:
            return handler(call)

    return route(method, path, locked)


async def answer_unknown(request: Request, reason: Exception) -> Response:
    """The answer to paths and methods that no route has."""
    del reason
    error = not_found("METHOD", f"{request.method} {request.url.path}")
    return JSONResponse(error.to_json(), status_code=error.code)


class AbsoluteTargets:
    """Accepts `GET http://us-central1-run.local/path`, as gcloud sends it, which takes this server for its proxy; refuses other hosts.

    Some HTTP parsers reduce the target to its path; the connection has it whole.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Some scopes are of no HTTP request.
        target = target_of(scope) if scope["type"] == "http" else ""
        if target.startswith(("http://", "https://")):
            host, _, rest = target.partition("://")[2].partition("/")
            if not is_gcloud_host(host):
                refused = ApiError("PERMISSION_DENIED", f"the local Cloud Run is no proxy: it does not fetch anything from {host}")
                await JSONResponse(refused.to_json(), status_code=refused.code)(scope, receive, send)
                return
            if scope["path"] == target:
                scope = {**scope, "path": f"/{rest}", "raw_path": f"/{rest}".encode()}
        await self._app(scope, receive, send)
