"""Buckets and objects as values: what is known of them, and which names and fields are valid.

They never change in place: a change is a new value, so that a reader keeps a consistent view.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from local_cloud.storage.model.errors import InvalidArgument

METADATA_LIMIT_BYTES = 8 * 1024
NAME_LIMIT_BYTES = 1024

# Fields of an object that a client may set; others that it sends are the server's own and ignored.
OBJECT_FIELDS = (
    "cacheControl",
    "contentDisposition",
    "contentEncoding",
    "contentLanguage",
    "contentType",
    "customTime",
    "eventBasedHold",
    "metadata",
    "storageClass",
    "temporaryHold",
)
# Fields of a bucket that are the server's own.
BUCKET_SERVER_FIELDS = frozenset(
    {"etag", "generation", "id", "kind", "metageneration", "name", "projectNumber", "selfLink", "timeCreated", "updated"}
)

_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})")
_BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")


@dataclass(frozen=True, slots=True)
class Bucket:
    """`fields` holds what the client set (labels, location, …); times are Unix seconds."""

    name: str
    project: str
    created_s: float
    updated_s: float
    metageneration: int = 1
    generation: int = 0
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One generation of an object. `location` is its file, relative to the state folder; `token` the staged file it came from."""

    bucket: str
    name: str
    generation: int
    metageneration: int
    size: int
    crc32c: str
    md5: str | None
    created_s: float
    updated_s: float
    location: str
    token: str
    component_count: int | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def content_type(self) -> str:
        return str(self.fields.get("contentType") or "application/octet-stream")


def check_bucket_name(name: str) -> None:
    """Raises InvalidArgument."""
    if not _BUCKET_NAME.fullmatch(name) or ".." in name:
        raise InvalidArgument(f"Invalid bucket name: '{name}'")


def check_object_name(name: str) -> None:
    """Raises InvalidArgument. Source of the rules: "Object naming guidelines" in the documentation of Cloud Storage."""
    try:
        length_bytes = len(name.encode())
    except UnicodeEncodeError:
        raise InvalidArgument("Invalid object name: it is not valid UTF-8.") from None
    if not name:
        raise InvalidArgument("Required parameter: name")
    if length_bytes > NAME_LIMIT_BYTES:
        raise InvalidArgument(f"The maximum object length is {NAME_LIMIT_BYTES} characters, but got a name with {length_bytes} characters.")
    if "\r" in name or "\n" in name:
        raise InvalidArgument("Disallowed unicode characters present in object name: carriage return or line feed.")
    if name in (".", "..") or name.startswith(".well-known/acme-challenge/"):
        raise InvalidArgument(f"Invalid object name: '{name}'")


def merged_fields(old: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """JSON merge of `change` into an object's fields: null removes, `metadata` merges key by key. Raises InvalidArgument."""
    result = dict(old)
    for key in OBJECT_FIELDS:
        if key not in change:
            continue
        value = change[key]
        if key == "metadata" and value is not None:
            value = _merged_metadata(result.get("metadata") or {}, value)
        elif value is not None and not isinstance(value, bool if key.endswith("Hold") else str):
            raise InvalidArgument(f"Invalid value for field {key}: got {type(value).__name__}.")
        elif key == "customTime" and value is not None and not _TIME.fullmatch(str(value)):
            raise InvalidArgument(f"Invalid value for field customTime: '{value}'. Valid are times like 2026-01-31T12:00:00Z.")
        if value is None or value == {}:
            result.pop(key, None)
        else:
            result[key] = value
    return result


def merged(old: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Plain JSON merge patch (RFC 7396)."""
    result = dict(old)
    for key, value in change.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], value)
        elif isinstance(value, dict):
            result[key] = merged({}, value)
        else:
            result[key] = value
    return result


def _merged_metadata(old: Mapping[str, str], change: object) -> dict[str, str]:
    if not isinstance(change, dict):
        raise InvalidArgument("Invalid value for field metadata: an object of texts is wanted.")
    for key, value in change.items():
        if value is not None and not isinstance(value, str):
            raise InvalidArgument(f"Invalid value for field metadata.{key}: a text is wanted, got {type(value).__name__}.")
    result = {str(key): str(value) for key, value in merged(old, change).items()}
    size_bytes = sum(len(key.encode()) + len(value.encode()) for key, value in result.items())
    if size_bytes > METADATA_LIMIT_BYTES:
        raise InvalidArgument(f"The custom metadata of an object may hold {METADATA_LIMIT_BYTES} bytes, got {size_bytes}.")
    return result
