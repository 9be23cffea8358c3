"""Records who makes which call of the storage API on which bucket.

Two calls need other permissions than the rest of their kind, and are recorded as methods of their own: `objects.insert new` can replace
nothing, and `objects.get missing` was answered with 404, which only a caller that may list objects is told.
"""

from __future__ import annotations

from starlette.responses import Response

from local_cloud.calls import PROJECT, Calls, role_of
from local_cloud.storage.api.calls import Call
from local_cloud.storage.api.faults import project_of
from local_cloud.storage.api.server import Around, Handler
from local_cloud.storage.model.errors import NotFound
from local_cloud.storage.model.storage import Storage


def recorded_around(calls: Calls, storage: Storage, around: Around) -> Around:
    """The wrapper for `build_app`, with another one inside."""

    def note(call: Call, more: str = "") -> None:
        resource = f"bucket:{call.bucket}" if "bucket" in call.names else PROJECT
        calls.add(project_of(call, storage), role_of(call.request.headers.raw), f"storage.{call.operation}{more}", resource)

    async def recording(call: Call, handler: Handler) -> Response:
        is_new = call.operation == "objects.insert" and call.query.get("ifGenerationMatch") == "0"
        if "upload_id" not in call.query:  # what goes on with an upload was allowed as it began
            note(call, " new" if is_new else "")
        try:
            return await around(call, handler)
        except NotFound:
            if call.operation == "objects.get":
                note(call, " missing")
            raise

    return recording
