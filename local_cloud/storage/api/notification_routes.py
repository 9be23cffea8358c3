"""What the storage server answers to calls on the notification configurations of a bucket.

Only translation between HTTP and the model: every decision is the model's.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from local_cloud.storage.api.calls import Call
from local_cloud.storage.model.errors import NotSupported
from local_cloud.storage.model.notifications import Notification
from local_cloud.storage.model.storage import Storage


class NotificationRoutes:
    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.handlers = {
            "notifications.insert": self._insert,
            "notifications.list": self._list,
            "notifications.get": self._get,
            "notifications.delete": self._delete,
            "projects.serviceAccount.get": self._no_account,
        }

    async def _insert(self, call: Call) -> Response:
        read_bucket = partial(self._storage.bucket, call.bucket)
        # In a thread: it asks Pub/Sub for the topic.
        made = await run_in_threadpool(self._storage.notifications.insert, read_bucket, await call.json())
        return JSONResponse(_shown(made, call))

    async def _list(self, call: Call) -> Response:
        self._storage.bucket(call.bucket)
        shown = [_shown(one, call) for one in self._storage.notifications.of(call.bucket)]
        return JSONResponse({"kind": "storage#notifications", **({"items": shown} if shown else {})})

    async def _get(self, call: Call) -> Response:
        self._storage.bucket(call.bucket)
        return JSONResponse(_shown(self._storage.notifications.get(call.bucket, call.names["notification"]), call))

    async def _delete(self, call: Call) -> Response:
        self._storage.bucket(call.bucket)
        self._storage.notifications.delete(call.bucket, call.names["notification"])
        return Response(status_code=204)

    async def _no_account(self, call: Call) -> Response:
        """gcloud asks for it before it makes a notification, to let it publish."""
        text = "publishes without a service account, as there are no permissions: give gcloud --skip-topic-setup"
        raise NotSupported(f"The local Cloud Storage of project {call.names['project']} {text}.")


def _shown(one: Notification, call: Call) -> dict[str, Any]:
    link = f"{call.base_url}/storage/v1/b/{one.bucket}/notificationConfigs/{one.id}"
    return {"kind": "storage#notification", "id": one.id, "selfLink": link, "etag": one.id, **one.fields}
