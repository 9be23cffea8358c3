"""One topic of Pub/Sub, for threads. Every error of Google leaves as one of `batch.model.errors`."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from batch.model.clock import Clock
from batch.model.delivery import MAX_PUBLISH_BYTES, MAX_PUBLISH_MESSAGES, Outgoing
from batch.services.calls import RETRY_WITHIN_S, Caller, Resource, batches, client_for, confirmed, raw_call

PUBLISH_TIMEOUT_S = 20.0
PUBLISHES_IN_FLIGHT = 4
_MESSAGE_OVERHEAD_BYTES = 64


def message_batches(messages: Iterable[Outgoing]) -> Iterator[list[Outgoing]]:
    """Requests of at most 1,000 messages and 9.5 MB, in order; a message above that travels alone."""
    return batches(messages, _message_bytes, MAX_PUBLISH_MESSAGES, MAX_PUBLISH_BYTES)


def _message_bytes(message: Outgoing) -> int:
    attributes = sum(len(key.encode()) + len(value.encode()) + 8 for key, value in message.attributes.items())
    return len(message.data) + attributes + _MESSAGE_OVERHEAD_BYTES


class GoogleTopic:
    """Implements `batch.services.ports.Topic`; may be used from any thread. Batches travel several at a time. Raises
    DependencyForbidden when there are no credentials."""

    def __init__(
        self,
        project: str,
        name: str,
        *,
        retry_within_s: float = RETRY_WITHIN_S,
        request_timeout_s: float = PUBLISH_TIMEOUT_S,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        from google import pubsub_v1
        from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport

        self.name = name
        self._caller = Caller(Resource("topic", project, name), clock, rng, retry_within_s, request_timeout_s)
        self._path = self._caller.resource.path
        self._client: Any = client_for(self._caller.resource, pubsub_v1.PublisherClient, PublisherGrpcTransport)
        self._request: Any = pubsub_v1.PublishRequest.pb()
        self._message: Any = pubsub_v1.PubsubMessage.pb()
        response = pubsub_v1.PublishResponse.pb()
        self._send = raw_call(self._client, "/google.pubsub.v1.Publisher/Publish", self._request, response, ("topic", self._path))
        self._pool = ThreadPoolExecutor(PUBLISHES_IN_FLIGHT, thread_name_prefix=f"publish-{name}")

    def publish(self, messages: Sequence[Outgoing]) -> list[str]:
        """A batch whose answer was lost is published again: some messages may then be there twice."""
        self._caller.refuse_in_copy()
        requests = list(message_batches(messages))
        if len(requests) == 1:
            return self._publish(requests[0])
        return [message_id for ids in self._pool.map(self._publish, requests) for message_id in ids]

    def close(self) -> None:
        """Close the channel and its threads; a call that is between two tries ends with its last error."""
        self._caller.closed.set()
        self._pool.shutdown(wait=True)
        self._client.transport.close()

    def _publish(self, batch: list[Outgoing]) -> list[str]:
        messages = [self._message(data=one.data, attributes=dict(one.attributes)) for one in batch]
        request = self._request(topic=self._path, messages=messages)

        def call(timeout_s: float) -> list[str]:
            return list(self._send(request, timeout_s).message_ids)

        try:
            ids = self._caller.repeated(call, self._caller.until_s())
        except self._caller.failure as error:
            raise self._caller.ours("publish to", error) from error
        return confirmed(self._caller.resource, ids, len(batch))
