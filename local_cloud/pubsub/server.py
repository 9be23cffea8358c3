"""The gRPC server: Pub/Sub and whatever else is served on the same port.

Every blocked pull holds a thread, so there are more threads than anybody's pulls: acknowledgements never wait for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from local_cloud.clock import Clock
from local_cloud.pubsub import publisher, subscriber
from local_cloud.pubsub.model import PubSub

_THREAD_COUNT = 512
# Above every limit of the service, so that a request that is too large gets the service's answer, not the transport's.
_MAX_BYTES = 64 * 1024 * 1024
_GRACE_S = 1.0


class GrpcServer:
    """Serves `model` on `host:port` (0 takes a free port) from `start` to `stop`; `address` is known at once.

    `others` are gRPC handlers by full service name and method name, served beside Pub/Sub.
    """

    def __init__(self, model: PubSub, clock: Clock, host: str, port: int, others: Mapping[str, Mapping[str, Any]]) -> None:
        services = {
            publisher.SERVICE: publisher.Publisher(model).handlers(),
            subscriber.SERVICE: subscriber.Subscriber(model, clock).handlers(),
            **others,
        }
        options = [
            ("grpc.max_receive_message_length", _MAX_BYTES),
            ("grpc.max_send_message_length", _MAX_BYTES),
            ("grpc.so_reuseport", 0),
        ]
        self._server = grpc.server(ThreadPoolExecutor(_THREAD_COUNT, thread_name_prefix="rpc"), options=options)
        self._server.add_generic_rpc_handlers(
            tuple(grpc.method_handlers_generic_handler(service, dict(handlers)) for service, handlers in services.items())
        )
        bound = self._server.add_insecure_port(f"{host}:{port}")
        self.address = f"{host}:{bound}"

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        """Refuse new calls, end the running ones and return when they have ended."""
        self._server.stop(_GRACE_S).wait()
