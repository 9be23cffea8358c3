"""The JSON API of Cloud Storage for one bucket: what each request is, and what an answer says. No I/O.

Names are percent-encoded whole, slashes too: an object's name is one segment of the path, whatever it holds.
"""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import quote

from batch.model.clock import from_iso
from batch.model.errors import ObjectTooLarge
from batch.services.arriving import Unzipping, damaged
from batch.services.ports import ObjectInfo
from batch.services.refusals import Refusal

LIST_PAGE = 1000
MISSHAPEN = (AttributeError, LookupError, OverflowError, RecursionError, TypeError, ValueError)
"""What reading an answer raises when it lacks what Cloud Storage always says."""
_LIST_FIELDS = "items(name,generation,size,metadata,contentType,updated,crc32c),nextPageToken"
_AS_STORED = {"Accept-Encoding": "gzip"}
"""Or Cloud Storage unzips what is stored with `Content-Encoding: gzip`, and its checksum is that of other bytes."""
_JSON = {"Content-Type": "application/json"}


class Request(NamedTuple):
    """`path` begins below the endpoint, and has its query. `is_conditional`: a 412 is its answer. `max_bytes`: how much of the answer is
    taken."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes | None = None
    is_conditional: bool = False
    max_bytes: int | None = None


class Answer(NamedTuple):
    """`body` is as it came, not unzipped; empty where there is more than the request takes, which `is_cut` says. The names of `headers` are
    found in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    is_cut: bool = False


@dataclass(frozen=True, slots=True)
class Bucket:
    """The requests about one bucket. `billing_project` pays for each, if it is not empty."""

    name: str
    billing_project: str = ""

    def read(self, name: str, generation: int | None = None, max_bytes: int | None = None) -> Request:
        """The content of an object."""
        return Request("GET", self._path("/download", name, "alt=media", generation=generation), _AS_STORED, max_bytes=max_bytes)

    def look_up(self, name: str) -> Request:
        """What is known of an object."""
        return Request("GET", self._path("", name, "projection=noAcl&prettyPrint=false"), {})

    def write(
        self, name: str, data: bytes, content_type: str, metadata: Mapping[str, str], if_generation: int | None, boundary: str
    ) -> Request:
        """`boundary` must not be part of the content. Cloud Storage refuses content that has another checksum than was sent with it."""
        resource: dict[str, object] = {"name": name, "contentType": content_type, "crc32c": crc32c(data)}
        if metadata:
            resource["metadata"] = _texts(metadata)
        head = (
            f"--{boundary}\r\ncontent-type: application/json; charset=UTF-8\r\n\r\n{json.dumps(resource)}\r\n"
            f"--{boundary}\r\ncontent-type: {content_type}\r\n\r\n"
        )
        body = b"".join((head.encode(), data, f"\r\n--{boundary}--".encode()))
        path = self._path("/upload", "", "uploadType=multipart&prettyPrint=false", ifGenerationMatch=if_generation)
        return Request("POST", path, {"Content-Type": f'multipart/related; boundary="{boundary}"'}, body, if_generation is not None)

    def patch(self, name: str, metadata: Mapping[str, str]) -> Request:
        """Merge metadata. With all properties in the answer, for without them the request is documented not to work properly."""
        body = json.dumps({"metadata": _texts(metadata)}).encode()
        return Request("PATCH", self._path("", name, "projection=full&prettyPrint=false"), _JSON, body)

    def delete(self, name: str, if_generation: int | None) -> Request:
        """Delete an object."""
        path = self._path("", name, "prettyPrint=false", ifGenerationMatch=if_generation)
        return Request("DELETE", path, {}, None, if_generation is not None)

    def list(self, prefix: str, page_token: str = "", most: int = LIST_PAGE, start: str = "") -> Request:
        """One page of a listing."""
        query = f"projection=noAcl&prettyPrint=false&maxResults={most}&prefix={_encoded(prefix)}&fields={_encoded(_LIST_FIELDS)}"
        return Request("GET", self._path("", "", query, startOffset=start or None, pageToken=page_token or None), {})

    def _path(self, service: str, name: str, query: str, **more: object) -> str:
        of_object = f"/{_encoded(name)}" if name else ""
        paid = f"&userProject={_encoded(self.billing_project)}" if self.billing_project else ""
        rest = "".join(f"&{key}={_encoded(str(value))}" for key, value in more.items() if value is not None)
        return f"{service}/storage/v1/b/{_encoded(self.name)}/o{of_object}?{query}{rest}{paid}"


