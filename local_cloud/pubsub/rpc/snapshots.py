"""The calls of google.pubsub.v1.Subscriber about snapshots and seek: what they read from requests and write into responses.

All state stands in the model.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.empty_pb2 import Empty
from google.pubsub_v1.types import pubsub

from local_cloud.pubsub.model import names, settings
from local_cloud.pubsub.model.pubsub import PubSub
from local_cloud.pubsub.model.refusal import invalid
from local_cloud.pubsub.rpc import handlers, limits

_LIST_RESPONSE = pubsub.ListSnapshotsResponse.pb()
_SEEK_RESPONSE = pubsub.SeekResponse.pb()


class SnapshotCalls:
    def __init__(self, model: PubSub) -> None:
        self._model = model

    def handlers(self) -> dict[str, Any]:
        """gRPC handlers by method name."""
        return {
            "CreateSnapshot": handlers.unary(self._create, pubsub.CreateSnapshotRequest),
            "GetSnapshot": handlers.unary(self._get, pubsub.GetSnapshotRequest),
            "UpdateSnapshot": handlers.unary(self._update, pubsub.UpdateSnapshotRequest),
            "ListSnapshots": handlers.unary(self._list, pubsub.ListSnapshotsRequest),
            "DeleteSnapshot": handlers.unary(self._delete, pubsub.DeleteSnapshotRequest),
            "Seek": handlers.unary(self._seek, pubsub.SeekRequest),
        }

    def _create(self, request: Any, _context: Any) -> Any:
        name = names.check("snapshots", request.name)
        return self._model.create_snapshot(name, request.subscription, dict(request.labels)).shown()

    def _get(self, request: Any, _context: Any) -> Any:
        return self._model.snapshot(request.snapshot).shown()

    def _update(self, request: Any, _context: Any) -> Any:
        snapshot = self._model.snapshot(request.snapshot.name)
        shown = snapshot.shown()
        settings.merge(shown, request.snapshot, request.update_mask, {"labels"}, {})
        self._model.label_snapshot(snapshot.name, dict(shown.labels))
        return snapshot.shown()

    def _list(self, request: Any, _context: Any) -> Any:
        found = {snapshot.name: snapshot for snapshot in self._model.snapshots(names.check_project(request.project))}
        shown, token = limits.page(found, request.page_size, request.page_token)
        return _LIST_RESPONSE(snapshots=[found[name].shown() for name in shown], next_page_token=token)

    def _delete(self, request: Any, _context: Any) -> Any:
        self._model.delete_snapshot(request.snapshot)
        return Empty()

    def _seek(self, request: Any, _context: Any) -> Any:
        self._model.subscription(request.subscription)
        target = request.WhichOneof("target")
        if target is None:
            raise invalid("No target was specified in the SeekRequest. Must specify either a time or a snapshot.")
        if target == "time":
            self._model.seek_to_time(request.subscription, request.time.ToNanoseconds() / 1e9)
        else:
            self._model.seek_to_snapshot(request.subscription, request.snapshot)
        return _SEEK_RESPONSE()
