"""A request as a call of the storage API: which operation it is and on what, read from its method and its raw path.

Names are taken from the path before it is decoded, as an encoded slash belongs to a name and a plain one does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from starlette.requests import Request

from local_cloud.storage.api.multipart import json_object
from local_cloud.storage.model.conditions import integer
from local_cloud.storage.model.errors import InvalidArgument
from local_cloud.storage.model.storage import Ref

# (method, path, operation). {words} stand for one segment each.
_OPERATIONS = (
    ("GET", "storage/v1/b", "buckets.list"),
    ("POST", "storage/v1/b", "buckets.insert"),
    ("GET", "storage/v1/b/{bucket}", "buckets.get"),
    ("PATCH", "storage/v1/b/{bucket}", "buckets.patch"),
    ("PUT", "storage/v1/b/{bucket}", "buckets.update"),
    ("DELETE", "storage/v1/b/{bucket}", "buckets.delete"),
    ("GET", "storage/v1/b/{bucket}/storageLayout", "buckets.getStorageLayout"),
    ("GET", "storage/v1/b/{bucket}/managedFolders", "managedFolders.list"),
    ("GET", "storage/v1/b/{bucket}/o", "objects.list"),
    ("GET", "storage/v1/b/{bucket}/o/{name}", "objects.get"),
    ("GET", "download/storage/v1/b/{bucket}/o/{name}", "objects.get"),
    ("PATCH", "storage/v1/b/{bucket}/o/{name}", "objects.patch"),
    ("PUT", "storage/v1/b/{bucket}/o/{name}", "objects.update"),
    ("DELETE", "storage/v1/b/{bucket}/o/{name}", "objects.delete"),
    ("POST", "storage/v1/b/{bucket}/o/{name}/compose", "objects.compose"),
    ("POST", "storage/v1/b/{bucket}/o/{name}/copyTo/b/{target_bucket}/o/{target_name}", "objects.copy"),
    ("POST", "storage/v1/b/{bucket}/o/{name}/rewriteTo/b/{target_bucket}/o/{target_name}", "objects.rewrite"),
    ("POST", "storage/v1/b/{bucket}/o/{name}/moveTo/o/{target_name}", "objects.move"),
    ("POST", "upload/storage/v1/b/{bucket}/o", "objects.insert"),
    ("PUT", "upload/storage/v1/b/{bucket}/o", "objects.insert"),
    ("DELETE", "upload/storage/v1/b/{bucket}/o", "objects.insert"),
    # gcloud starts its resumable uploads here, and goes on at the address that it is given.
    ("POST", "resumable/upload/storage/v1/b/{bucket}/o", "objects.insert"),
    ("POST", "batch/storage/v1", "batch"),
)
METHODS = sorted({_operation for _, _, _operation in _OPERATIONS} - {"batch"})
_BY_SHAPE: dict[tuple[str, int], list[tuple[list[str], str]]] = {}
for _method, _path, _operation in _OPERATIONS:
    _segments = _path.split("/")
    _BY_SHAPE.setdefault((_method, len(_segments)), []).append((_segments, _operation))


def operation_of(method: str, raw_path: str) -> tuple[str, dict[str, str]] | None:
    """The operation and the decoded names in the path; None if the API has no such thing. Raises InvalidArgument on bad UTF-8."""
    segments = raw_path.strip("/").split("/")
    for pattern, operation in _BY_SHAPE.get((method, len(segments)), ()):
        if all(part.startswith("{") or part == segment for part, segment in zip(pattern, segments, strict=True)):
            return operation, {part[1:-1]: _decoded(segment) for part, segment in zip(pattern, segments, strict=True) if part[0] == "{"}
    return None


def _decoded(segment: str) -> str:
    try:
        return unquote(segment, errors="strict")
    except UnicodeDecodeError:
        raise InvalidArgument(f"The path segment '{segment}' is not valid UTF-8.") from None


@dataclass(frozen=True, slots=True)
class Call:
    """One call. `operation` is a method of the API without its `storage.`, e.g. `objects.insert`; `is_plain`: on an object's plain URL."""

    operation: str
    request: Request
    query: Mapping[str, str]
    names: Mapping[str, str] = field(default_factory=dict)
    is_plain: bool = False

    @property
    def bucket(self) -> str:
        return self.names["bucket"]

    @property
    def is_media(self) -> bool:
        return self.operation == "objects.get" and self.query.get("alt") == "media"

    @property
    def base_url(self) -> str:
        """The address that the client used, without a slash at its end."""
        return f"{self.request.url.scheme}://{self.request.headers.get('host', 'localhost')}"

    def ref(self) -> Ref:
        return Ref(self.names["bucket"], self.names["name"], integer(self.query, "generation"))

    def flag(self, key: str) -> bool:
        return self.query.get(key, "").lower() == "true"

    async def json(self) -> dict[str, Any]:
        """The body, an empty one as an empty object. Raises InvalidArgument."""
        return json_object(await self.request.body())
