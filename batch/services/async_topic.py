"""Topics of Pub/Sub for an event loop: Google's async publisher on grpc.aio, with raw protobuf messages. Translates every error.

Honours PUBSUB_EMULATOR_HOST. A publish that failed for a moment is repeated until its time is over: the broker may then hold
the message twice, which is one task all the same.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from typing import Any

from batch.model.delivery import Outgoing
from batch.model.errors import DependencyError, DependencyForbidden, DependencyMissing, DependencyUnavailable

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 1.0
METHOD = "/google.pubsub.v1.Publisher/Publish"
_TRANSIENT = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED", "INTERNAL", "UNKNOWN", "CANCELLED", "RESOURCE_EXHAUSTED"})
_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
]


class GooglePublisher:
    """One channel to Pub/Sub for all topics of a project. Make, use and close it inside one running event loop."""

    def __init__(self, project: str, environment: Mapping[str, str], rng: random.Random, *, timeout_s: float = 10.0) -> None:
        """Raises DependencyForbidden when there are no credentials."""
        from google.pubsub_v1.types import pubsub

        self.project, self.timeout_s, self._rng = project, timeout_s, rng
        self._channel = _channel(environment)
        self._request, self._message = pubsub.PublishRequest.pb(), pubsub.PubsubMessage.pb()
        response = pubsub.PublishResponse.pb()
        self._call = self._channel.unary_unary(
            METHOD, request_serializer=self._request.SerializeToString, response_deserializer=response.FromString
        )

    def topic(self, name: str) -> GoogleAsyncTopic:
        return GoogleAsyncTopic(self, name)

    async def publish(self, name: str, messages: Sequence[Outgoing]) -> list[str]:
        """One request; message ids in the order of `messages`. Raises DependencyError."""
        import grpc

        path = f"projects/{self.project}/topics/{name}"
        request = self._request(topic=path, messages=[self._message(data=one.data, attributes=one.attributes) for one in messages])
        loop = asyncio.get_running_loop()
        give_up_at, pause_s = loop.time() + self.timeout_s, FIRST_PAUSE_S
        while True:
            try:
                left_s = max(0.001, give_up_at - loop.time())
                response = await self._call(request, timeout=left_s, metadata=(("x-goog-request-params", f"topic={path}"),))
                return [str(message_id) for message_id in response.message_ids]
            except grpc.aio.AioRpcError as error:
                code, details = str(error.code().name), str(error.details())
            if code not in _TRANSIENT or loop.time() + pause_s >= give_up_at:
                raise translated(code, details, self.project, name, self.timeout_s)
            await asyncio.sleep(pause_s * self._rng.uniform(0.5, 1.0))
            pause_s = min(LONGEST_PAUSE_S, 2 * pause_s)

    async def close(self) -> None:
        await self._channel.close()


class GoogleAsyncTopic:
    """One topic of a publisher."""

    def __init__(self, publisher: GooglePublisher, name: str) -> None:
        self.name = name
        self._publisher = publisher

    async def publish(self, messages: Sequence[Outgoing]) -> list[str]:
        return await self._publisher.publish(self.name, messages)


def translated(code: str, details: str, project: str, name: str, timeout_s: float) -> DependencyError:
    """Our error for a gRPC status of Publish, by the status' name."""
    path = f"projects/{project}/topics/{name}"
    if code == "NOT_FOUND":
        return DependencyMissing(
            f"topic {path} does not exist: create it with `gcloud pubsub topics create {name} --project={project}`, "
            "or fix TOPIC_NAME or LANES"
        )
    if code in ("PERMISSION_DENIED", "UNAUTHENTICATED"):
        return DependencyForbidden(
            f"publishing to topic {path} is not allowed ({details}): grant roles/pubsub.publisher on it to this identity"
        )
    if code in _TRANSIENT:
        return DependencyUnavailable(f"topic {path} did not confirm within {timeout_s:g} s ({code}: {details}): try again later")
    return DependencyError(f"topic {path} refused the messages ({code}: {details})")


def check_credentials(environment: Mapping[str, str]) -> None:
    """Raises DependencyForbidden when there are none: for whoever can still say so before anything is served."""
    from google.auth import default
    from google.auth.exceptions import DefaultCredentialsError

    if environment.get("PUBSUB_EMULATOR_HOST"):
        return
    try:
        default()
    except DefaultCredentialsError as error:
        raise _forbidden(error) from error


def _forbidden(error: Exception) -> DependencyForbidden:
    return DependencyForbidden(
        f"no credentials for Pub/Sub ({error}): run `gcloud auth application-default login`, or set PUBSUB_EMULATOR_HOST"
    )


def _channel(environment: Mapping[str, str]) -> Any:
    import grpc

    emulator = environment.get("PUBSUB_EMULATOR_HOST")
    if emulator:
        return grpc.aio.insecure_channel(emulator, options=_OPTIONS)
    from google.auth.exceptions import DefaultCredentialsError
    from google.pubsub_v1 import PublisherAsyncClient

    try:
        return PublisherAsyncClient().transport.grpc_channel
    except DefaultCredentialsError as error:
        raise _forbidden(error) from error
