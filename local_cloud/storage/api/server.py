"""The HTTP side of the local Cloud Storage: one way in for every request, which finds the handler and renders its errors.

Every call of the API, also one inside a batch, passes through `StorageServer.serve` and the `around` given to it: so a
wrapper sees each operation by name, before and after its effect.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from local_cloud.clock import Clock
from local_cloud.storage.api.batch_routes import BatchRoutes
from local_cloud.storage.api.bucket_routes import BucketRoutes
from local_cloud.storage.api.calls import Call, call_of
from local_cloud.storage.api.notification_routes import NotificationRoutes
from local_cloud.storage.api.object_routes import ObjectRoutes
from local_cloud.storage.api.rendering import error_json
from local_cloud.storage.api.upload_routes import UploadRoutes
from local_cloud.storage.model.errors import NotModified, RangeNotSatisfiable, StorageError, Unwritable
from local_cloud.storage.model.storage import Storage
from local_cloud.storage.model.uploads import Uploads
from local_cloud.web.service import clock_routes

Handler = Callable[[Call], Awaitable[Response]]
# Wraps every call: it may answer by itself, or await the handler and change or drop its answer.
Around = Callable[[Call, Handler], Awaitable[Response]]

_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
_CLIENT_WENT_AWAY = 499


class StorageServer:
    def __init__(self, storage: Storage, uploads: Uploads, around: Around) -> None:
        self._around = around
        self._storage = storage
        self._handlers: dict[str, Handler] = {
            **BucketRoutes(storage).handlers,
            **ObjectRoutes(storage).handlers,
            **NotificationRoutes(storage).handlers,
            **UploadRoutes(storage, uploads).handlers,
            **BatchRoutes(self.serve).handlers,
        }

    async def serve(self, request: Request) -> Response:
        """Answer one request of the API; never raises a StorageError or OSError."""
        is_media = request.query_params.get("alt") == "media"
        try:
            call = call_of(request)
            is_media = call.is_media
            return await self._around(call, self._paid)
        except StorageError as error:
            return error_response(error, as_text=is_media)
        except ClientDisconnect:
            return Response(status_code=_CLIENT_WENT_AWAY)
        except OSError as error:
            text = f"The local Cloud Storage cannot use its state folder: {error}. Make room or mend the folder; nothing confirmed is lost."
            with suppress(OSError):  # the log may lie on the same full disk
                sys.stderr.write(f"{text}\n")
            return error_response(Unwritable(text), as_text=is_media)

    async def _paid(self, call: Call) -> Response:
        """Settings of a bucket are its owner's affair, and an upload that goes on was paid for when it began."""
        if call.operation.startswith("objects.") and "upload_id" not in call.query:
            self._storage.check_payer(call.bucket, call.query.get("userProject", "") or call.request.headers.get("x-goog-user-project", ""))
        return await self._handlers[call.operation](call)


def error_response(error: StorageError, *, as_text: bool = False) -> Response:
    """The error as JSON, or for downloads as plain text, like the real service."""
    headers = {"content-range": f"bytes */{error.size}"} if isinstance(error, RangeNotSatisfiable) else None
    if isinstance(error, NotModified):
        return Response(status_code=304)
    if as_text:
        return PlainTextResponse(error.message, error.status, headers)
    return JSONResponse(error_json(error), error.status, headers)


def build_app(storage: Storage, uploads: Uploads, clock: Clock, around: Around, more_routes: Sequence[Route]) -> Starlette:
    """The whole HTTP side: health, clock, `more_routes` and the API."""
    server = StorageServer(storage, uploads, around)

    async def health(_: Request) -> Response:
        return JSONResponse({"service": "storage", "buckets": len(storage.buckets())})

    routes: list[Any] = [
        Route("/", health, methods=["GET"]),
        *clock_routes(clock),
        *more_routes,
        Route("/{rest:path}", server.serve, methods=_METHODS),
    ]
    return Starlette(routes=routes)
