"""A Pub/Sub server for tests of the front door that does what a test scripts: confirm, fail with a status, or wait."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.pubsub_v1.types import pubsub

WAIT_LIMIT_S = 30.0


class PublisherServer:
    """Serves Publish on loopback. `statuses` are met in order, by name; then everything is confirmed. `hold` makes requests wait."""

    def __init__(self) -> None:
        self.statuses: deque[str] = deque()
        self.topics: list[str] = []
        self.data: list[bytes] = []
        self.waiting = threading.Semaphore(0)
        self._open = threading.Event()
        self._open.set()
        self._lock = threading.Lock()
        self._server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.max_receive_message_length", -1)])
        handler = grpc.unary_unary_rpc_method_handler(
            self._publish,
            request_deserializer=pubsub.PublishRequest.pb().FromString,
            response_serializer=pubsub.PublishResponse.pb().SerializeToString,
        )
        self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("google.pubsub.v1.Publisher", {"Publish": handler})])
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def hold(self) -> None:
        self._open.clear()

    def release(self) -> None:
        self._open.set()

    def stop(self) -> None:
        self.release()
        self._server.stop(None).wait()

    def _publish(self, request: Any, context: Any) -> Any:
        self.waiting.release()
        self._open.wait(WAIT_LIMIT_S)
        with self._lock:
            status = self.statuses.popleft() if self.statuses else ""
            if status:
                context.abort(getattr(grpc.StatusCode, status), f"scripted {status}")
            first = len(self.data)
            self.topics.append(str(request.topic))
            self.data += [bytes(message.data) for message in request.messages]
        return pubsub.PublishResponse.pb()(message_ids=[f"id-{first + number}" for number in range(len(request.messages))])
