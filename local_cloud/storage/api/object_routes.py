"""What the storage server answers to calls on objects, except uploads.

Only translation between HTTP and the model: every decision is the model's.
"""

from __future__ import annotations

from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from local_cloud.storage.api.calls import Call
from local_cloud.storage.api.media import media_response
from local_cloud.storage.api.rendering import etag, object_json
from local_cloud.storage.model.conditions import Conditions
from local_cloud.storage.model.errors import InvalidArgument, NotFound, NotModified, PreconditionFailed
from local_cloud.storage.model.listing import ListQuery
from local_cloud.storage.model.records import StoredObject
from local_cloud.storage.model.storage import Ref, Storage


class ObjectRoutes:
    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.handlers = {
            "objects.list": self._list,
            "objects.get": self._get,
            "objects.patch": self._change,
            "objects.update": self._change,
            "objects.delete": self._delete,
            "objects.copy": self._copy,
            "objects.rewrite": self._copy,
            "objects.move": self._move,
            "objects.compose": self._compose,
        }

    async def _list(self, call: Call) -> Response:
        query = ListQuery(
            prefix=call.query.get("prefix", ""),
            delimiter=call.query.get("delimiter", ""),
            start_offset=call.query.get("startOffset", ""),
            end_offset=call.query.get("endOffset", ""),
            max_results=call.integer("maxResults"),
            page_token=call.query.get("pageToken", ""),
            match_glob=call.query.get("matchGlob", ""),
            include_trailing_delimiter=call.flag("includeTrailingDelimiter"),
        )
        if call.flag("softDeleted"):
            self._storage.bucket(call.bucket)
            return JSONResponse({"kind": "storage#objects"})  # deleted objects are not kept
        found, page = self._storage.list_objects(call.bucket, query)
        base_url = call.base_url
        answer: dict[str, Any] = {"kind": "storage#objects"}
        if found:
            answer["items"] = [object_json(stored, base_url) for stored in found]
        if page.prefixes:
            answer["prefixes"] = page.prefixes
        if page.next_token:
            answer["nextPageToken"] = page.next_token
        return JSONResponse(answer)

    async def _get(self, call: Call) -> Response:
        conditions = call.conditions()
        if call.flag("softDeleted"):
            raise NotFound(f"No such object: {call.ref()}")
        if not call.is_media:
            stored = self._storage.get(call.ref(), conditions)
            _check_etag(call, stored)
            return JSONResponse(object_json(stored, call.base_url))
        stored, file = self._storage.open(call.ref(), conditions)
        try:
            _check_etag(call, stored)
            return media_response(stored, file, call.request.headers)
        except BaseException:
            file.close()
            raise

    async def _change(self, call: Call) -> Response:
        whole = call.operation == "objects.update"
        stored = self._storage.change(call.ref(), await call.json(), call.conditions(), whole=whole)
        return JSONResponse(object_json(stored, call.base_url))

    async def _delete(self, call: Call) -> Response:
        self._storage.delete(call.ref(), call.conditions())
        return Response(status_code=204)

    async def _copy(self, call: Call) -> Response:
        source = Ref(call.bucket, call.names["name"], call.integer("sourceGeneration"))
        target = Ref(call.names["target_bucket"], call.names["target_name"])
        resource = await call.json()

        def copy() -> StoredObject:
            return self._storage.copy(
                source,
                target,
                resource,
                source_conditions=call.conditions(source=True),
                conditions=call.conditions(),
            )

        stored = await run_in_threadpool(copy)
        rendered = object_json(stored, call.base_url)
        if call.operation == "objects.copy":
            return JSONResponse(rendered)
        size = str(stored.size)
        answer = {"kind": "storage#rewriteResponse", "totalBytesRewritten": size, "objectSize": size, "done": True, "resource": rendered}
        return JSONResponse(answer)

    async def _move(self, call: Call) -> Response:
        source, source_conditions = Ref(call.bucket, call.names["name"]), call.conditions(source=True)
        conditions = call.conditions()
        stored = await run_in_threadpool(self._storage.move, source, call.names["target_name"], source_conditions, conditions)
        return JSONResponse(object_json(stored, call.base_url))

    async def _compose(self, call: Call) -> Response:
        body = await call.json()
        sources = _compose_sources(body.get("sourceObjects"))
        target, resource = Ref(call.bucket, call.names["name"]), body.get("destination") or {}
        if not isinstance(resource, dict):
            raise InvalidArgument("Invalid value for destination: an object is wanted.")
        stored = await run_in_threadpool(self._storage.compose, target, sources, resource, call.conditions())
        return JSONResponse(object_json(stored, call.base_url))


def _compose_sources(listed: object) -> list[tuple[str, int | None, Conditions]]:
    """Raises InvalidArgument."""
    try:
        return [_compose_source(item) for item in listed]  # type: ignore[attr-defined]
    except (TypeError, KeyError, ValueError, AttributeError):
        raise InvalidArgument("Invalid value for sourceObjects: a list of objects with a name is wanted.") from None


def _compose_source(item: Any) -> tuple[str, int | None, Conditions]:
    generation = item.get("generation")
    match = (item.get("objectPreconditions") or {}).get("ifGenerationMatch")
    conditions = Conditions(generation_match=None if match is None else int(match))
    return item["name"], None if generation is None else int(generation), conditions


def _check_etag(call: Call, stored: StoredObject) -> None:
    """Checks If-Match and If-None-Match of a read. Raises PreconditionFailed, NotModified."""
    own = {etag(stored.generation, stored.metageneration), "*"}
    wanted, unwanted = (_etags(call.request.headers.get(header)) for header in ("if-match", "if-none-match"))
    if wanted and not wanted & own:
        raise PreconditionFailed
    if unwanted & own:
        raise NotModified


def _etags(header: str | None) -> set[str]:
    return {item.strip().strip('"') for item in (header or "").split(",")} - {""}
