"""Topics of Pub/Sub, for an event loop: raw protobuf messages on Google's async channel. Every error leaves as one of ours.

Honours PUBSUB_EMULATOR_HOST. A publish that failed for a moment is repeated until its time is over: the topic may then have
the message twice, which is one task all the same.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from typing import Any

from batch.copies import copies
from batch.model.delivery import Outgoing
from batch.services.calls import Pauses, Resource, client_info, code_of, confirmed, credentials_for, translated

LONGEST_PAUSE_S = 1.0
"""Clients wait for their answer: a broker that is back is tried within this time."""
METHOD = "/google.pubsub.v1.Publisher/Publish"
_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
]


class GooglePublisher:
    """One channel to Pub/Sub for all topics of a project. Make, use and close it inside one running event loop."""

    def __init__(self, project: str, environment: Mapping[str, str], rng: random.Random, *, timeout_s: float = 10.0) -> None:
        """`timeout_s` bounds a publish with its retries. Raises DependencyForbidden when there are no credentials."""
        from google.pubsub_v1.types import pubsub

        self.project, self.timeout_s, self._rng = project, timeout_s, rng
        self._copy_count = copies.count
        self._channel = _channel(environment)
        self._named = client_info().to_grpc_metadata()
        self._request, self._message = pubsub.PublishRequest.pb(), pubsub.PubsubMessage.pb()
        response = pubsub.PublishResponse.pb()
        self._call = self._channel.unary_unary(
            METHOD, request_serializer=self._request.SerializeToString, response_deserializer=response.FromString
        )

    def topic(self, name: str) -> GoogleAsyncTopic:
        """One of the project's topics, by its id."""
        return GoogleAsyncTopic(self, name)

    async def publish(self, name: str, messages: Sequence[Outgoing]) -> list[str]:
        """One request; message ids in the order of `messages`. Raises DependencyError, or FanoutError where repeating cannot help."""
        import grpc
        from google.api_core.exceptions import from_grpc_error

        topic = Resource("topic", self.project, name)
        copies.refuse(self._copy_count, f"is connected to {topic.path}: publish there")
        request = self._request(topic=topic.path, messages=[self._message(data=one.data, attributes=one.attributes) for one in messages])
        loop = asyncio.get_running_loop()
        metadata = (("x-goog-request-params", f"topic={topic.path}"), self._named)
        until_s = loop.time() + self.timeout_s
        pauses = Pauses(until_s, self._rng, longest_s=LONGEST_PAUSE_S)
        while True:
            try:
                left_s = max(0.001, until_s - loop.time())
                response = await self._call(request, timeout=left_s, metadata=metadata)
                return confirmed(topic, [str(message_id) for message_id in response.message_ids], len(messages))
            except grpc.aio.AioRpcError as failure:
                error = from_grpc_error(failure)
                pause_s = pauses.after(error, loop.time())
                if pause_s is None:
                    raise translated("publish to", topic, code_of(error), str(failure.details())) from failure
            await asyncio.sleep(pause_s)

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()


class GoogleAsyncTopic:
    """One topic of a publisher."""

    def __init__(self, publisher: GooglePublisher, name: str) -> None:
        self.name = name
        self._publisher = publisher

    async def publish(self, messages: Sequence[Outgoing]) -> list[str]:
        """Message ids in the order of `messages`: at most 1,000 of them, and 9.5 MB. Raises as `GooglePublisher.publish`."""
        return await self._publisher.publish(self.name, messages)


def check_credentials(environment: Mapping[str, str]) -> None:
    """Raises DependencyForbidden when there are none: for a service that can still say so before it serves anything."""
    from google.auth import default

    if not environment.get("PUBSUB_EMULATOR_HOST"):
        with credentials_for("Pub/Sub"):
            default()


def _channel(environment: Mapping[str, str]) -> Any:
    import grpc

    emulator = environment.get("PUBSUB_EMULATOR_HOST")
    if emulator:
        return grpc.aio.insecure_channel(emulator, options=_OPTIONS)
    from google.pubsub_v1 import PublisherAsyncClient

    with credentials_for("Pub/Sub"):
        return PublisherAsyncClient().transport.grpc_channel
