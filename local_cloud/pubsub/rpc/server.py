"""The gRPC server of Pub/Sub and of the services on the same port.

Every waiting pull and every stream occupies a thread, so there are more threads than those may take: acknowledgements never wait for one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from local_cloud.clock import Clock
from local_cloud.pubsub.model.pubsub import PubSub
from local_cloud.pubsub.rpc import publisher, subscriber
from local_cloud.pubsub.rpc.handlers import Missing
from local_cloud.web.refused_start import bound

# Threads are started when they are needed.
_THREAD_COUNT = 1_024
# Above every limit of the service, so that a request that is too large gets the service's answer, not the transport's.
_MAX_BYTES = 64 * 1024 * 1024
_GRACE_S = 1.0


class GrpcServer:
    """Serves `model` on `host:port` (0 takes a free port) from `start` to `stop`; `address` is known at once.

    `others` are gRPC handlers by full service name and method name, served beside Pub/Sub. All handlers of a service pass through
    `wrap` first; the results are in `handlers`, by method name.
    """

    def __init__(
        self,
        model: PubSub,
        clock: Clock,
        host: str,
        port: int,
        others: Mapping[str, Mapping[str, Any]],
        wrap: Callable[[str, Mapping[str, Any]], dict[str, Any]] = lambda _service, handlers: dict(handlers),
    ) -> None:
        self._subscriber = subscriber.Subscriber(model, clock)
        services = {
            publisher.SERVICE: publisher.Publisher(model).handlers(),
            subscriber.SERVICE: self._subscriber.handlers(),
            **others,
        }
        services = {service: wrap(service, handlers) for service, handlers in services.items()}
        self.handlers = {method: handler for handlers in services.values() for method, handler in handlers.items()}
        options = [
            ("grpc.max_receive_message_length", _MAX_BYTES),
            ("grpc.max_send_message_length", _MAX_BYTES),
            ("grpc.so_reuseport", 0),
            # By default the server disconnects clients that ping it often.
            ("grpc.http2.max_ping_strikes", 0),
        ]
        self._server = grpc.server(ThreadPoolExecutor(_THREAD_COUNT, thread_name_prefix="rpc"), options=options)
        self._server.add_generic_rpc_handlers(
            tuple(grpc.method_handlers_generic_handler(service, dict(handlers)) for service, handlers in services.items())
        )
        self._server.add_generic_rpc_handlers((Missing(),))
        if port:
            # gRPC's own refusal is two pages, and does not say what to do.
            bound(host, port).close()
        self.address = f"{host}:{self._server.add_insecure_port(f'{host}:{port}')}"

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        """Refuse new calls, end the running ones and return when they have ended."""
        ended = self._server.stop(_GRACE_S)
        # Before the grace period ends: a client does not come back from a stream that the server cut off.
        self._subscriber.stop()
        ended.wait()