def info_of(item: Mapping[str, Any], name: str = "") -> ObjectInfo:
    """An object's resource, under its own name or that by which it was asked for. Raises one of MISSHAPEN."""
    updated = item.get("updated")
    return ObjectInfo(
        name=name or str(item["name"]),
        generation=int(item["generation"]),
        size=int(item.get("size") or 0),
        metadata={str(key): str(value) for key, value in (item.get("metadata") or {}).items()},
        content_type=str(item.get("contentType") or ""),
        updated_s=from_iso(updated) if updated is not None else 0.0,
        crc32c=str(item.get("crc32c") or ""),
    )


def page_of(answer: Answer) -> tuple[list[ObjectInfo], str]:
    """The objects of one page of a listing, and the token of the next, empty when there is none. Raises one of MISSHAPEN."""
    body = json.loads(answer.body)
    return [info_of(item) for item in body.get("items") or ()], str(body.get("nextPageToken") or "")


def refusal_in(answer: Answer) -> Refusal:
    """What a service said that did not do what was asked: in JSON, or, where it is a download or somebody else's, as a text."""
    body = answer.body
    if answer.headers.get("content-encoding", "").lower() == "gzip":
        try:
            body = gzip.decompress(body)
        except (EOFError, zlib.error, OSError):
            body = b""
    text = body.decode(errors="replace")
    try:
        error = json.loads(body)["error"]
        return Refusal(answer.status, str(error.get("message") or text), _reason(error))
    except MISSHAPEN:
        return Refusal(answer.status, text)


def _reason(error: Mapping[str, Any]) -> str:
    try:
        return str(error["errors"][0]["reason"])
    except MISSHAPEN:
        return ""


def is_bounded(answer: Answer) -> bool:
    """Whether content says where it ends, or what it is: without, as when the head of an answer is cut, a part passes for the whole."""
    return any(name in answer.headers for name in ("content-length", "transfer-encoding", "x-goog-hash"))


def damage_of(answer: Answer) -> str:
    """How content differs from its checksum; empty when it does not, or none came with it."""
    for one in answer.headers.get("x-goog-hash", "").split(","):
        kind, _, expected = one.strip().partition("=")
        if kind == "crc32c" and (found := crc32c(answer.body)) != expected:
            return f"crc32c {found} of {len(answer.body)} bytes, not {expected}"
    return ""


def crc32c(data: bytes) -> str:
    """Base64 of the big-endian CRC32C, as Cloud Storage gives it."""
    import google_crc32c

    return base64.b64encode(google_crc32c.value(data).to_bytes(4, "big")).decode()


def unzipped(name: str, data: bytes, max_bytes: int | None = None) -> bytes:
    """The whole of it: a stream that ends early, or whose checksum or length is wrong, is never read short. Raises ObjectDamaged, and
    ObjectTooLarge before more than `max_bytes` are unzipped."""
    if max_bytes is not None:
        return _unzipped_within(name, data, max_bytes)
    try:
        return gzip.decompress(data)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise damaged(name, error) from error


def _unzipped_within(name: str, data: bytes, max_bytes: int) -> bytes:
    found = bytearray()

    def keep(piece: bytes) -> None:
        if len(found) + len(piece) > max_bytes:
            raise ObjectTooLarge(name, max_bytes)
        found.extend(piece)

    unzipping = Unzipping(keep)
    unzipping.feed(data)
    if problem := unzipping.problem():
        raise damaged(name, problem)
    return bytes(found)


def _texts(metadata: Mapping[str, str]) -> dict[str, str | None]:
    return {str(key): None if value is None else str(value) for key, value in metadata.items()}


def _encoded(text: str) -> str:
    return quote(text, safe="")
