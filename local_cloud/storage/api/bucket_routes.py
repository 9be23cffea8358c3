"""What the storage server answers to calls on buckets.

Only translation between HTTP and the model: every decision is the model's.
"""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from local_cloud.storage.api.calls import Call
from local_cloud.storage.api.rendering import bucket_json
from local_cloud.storage.model.errors import InvalidArgument
from local_cloud.storage.model.storage import Storage

# The project that the Python client sends when STORAGE_EMULATOR_HOST is set.
_NO_PROJECT = "<none>"


class BucketRoutes:
    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.handlers = {
            "buckets.insert": self._insert,
            "buckets.list": self._list,
            "buckets.get": self._get,
            "buckets.patch": self._change,
            "buckets.update": self._change,
            "buckets.delete": self._delete,
            "buckets.getStorageLayout": self._layout,
            "managedFolders.list": self._no_managed_folders,
        }

    async def _insert(self, call: Call) -> Response:
        resource = await call.json()
        name = resource.get("name")
        if not isinstance(name, str):
            raise InvalidArgument("Required parameter: name")
        bucket = self._storage.create_bucket(name, call.query.get("project", _NO_PROJECT), resource)
        return JSONResponse(bucket_json(bucket, call.base_url))

    async def _list(self, call: Call) -> Response:
        project = call.query.get("project")
        prefix, after = call.query.get("prefix", ""), call.query.get("pageToken", "")
        limit = call.integer("maxResults") or 1000
        if limit < 0:
            raise InvalidArgument(f"Invalid value for maxResults: {limit}. Valid are numbers from 0.")
        # Deleted buckets are not kept.
        found = [] if call.flag("softDeleted") else self._storage.buckets(None if project == _NO_PROJECT else project)
        found = [bucket for bucket in found if bucket.name.startswith(prefix) and bucket.name > after]
        answer: dict[str, object] = {"kind": "storage#buckets", "items": [bucket_json(bucket, call.base_url) for bucket in found[:limit]]}
        if len(found) > limit:
            answer["nextPageToken"] = found[limit - 1].name
        return JSONResponse(answer)

    async def _get(self, call: Call) -> Response:
        return JSONResponse(bucket_json(self._storage.bucket(call.bucket, call.conditions()), call.base_url))

    async def _layout(self, call: Call) -> Response:
        bucket = bucket_json(self._storage.bucket(call.bucket), call.base_url)
        layout = {"bucket": call.bucket, "location": bucket["location"], "locationType": bucket["locationType"]}
        return JSONResponse({"kind": "storage#storageLayout", **layout, "hierarchicalNamespace": {"enabled": False}})

    async def _no_managed_folders(self, call: Call) -> Response:
        """Managed folders exist for access control only, which is not here; gcloud asks for them before it removes a bucket."""
        self._storage.bucket(call.bucket)
        return JSONResponse({"kind": "storage#managedFolders"})

    async def _change(self, call: Call) -> Response:
        whole = call.operation == "buckets.update"
        bucket = self._storage.change_bucket(call.bucket, await call.json(), call.conditions(), whole=whole)
        return JSONResponse(bucket_json(bucket, call.base_url))

    async def _delete(self, call: Call) -> Response:
        self._storage.delete_bucket(call.bucket, call.conditions())
        return Response(status_code=204)
