"""The bodies of requests: JSON, the two parts of an upload, the parts of a batch, and compressed ones."""

from __future__ import annotations

import zlib
from email import message_from_bytes
from email.message import Message
from typing import Any

from starlette.requests import Request
from starlette.types import Message as Event

from local_cloud.storage.model.errors import InvalidArgument
from local_cloud.web.json_text import strict_json

_HEAD_LIMIT_BYTES = 1024 * 1024


def boundary_of(content_type: str) -> bytes:
    """The boundary of a multipart Content-Type, with or without single quotes. Raises InvalidArgument."""
    message = Message()
    message["content-type"] = content_type
    boundary = (message.get_boundary() or "").strip("'\"")
    if not boundary:
        raise InvalidArgument(f"Multipart body is malformed: no boundary in the Content-Type '{content_type}'.")
    return boundary.encode()


class RelatedBody:
    """Parser of a multipart/related body as it arrives: a JSON part and a media part. Clients end lines with CRLF or with LF: what follows
    the first boundary counts for the whole body. `resource` and `media_type` are set once `feed` has returned media or `end` was called."""

    def __init__(self, boundary: bytes) -> None:
        self._dashes = b"--" + boundary
        self._buffer = b""
        self._delimiter: bytes | None = None  # known once the media begins
        self._closed = False
        self.resource: dict[str, Any] = {}
        self.media_type = ""

    def feed(self, data: bytes) -> bytes:
        """Take a piece of the body; returns the media that is complete so far. Raises InvalidArgument."""
        if self._closed:
            return b""
        self._buffer += data
        if self._delimiter is None and not self._read_head():
            if len(self._buffer) > _HEAD_LIMIT_BYTES:
                raise InvalidArgument(f"Multipart body is malformed: no media part begins within {_HEAD_LIMIT_BYTES} bytes.")
            return b""
        return self._take_media()

    def end(self) -> None:
        """The body has ended. Raises InvalidArgument if it is incomplete."""
        if not self._closed:
            raise InvalidArgument("Multipart body is malformed: it ends before the closing boundary.")

    def _read_head(self) -> bool:
        start = self._buffer.find(self._dashes)
        line = start + len(self._dashes)
        if start < 0 or len(self._buffer) < line + 2:
            return False
        eol = b"\r\n" if self._buffer.startswith(b"\r\n", line) else b"\n"
        json_start = self._buffer.find(eol + eol, line)
        json_end = self._buffer.find(eol + self._dashes, json_start)
        media_line = json_end + len(eol) + len(self._dashes)
        media_start = self._buffer.find(eol + eol, media_line)
        if min(json_start, json_end, media_start) < 0:
            return False
        self.resource = json_object(self._buffer[json_start:json_end])
        headers = message_from_bytes(self._buffer[media_line:media_start].strip())
        self.media_type = headers.get("content-type", "")
        self._buffer = self._buffer[media_start + 2 * len(eol) :]
        self._delimiter = eol + self._dashes
        return True

    def _take_media(self) -> bytes:
        delimiter = self._delimiter or b""
        found = self._buffer.find(delimiter)
        if found >= 0:
            media, self._buffer, self._closed = self._buffer[:found], b"", True
            return media
        keep = len(delimiter) - 1
        media, self._buffer = self._buffer[:-keep], self._buffer[-keep:]
        return media


def json_object(body: bytes) -> dict[str, Any]:
    """The JSON object of a body; an empty one for an empty body. Raises InvalidArgument."""
    if not body.strip():
        return {}
    try:
        value = strict_json(body)
    except ValueError as error:
        raise InvalidArgument(f"Parse Error: {error}") from None
    if not isinstance(value, dict):
        raise InvalidArgument(f"Parse Error: a JSON object is wanted, got {type(value).__name__}.")
    return value


def split_parts(body: bytes, boundary: bytes) -> list[bytes]:
    """The parts of a multipart/mixed body, each with its headers, line ends as they came."""
    pieces = (b"\n" + body.replace(b"\r\n", b"\n")).split(b"\n--" + boundary)
    return [piece.removeprefix(b"\n") for piece in pieces[1:] if not piece.startswith(b"--")]


def unzipped(request: Request) -> Request:
    """The request with its body unzipped as it arrives, if its `Content-Encoding` is gzip, as `gcloud storage cp --gzip-in-flight` sends
    it. (An object that stays compressed says so in its `contentEncoding`, not in this header.) Reading the body raises InvalidArgument if
    it is no gzip, or incomplete."""
    if request.headers.get("content-encoding", "").lower() != "gzip":
        return request
    inflater = zlib.decompressobj(wbits=31)
    has_begun = False

    async def receive() -> Event:
        nonlocal has_begun
        message = await request.receive()
        if message["type"] != "http.request":
            return message
        body = message.get("body", b"")
        has_begun = has_begun or bool(body)
        try:
            content = inflater.decompress(body)
        except zlib.error as error:
            raise InvalidArgument(f"The body is not what its Content-Encoding says, gzip: {error}.") from None
        is_cut = has_begun and not inflater.eof and not message.get("more_body", False)
        if is_cut or inflater.unused_data:
            raise InvalidArgument("The body is not what its Content-Encoding says, one whole gzip.")
        return {**message, "body": content}

    headers = [(key, value) for key, value in request.scope["headers"] if key.lower() != b"content-encoding"]
    return Request(dict(request.scope) | {"headers": headers}, receive)
