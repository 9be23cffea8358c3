"""The batch endpoint: many small calls in one request, each answered as if it had come alone.

Uploads, downloads and batches are refused inside a batch, as in the real service.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from email import message_from_bytes
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message

from local_cloud.storage.api.bodies import boundary_of, split_parts
from local_cloud.storage.api.calls import Call
from local_cloud.storage.model.errors import InvalidArgument

CALLS_LIMIT_COUNT = 1000
_BOUNDARY = "batch_of_the_local_cloud"

Serve = Callable[[Request], Awaitable[Response]]


class BatchRoutes:
    """`serve` answers one request."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self.handlers = {"batch": self._batch}

    async def _batch(self, call: Call) -> Response:
        parts = split_parts(await call.request.body(), boundary_of(call.request.headers.get("content-type", "")))
        if not 1 <= len(parts) <= CALLS_LIMIT_COUNT:
            raise InvalidArgument(f"A batch takes 1 to {CALLS_LIMIT_COUNT} calls, got {len(parts)}.")
        answers: list[bytes] = []
        for part in parts:
            headers, _, inner = part.partition(b"\n\n")
            content_id = message_from_bytes(headers).get("content-id", "")
            response = await self._serve(inner_request(inner, call.request))
            answers.append(_rendered(response, content_id))
        body = b"".join(f"--{_BOUNDARY}\r\n".encode() + answer + b"\r\n" for answer in answers) + f"--{_BOUNDARY}--\r\n".encode()
        return Response(body, media_type=f"multipart/mixed; boundary={_BOUNDARY}")


def inner_request(text: bytes, outer: Request) -> Request:
    """The request in a part of a batch. Raises InvalidArgument."""
    head, _, body = text.partition(b"\n\n")
    request_line, _, header_lines = head.partition(b"\n")
    words = request_line.decode("latin-1").split()
    if len(words) < 2:
        raise InvalidArgument(f"A part of the batch has no request line, but: '{request_line.decode('latin-1')}'")
    target = urlsplit(words[1])
    if not target.path.startswith("/storage/v1/") or "alt=media" in target.query:
        raise InvalidArgument(f"A batch takes calls on metadata only, not {words[0]} {target.path}")
    headers = [(key.lower().encode(), str(value).encode()) for key, value in message_from_bytes(header_lines).items()]
    headers = [(key, value) for key, value in headers if key != b"host"]
    headers.append((b"host", outer.headers.get("host", "localhost").encode()))
    scope = dict(outer.scope) | {
        "method": words[0].upper(),
        "path": target.path,
        "raw_path": target.path.encode(),
        "query_string": target.query.encode(),
        "headers": headers,
    }

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return Request(scope, receive)


def _rendered(response: Response, content_id: str) -> bytes:
    lines = ["Content-Type: application/http"]
    if content_id:
        lines.append(f"Content-ID: <response-{content_id.strip('<>')}>")
    lines += ["", f"HTTP/1.1 {response.status_code} -"]
    lines += [f"{key}: {value}" for key, value in response.headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + bytes(response.body)
