"""Plain URLs of objects, `/bucket/name`, as public and signed ones are: the part of the XML API that works here.

Each becomes a call of the JSON API. A signature is not looked at: nobody needs a permission here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from starlette.requests import Request

from local_cloud.storage.api.calls import Call
from local_cloud.storage.model.errors import InvalidArgument, NotSupported

_OPERATIONS = {"GET": "objects.get", "PUT": "objects.insert", "DELETE": "objects.delete"}
# First words of the JSON API's paths: what begins with them and is not known is no bucket.
_OF_THE_JSON_API = {"storage", "download", "upload", "resumable", "batch"}
# What makes another call of the XML API of a plain URL.
_OTHER_CALLS = {"acl", "compose", "partNumber", "tagging", "uploadId", "uploads"}
_CONDITIONS = {"x-goog-if-generation-match": "ifGenerationMatch", "x-goog-if-metageneration-match": "ifMetagenerationMatch"}
_FIELDS = {
    "content-type": "contentType",
    "content-encoding": "contentEncoding",
    "cache-control": "cacheControl",
    "content-disposition": "contentDisposition",
    "content-language": "contentLanguage",
    "x-goog-custom-time": "customTime",
    "x-goog-storage-class": "storageClass",
}
_METADATA = "x-goog-meta-"


def plain_call(method: str, raw_path: str, request: Request) -> Call | None:
    """None for what is no plain URL of an object. Raises InvalidArgument, NotSupported."""
    bucket, _, name = raw_path.lstrip("/").partition("/")
    if method not in _OPERATIONS or not name or bucket in _OF_THE_JSON_API:
        return None
    others = sorted(_OTHER_CALLS & set(request.query_params))
    if others or "x-goog-copy-source" in request.headers:
        what = f"?{others[0]}" if others else " with x-goog-copy-source"
        raise NotSupported(f"The local Cloud Storage has no {method} /bucket/object{what}: of the XML API it has plain URLs only")
    try:
        names = {"bucket": unquote(bucket, errors="strict"), "name": unquote(name, errors="strict")}
    except UnicodeDecodeError:
        raise InvalidArgument(f"The path '{raw_path}' is not valid UTF-8.") from None
    query = {key: request.headers[header] for header, key in _CONDITIONS.items() if header in request.headers}
    if "generation" in request.query_params:
        query["generation"] = request.query_params["generation"]
    return Call(_OPERATIONS[method], request, {**query, "alt": "media"}, names, is_plain=True)


def resource_of(headers: Mapping[str, str]) -> dict[str, Any]:
    """What the headers of an upload to a plain URL say of the object."""
    found: dict[str, Any] = {key: headers[header] for header, key in _FIELDS.items() if header in headers}
    metadata = {header.removeprefix(_METADATA): value for header, value in headers.items() if header.startswith(_METADATA)}
    return {**found, "metadata": metadata} if metadata else found
