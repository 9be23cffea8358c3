"""Buckets, objects and errors as the JSON of Cloud Storage's API v1.

Whole numbers are sent as strings, as by the real service; its clients convert them.
"""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from local_cloud.storage.model.errors import StorageError
from local_cloud.storage.model.records import Bucket, StoredObject

# https://cloud.google.com/storage/docs/locations; every other one is a region.
_LOCATIONS = {
    "multi-region": {"US", "EU", "ASIA"},
    "dual-region": {"ASIA1", "EUR4", "EUR5", "EUR7", "EUR8", "NAM4"},
}


def timestamp(unix_s: float) -> str:
    """RFC 3339 in UTC with milliseconds."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def etag(generation: int, metageneration: int) -> str:
    return base64.b64encode(f"{generation}/{metageneration}".encode()).decode()


def object_json(stored: StoredObject, base_url: str) -> dict[str, Any]:
    """`base_url` is the address that the client used, without a slash at its end."""
    path = f"b/{stored.bucket}/o/{quote(stored.name, safe='')}"
    created = timestamp(stored.created_s)
    result: dict[str, Any] = {
        "kind": "storage#object",
        "id": f"{stored.bucket}/{stored.name}/{stored.generation}",
        "selfLink": f"{base_url}/storage/v1/{path}",
        "mediaLink": f"{base_url}/download/storage/v1/{path}?generation={stored.generation}&alt=media",
        "name": stored.name,
        "bucket": stored.bucket,
        "generation": str(stored.generation),
        "metageneration": str(stored.metageneration),
        "size": str(stored.size),
        "crc32c": stored.crc32c,
        "etag": etag(stored.generation, stored.metageneration),
        "storageClass": "STANDARD",
        "timeCreated": created,
        "updated": timestamp(stored.updated_s),
        "timeStorageClassUpdated": created,
        "timeFinalized": created,
        **stored.fields,
    }
    if stored.md5 is not None:
        result["md5Hash"] = stored.md5
    if stored.component_count is not None:
        result["componentCount"] = stored.component_count
    return result


def bucket_json(bucket: Bucket, base_url: str) -> dict[str, Any]:
    """`base_url` as in `object_json`."""
    location = str(bucket.fields.get("location") or "US").upper()
    kinds = [kind for kind, names in _LOCATIONS.items() if location in names] or ["region"]
    return {
        "kind": "storage#bucket",
        "id": bucket.name,
        "name": bucket.name,
        "selfLink": f"{base_url}/storage/v1/b/{bucket.name}",
        "projectNumber": "0",
        "metageneration": str(bucket.metageneration),
        "etag": etag(0, bucket.metageneration),
        "timeCreated": timestamp(bucket.created_s),
        "updated": timestamp(bucket.updated_s),
        "storageClass": "STANDARD",
        "iamConfiguration": {"uniformBucketLevelAccess": {"enabled": True}},
        **bucket.fields,
        "location": location,
        "locationType": kinds[0],
    }


def error_json(error: StorageError) -> dict[str, Any]:
    detail: dict[str, Any] = {"message": error.message, "domain": "global", "reason": error.reason}
    if error.status == 412:
        detail |= {"locationType": "header", "location": "If-Match"}
    return {"error": {"code": error.status, "message": error.message, "errors": [detail]}}
