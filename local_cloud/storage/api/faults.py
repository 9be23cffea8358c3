"""Faults on calls of the storage API, also on those inside a batch.

A call belongs to the project of its bucket; one on a bucket that does not exist meets no fault.
"""

from __future__ import annotations

from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response

from local_cloud.faults.http_faults import HttpFaults
from local_cloud.faults.kinds import STORAGE, kinds_for
from local_cloud.faults.script import Script
from local_cloud.faults.timers import Later
from local_cloud.storage.api.calls import METHODS, Call
from local_cloud.storage.api.server import Around, Handler, error_response
from local_cloud.storage.model.errors import NotFound, StorageError
from local_cloud.storage.model.storage import Storage


def faults_around(script: Script, later: Later, storage: Storage) -> Around:
    """The wrapper for `build_app`; tells the script what each method can meet."""
    for method in METHODS:
        script.allow(method, kinds_for(STORAGE, method))
    faults = HttpFaults(later)

    async def around(call: Call, handler: Handler) -> Response:
        fault = None if script.is_empty else script.next(project_of(call, storage), call.operation)
        if fault is None:
            return await handler(call)

        async def answer(request: Request) -> Response:
            try:
                return await handler(replace(call, request=request))
            except StorageError as error:
                return error_response(error, as_text=call.is_media)

        return await faults.answer(fault, call.request, answer)

    return around


def project_of(call: Call, storage: Storage) -> str:
    """The project of the bucket that a call is about, or that it names itself; empty where the bucket does not exist."""
    if "bucket" not in call.names:
        return call.query.get("project", "")
    try:
        return storage.bucket(call.bucket).project
    except NotFound:
        return ""
