"""Answers with the content of an object: whole, a range of bytes, or unzipped for clients that did not ask for gzip.

Content goes out in blocks from a file that was opened together with its metadata: never two generations in one answer.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping
from typing import BinaryIO

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from local_cloud.storage.api.rendering import etag
from local_cloud.storage.model.errors import RangeNotSatisfiable
from local_cloud.storage.model.files import blocks
from local_cloud.storage.model.records import StoredObject

_BLOCK_BYTES = 256 * 1024
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """First byte and length that a Range header asks for; None if it asks for all, or is not understood (RFC 9110: ignore it).

    Raises RangeNotSatisfiable.
    """
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None or not any(match.groups()):
        return None
    first, last = match.groups()
    if not first:
        start, end = max(0, size - int(last)), size - 1
    else:
        start, end = int(first), min(int(last), size - 1) if last else size - 1
        if last and int(last) < start:
            return None
    if start >= size:
        raise RangeNotSatisfiable(size)
    return start, end - start + 1


class Media(Response):
    """Streams blocks and closes the file, whether the client takes all of them or not."""

    def __init__(self, file: BinaryIO, content: Iterator[bytes], status: int, headers: Mapping[str, str]) -> None:
        super().__init__(status_code=status)
        self._file = file
        self._content = content
        self.raw_headers = [(key.lower().encode(), value.encode("latin-1", "replace")) for key, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - given by Starlette
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            for block in self._content:
                await send({"type": "http.response.body", "body": block, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._file.close()


def media_response(stored: StoredObject, file: BinaryIO, request_headers: Mapping[str, str]) -> Response:
    """The answer to `alt=media`, which closes `file`. Raises RangeNotSatisfiable."""
    headers = _headers(stored)
    if _is_to_unzip(stored, file, request_headers):
        headers["warning"] = "214 UploadServer gunzipped"
        return Media(file, _unzipped(file), 200, headers)
    if "contentEncoding" in stored.fields:
        headers["content-encoding"] = stored.fields["contentEncoding"]
    try:
        wanted = byte_range(request_headers.get("range"), stored.size)
    except RangeNotSatisfiable:
        file.close()
        raise
    start, length = wanted or (0, stored.size)
    if wanted:
        headers["content-range"] = f"bytes {start}-{start + length - 1}/{stored.size}"
    headers["content-length"] = str(length)
    return Media(file, _slice(file, start, length), 206 if wanted else 200, headers)


def _headers(stored: StoredObject) -> dict[str, str]:
    hashes = f"crc32c={stored.crc32c}" + (f",md5={stored.md5}" if stored.md5 else "")
    headers = {
        "content-type": stored.content_type,
        "accept-ranges": "bytes",
        "etag": etag(stored.generation, stored.metageneration),
        "x-goog-generation": str(stored.generation),
        "x-goog-metageneration": str(stored.metageneration),
        "x-goog-hash": hashes,
        "x-goog-storage-class": str(stored.fields.get("storageClass", "STANDARD")),
        "x-goog-stored-content-encoding": str(stored.fields.get("contentEncoding", "identity")),
        "x-goog-stored-content-length": str(stored.size),
    }
    optional = {
        "cache-control": "cacheControl",
        "content-disposition": "contentDisposition",
        "content-language": "contentLanguage",
    }
    headers.update({header: str(stored.fields[key]) for header, key in optional.items() if key in stored.fields})
    return {key: value.replace("\r", " ").replace("\n", " ") for key, value in headers.items()}


def _slice(file: BinaryIO, start: int, length: int) -> Iterator[bytes]:
    file.seek(start)
    while length > 0 and (block := file.read(min(length, _BLOCK_BYTES))):
        length -= len(block)
        yield block


def _is_to_unzip(stored: StoredObject, file: BinaryIO, request_headers: Mapping[str, str]) -> bool:
    """Content that only claims to be gzip is sent as it is."""
    if stored.fields.get("contentEncoding") != "gzip" or "no-transform" in str(stored.fields.get("cacheControl", "")):
        return False
    magic = file.read(2)
    file.seek(0)
    return magic == b"\x1f\x8b" and "gzip" not in request_headers.get("accept-encoding", "")


def _unzipped(file: BinaryIO) -> Iterator[bytes]:
    """All members of the gzip one after the other, as an object composed of compressed ones has several."""
    inflater = zlib.decompressobj(wbits=31)
    for block in blocks(file):
        yield inflater.decompress(block)
        while inflater.eof and inflater.unused_data:
            rest, inflater = inflater.unused_data, zlib.decompressobj(wbits=31)
            yield inflater.decompress(rest)
    yield inflater.flush()
