"""Requests whose body was zipped for the way: `Content-Encoding: gzip`, as `gcloud storage cp --gzip-in-flight` sends it.

What arrives is what the client had before: an object that stays zipped says so in its `contentEncoding`, not in this header.
"""

from __future__ import annotations

import zlib

from starlette.requests import Request
from starlette.types import Message

from local_cloud.storage.model.errors import InvalidArgument


def unzipped(request: Request) -> Request:
    """The request with its body unzipped as it comes, if it is zipped; reading it raises InvalidArgument if it is no gzip, or cut."""
    if request.headers.get("content-encoding", "").lower() != "gzip":
        return request
    inflater = zlib.decompressobj(wbits=31)
    has_begun = False

    async def receive() -> Message:
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
