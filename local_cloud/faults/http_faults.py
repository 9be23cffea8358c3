"""Carries out faults on HTTP requests, for every service that answers a request with a response.

The rule: the effect that a fault's meaning names takes place whatever the client does. A call that is to be carried out is carried out with
all of its content, also when the client has gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send

from local_cloud.faults.script import Fault
from local_cloud.faults.timers import Later
from local_cloud.web.connection import connection_of, until_gone

Answer = Callable[[Request], Awaitable[Response]]

_REFUSALS = {
    "unavailable": (503, "UNAVAILABLE", "backendError"),
    "effect_after": (503, "UNAVAILABLE", "backendError"),
    "lost_response": (503, "UNAVAILABLE", "backendError"),
    "reset_connection": (503, "UNAVAILABLE", "backendError"),
    "deadline_exceeded": (504, "DEADLINE_EXCEEDED", "backendError"),
    "permission_denied": (403, "PERMISSION_DENIED", "forbidden"),
    "too_many_requests": (429, "RESOURCE_EXHAUSTED", "rateLimitExceeded"),
    "precondition_failed": (412, "FAILED_PRECONDITION", "conditionNotMet"),
}
_PAGE = "<!DOCTYPE html><html><title>Error 503 (Server Error)</title><p>The service is unavailable: fault {kind}, see GET /faults.</html>"
# For an answer or a request that does not say how long it is.
_UNKNOWN_HALF_BYTES = 1024


def refusal(fault: Fault) -> Response:
    """The error in the JSON that all of Google's HTTP interfaces share."""
    code, status, reason = _REFUSALS[fault.kind]
    text = f"This call was asked to fail (fault {fault.kind}, see GET /faults)."
    errors = [{"message": text, "domain": "global", "reason": reason}]
    return JSONResponse({"error": {"code": code, "message": text, "status": status, "errors": errors}}, code)


class HttpFaults:
    """`answer` takes the place of a service's own answer to a request that meets a fault."""

    def __init__(self, later: Later) -> None:
        self._later = later
        self._tasks: set[asyncio.Task[None]] = set()

    async def answer(self, fault: Fault, request: Request, answer: Answer) -> Response:
        """`answer` is the service's own; it raises nothing but ClientDisconnect."""
        match fault.kind:
            case "slow":
                await self._later.pause_task(fault.seconds or 0.0)
                return await answer(request)
            case "lost_response":
                await _unheard(await kept(request), answer)
                return Reset(fault)
            case "effect_after":
                self._plan(fault.seconds or 0.0, await kept(request), answer)
            case "http_503":
                return HTMLResponse(_PAGE.format(kind=fault.kind), 503)
            case "reset_connection" if request.method in ("POST", "PUT"):
                return await answer(_cut_request(request, fault.after_bytes))
            case "reset_connection" | "partial_body":
                return Cut(await answer(request), fault)
        return refusal(fault)

    def _plan(self, seconds: float, request: Request, answer: Answer) -> None:
        loop = asyncio.get_running_loop()

        def start() -> None:
            task = loop.create_task(_unheard(request, answer))
            # The loop itself holds a task only weakly.
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        def effect() -> None:
            # RuntimeError: the server has stopped, and drops its effects.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(start)

        self._later.do(seconds, effect)


async def kept(request: Request) -> Request:
    """The same request with its whole content in memory, to be answered at any time. Raises ClientDisconnect when it does not arrive
    whole."""
    body = await request.body()
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        return messages.pop() if messages else {"type": "http.disconnect"}

    return Request(dict(request.scope), receive)


async def _unheard(request: Request, answer: Answer) -> None:
    """Carry out a request and drop the answer; the response still runs, as it may hold an open file."""

    async def send(_message: Message) -> None:
        return None

    response = await answer(request)
    await response(request.scope, request.receive, send)


def _half(headers: list[tuple[bytes, bytes]]) -> int:
    length = next((value for key, value in headers if key.lower() == b"content-length"), b"")
    return int(length) // 2 if length.isdigit() else _UNKNOWN_HALF_BYTES


def _cut_request(request: Request, after_bytes: int | None) -> Request:
    """A request whose connection is reset when the service has read `after_bytes` of its content; a shorter one just before its end."""
    left = _half(list(request.scope["headers"])) if after_bytes is None else after_bytes
    waiting: list[Message] = []

    async def receive() -> Message:
        nonlocal left
        if waiting:
            return await cut()
        message = await request.receive()
        body = message.get("body", b"")
        if message["type"] == "http.request" and len(body) < left and message.get("more_body", False):
            left -= len(body)
            return message
        waiting.append(message)
        return {"type": "http.request", "body": body[:left], "more_body": True}

    async def cut() -> Message:
        connection_of(request.scope).reset()
        await until_gone(request.receive)
        return {"type": "http.disconnect"}

    return Request(request.scope, receive)


class Reset(Response):
    """Resets the connection in place of an answer; inside a batch, where there is none to reset, a 503."""

    def __init__(self, fault: Fault) -> None:
        instead = refusal(fault)
        super().__init__(instead.body, instead.status_code, dict(instead.headers))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del send
        connection_of(scope).reset()
        await until_gone(receive)


class Cut(Response):
    """The first part of another response. Inside a batch it is whole: there is no connection to cut."""

    def __init__(self, whole: Response, fault: Fault) -> None:
        super().__init__(getattr(whole, "body", b""), whole.status_code)
        self.raw_headers = whole.raw_headers
        self._whole = whole
        self._fault = fault

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        left = _half(self._whole.raw_headers) if self._fault.after_bytes is None else self._fault.after_bytes

        async def send_start(message: Message) -> None:
            nonlocal left
            if message["type"] != "http.response.body":
                await send(message)
            elif left > 0:
                part = bytes(message.get("body", b""))[:left]
                left -= len(part)
                # With the last byte the server would take the answer for complete.
                await send({"type": "http.response.body", "body": part, "more_body": True})

        await self._whole(scope, receive, send_start)
        if self._fault.kind == "partial_body":
            connection_of(scope).close()
        else:
            connection_of(scope).reset()
        with suppress(ClientDisconnect):
            await until_gone(receive)
