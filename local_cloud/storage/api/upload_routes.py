"""What the storage server answers to uploads: simple, multipart and resumable.

Content goes to its staged file as it arrives and becomes an object in one step; incomplete content is discarded, or,
in a resumable session, kept as far as it arrived.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse, Response

from local_cloud.storage.api.bodies import RelatedBody, boundary_of
from local_cloud.storage.api.calls import Call
from local_cloud.storage.api.rendering import object_json
from local_cloud.storage.model.errors import InvalidArgument
from local_cloud.storage.model.files import Staged
from local_cloud.storage.model.records import StoredObject, check_object_name
from local_cloud.storage.model.storage import Ref, Storage
from local_cloud.storage.model.uploads import ContentRange, Upload, Uploads, content_range


class UploadRoutes:
    def __init__(self, storage: Storage, uploads: Uploads) -> None:
        self._storage = storage
        self._uploads = uploads
        self.handlers = {"objects.insert": self._insert}

    async def _insert(self, call: Call) -> Response:
        if "upload_id" in call.query:
            return await self._continue(call, call.query["upload_id"])
        kind = call.query.get("uploadType", "media")
        if kind == "resumable":
            return await self._start(call)
        if kind not in ("media", "multipart"):
            raise InvalidArgument(f"Invalid value for uploadType: '{kind}'. Valid are media, multipart and resumable.")
        self._storage.bucket(call.bucket)
        staged = self._storage.files.stage()
        try:
            name, resource = await (self._receive_media(call, staged) if kind == "media" else self._receive_parts(call, staged))
            check_object_name(name)
            staged.check(_header_hashes(call.request.headers), resource)
            conditions = call.conditions()
        except BaseException:
            staged.discard()
            raise
        stored = self._storage.put(Ref(call.bucket, name), staged, resource, conditions)
        return JSONResponse(object_json(stored, call.base_url))

    async def _receive_media(self, call: Call, staged: Staged) -> tuple[str, dict[str, Any]]:
        async for data in call.request.stream():
            staged.write(data)
        if call.is_plain:
            return call.names["name"], call.plain_resource()
        resource = {"contentType": call.request.headers.get("content-type"), "contentEncoding": call.query.get("contentEncoding")}
        return call.query.get("name", ""), resource

    async def _receive_parts(self, call: Call, staged: Staged) -> tuple[str, dict[str, Any]]:
        body = RelatedBody(boundary_of(call.request.headers.get("content-type", "")))
        async for data in call.request.stream():
            staged.write(body.feed(data))
        body.end()
        return _named(call, body.resource, body.media_type or None)

    async def _start(self, call: Call) -> Response:
        name, resource = _named(call, await call.json(), call.request.headers.get("x-upload-content-type"))
        upload = self._uploads.start(Ref(call.bucket, name), resource, call.conditions())
        location = f"{call.base_url}/upload/storage/v1/b/{call.bucket}/o?uploadType=resumable&upload_id={upload.token}"
        return Response(status_code=200, headers={"location": location, "x-guploader-uploadid": upload.token})

    async def _continue(self, call: Call, token: str) -> Response:
        found = self._uploads.find(token)
        if call.request.method == "DELETE":
            self._uploads.abandon(token)
            return Response(status_code=499)
        if isinstance(found, StoredObject):
            return JSONResponse(object_json(found, call.base_url))
        given = content_range(call.request.headers.get("content-range"))
        if given is None or given.start is not None:
            await self._receive_chunk(call, found, given)
        total = found.size if given is None or given.is_open else given.total
        if total is None or found.size < total:
            return _incomplete(found)
        if found.size > total:
            raise InvalidArgument(f"The upload session has {found.size} bytes, more than the total of {total}.")
        stored = self._uploads.finish(found, _header_hashes(call.request.headers))
        return JSONResponse(object_json(stored, call.base_url))

    async def _receive_chunk(self, call: Call, upload: Upload, given: ContentRange | None) -> None:
        """Append the bytes that the session does not have yet; what arrived before a lost connection stays."""
        start = (given.start or 0) if given else 0
        if start > upload.size:
            raise InvalidArgument(
                f"Invalid request. According to the Content-Range header, the upload offset is {start} byte(s), "
                f"which exceeds already uploaded size of {upload.size} byte(s)."
            )
        length = given.end - start + 1 if given and given.end is not None else None
        known, turn, received = upload.size - start, upload.take_turn(), 0
        async for data in call.request.stream():
            if length is not None and received + len(data) > length:
                raise InvalidArgument(f"The Content-Range says {length} bytes, but the body has more.")
            upload.write(turn, data[max(0, known - received) :])
            received += len(data)
        if length is not None and received < length:
            raise InvalidArgument(f"The Content-Range says {length} bytes, but the body has {received}.")


def _incomplete(upload: Upload) -> Response:
    headers = {"x-guploader-uploadid": upload.token}
    if upload.size:
        headers["range"] = f"bytes=0-{upload.size - 1}"
    return Response(status_code=308, headers=headers)


def _named(call: Call, resource: dict[str, Any], content_type: str | None) -> tuple[str, dict[str, Any]]:
    """The object's name, which the query may give as well, and its resource with a content type. Raises InvalidArgument."""
    name = call.query.get("name") or resource.get("name") or ""
    if not isinstance(name, str):
        raise InvalidArgument("Invalid value for name: a text is wanted.")
    if content_type and not resource.get("contentType"):
        resource = {**resource, "contentType": content_type}
    return name, resource


def _header_hashes(headers: Mapping[str, str]) -> dict[str, str]:
    """The hashes in `x-goog-hash: crc32c=…,md5=…`."""
    pairs = dict(item.strip().partition("=")[::2] for item in headers.get("x-goog-hash", "").split(","))
    return {"crc32c": pairs.get("crc32c", ""), "md5": pairs.get("md5") or headers.get("content-md5", "")}
