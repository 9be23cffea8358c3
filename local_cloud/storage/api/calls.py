"""A request as a call of the storage API: which operation it is and on what, read from its method and its raw path.

Names are taken from the path before it is decoded, as an encoded slash belongs to a name and a plain one does not. Plain URLs of objects,
`/bucket/name`, as public and signed ones are, become calls of the JSON API too. Signatures are ignored, as there is no access control.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from starlette.requests import Request

from local_cloud.storage.api.bodies import json_object, unzipped
from local_cloud.storage.model.conditions import Conditions
from local_cloud.storage.model.errors import InvalidArgument, NotSupported
from local_cloud.storage.model.storage import Ref

# (method, path, operation). {words} match one segment each.
_OPERATIONS = (
    ("GET", "storage/v1/b", "buckets.list"),
    ("POST", "storage/v1/b", "buckets.insert"),
    ("GET", "storage/v1/b/{bucket}", "buckets.get"),
    ("PATCH", "storage/v1/b/{bucket}", "buckets.patch"),
    ("PUT", "storage/v1/b/{bucket}", "buckets.update"),
    ("DELETE", "storage/v1/b/{bucket}", "buckets.delete"),
    ("GET", "storage/v1/b/{bucket}/storageLayout", "buckets.getStorageLayout"),
    ("GET", "storage/v1/b/{bucket}/managedFolders", "managedFolders.list"),
    ("GET", "storage/v1/projects/{project}/serviceAccount", "projects.serviceAccount.get"),
    ("GET", "storage/v1/b/{bucket}/notificationConfigs", "notifications.list"),
    ("POST", "storage/v1/b/{bucket}/notificationConfigs", "notifications.insert"),
    ("GET", "storage/v1/b/{bucket}/notificationConfigs/{notification}", "notifications.get"),
    ("DELETE", "storage/v1/b/{bucket}/notificationConfigs/{notification}", "notifications.delete"),
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
    # gcloud starts its resumable uploads here, and goes on at the address in the answer.
    ("POST", "resumable/upload/storage/v1/b/{bucket}/o", "objects.insert"),
    ("POST", "batch/storage/v1", "batch"),
)
METHODS = sorted({_operation for _, _, _operation in _OPERATIONS} - {"batch"})
_BY_SHAPE: dict[tuple[str, int], list[tuple[list[str], str]]] = {}
for _method, _path, _operation in _OPERATIONS:
    _segments = _path.split("/")
    _BY_SHAPE.setdefault((_method, len(_segments)), []).append((_segments, _operation))
_PLAIN_OPERATIONS = {"GET": "objects.get", "PUT": "objects.insert", "DELETE": "objects.delete"}
# First words of the JSON API's paths, which are no buckets.
_OF_THE_JSON_API = {"storage", "download", "upload", "resumable", "batch"}
# Parameters that make another call of the XML API of a plain URL.
_OTHER_CALLS = {"acl", "compose", "partNumber", "tagging", "uploadId", "uploads"}
_PLAIN_CONDITIONS = {"x-goog-if-generation-match": "ifGenerationMatch", "x-goog-if-metageneration-match": "ifMetagenerationMatch"}
_PLAIN_FIELDS = {
    "content-type": "contentType",
    "content-encoding": "contentEncoding",
    "cache-control": "cacheControl",
    "content-disposition": "contentDisposition",
    "content-language": "contentLanguage",
    "x-goog-custom-time": "customTime",
    "x-goog-storage-class": "storageClass",
}
_PLAIN_METADATA = "x-goog-meta-"


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
        return Ref(self.names["bucket"], self.names["name"], self.integer("generation"))

    def flag(self, key: str) -> bool:
        return self.query.get(key, "").lower() == "true"

    def integer(self, key: str) -> int | None:
        """A whole number of the query, None if it is not given. Raises InvalidArgument."""
        text = self.query.get(key, "")
        try:
            return int(text) if text else None
        except ValueError:
            raise InvalidArgument(f"Invalid value for {key}: '{text}'. Valid are whole numbers.") from None

    def conditions(self, *, source: bool = False) -> Conditions:
        """The preconditions of the request: `ifGenerationMatch` and the like, or with `source` `ifSourceGenerationMatch` and the like."""
        prefix = "ifSource" if source else "if"
        not_match = self.integer(f"{prefix}MetagenerationNotMatch")
        if not_match is None:  # the Python client spells it with a capital G when it uploads
            not_match = self.integer(f"{prefix}MetaGenerationNotMatch")
        return Conditions(
            generation_match=self.integer(f"{prefix}GenerationMatch"),
            generation_not_match=self.integer(f"{prefix}GenerationNotMatch"),
            metageneration_match=self.integer(f"{prefix}MetagenerationMatch"),
            metageneration_not_match=not_match,
        )

    def plain_resource(self) -> dict[str, Any]:
        """What the headers of an upload to a plain URL say of the object."""
        headers = self.request.headers
        found: dict[str, Any] = {key: headers[header] for header, key in _PLAIN_FIELDS.items() if header in headers}
        metadata = {key.removeprefix(_PLAIN_METADATA): value for key, value in headers.items() if key.startswith(_PLAIN_METADATA)}
        return {**found, "metadata": metadata} if metadata else found

    async def json(self) -> dict[str, Any]:
        """The body, an empty one as an empty object. Raises InvalidArgument."""
        return json_object(await self.request.body())


def call_of(request: Request) -> Call:
    """What a request of the JSON API, or one to the plain URL of an object, asks for. Raises InvalidArgument, NotSupported."""
    raw_path: bytes = request.scope.get("raw_path") or request.scope["path"].encode()
    path = raw_path.decode("latin-1").partition("?")[0]
    # The server drops the body of an answer to HEAD.
    method = "GET" if request.method == "HEAD" else request.method
    found = operation_of(method, path)
    if found is not None:
        return Call(found[0], unzipped(request), request.query_params, found[1])
    plain = _plain_call(method, path, request)
    if plain is None:
        raise NotSupported(f"The local Cloud Storage has no {request.method} {request.url.path}")
    return plain


def _plain_call(method: str, raw_path: str, request: Request) -> Call | None:
    """The call on an object's plain URL; None when it is none. Raises InvalidArgument, NotSupported."""
    bucket, _, name = raw_path.lstrip("/").partition("/")
    if method not in _PLAIN_OPERATIONS or not name or bucket in _OF_THE_JSON_API:
        return None
    others = sorted(_OTHER_CALLS & set(request.query_params))
    if others or "x-goog-copy-source" in request.headers:
        what = f"?{others[0]}" if others else " with x-goog-copy-source"
        raise NotSupported(f"The local Cloud Storage has no {method} /bucket/object{what}: of the XML API it has plain URLs only")
    names = {"bucket": _decoded(bucket), "name": _decoded(name)}
    query = {key: request.headers[header] for header, key in _PLAIN_CONDITIONS.items() if header in request.headers}
    if "generation" in request.query_params:
        query["generation"] = request.query_params["generation"]
    return Call(_PLAIN_OPERATIONS[method], request, {**query, "alt": "media"}, names, is_plain=True)
