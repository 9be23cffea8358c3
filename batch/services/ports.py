"""The ports to Google's services: what one subscription, one topic and one bucket can do. Implementations translate every error.

Implementations that pass one conformance suite: `pubsub`, `topic` and `objects` beside this module (real clients; against the local
cloud and, for Pub/Sub, Google's emulator) and `batch.testing` (in memory).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from batch.model.delivery import Delivery, Outgoing


@dataclass(frozen=True, slots=True)
class SubscriptionInfo:
    """What a subscription says of itself. `ack_deadline_s`: how long a lease lasts that nobody extends. `topic` is its full name, empty
    when it is not known or deleted; `max_delivery_attempts` is 0 without a dead-letter policy; `is_ordered`: messages of one ordering key
    come one after the other; `message_filter` is empty when all messages of the topic come. `is_guessed`: it may not be read."""

    ack_deadline_s: float
    topic: str = ""
    max_delivery_attempts: int = 0
    is_ordered: bool = False
    message_filter: str = ""
    is_guessed: bool = False


class Subscription(Protocol):
    """One subscription. All methods may raise DependencyError."""

    name: str

    @property
    def info(self) -> SubscriptionInfo:
        """Pub/Sub is asked once."""

    def pull(self, max_messages: int, timeout_s: float) -> list[Delivery]:
        """At most `max_messages`; an empty list when none came in time (whether the service said so, or 504)."""

    def ack(self, ack_ids: Sequence[str]) -> list[str]:
        """Acknowledge in requests of at most 1,000 ids and 512 KiB; returns the ids that could not be acknowledged."""

    def extend(self, ack_ids: Sequence[str], deadline_s: float) -> list[str]:
        """Keep the leases for `deadline_s` more seconds from now; returns the ids that could not be extended."""

    def nack(self, ack_ids: Sequence[str], after_s: float = 0.0) -> list[str]:
        """Release messages, to be delivered again after `after_s` (0–600) seconds; returns the ids that failed (their leases expire)."""


class Topic(Protocol):
    """One topic. `publish` returns when the service has all of it; raises DependencyError when it cannot say so."""

    name: str

    def publish(self, messages: Sequence[Outgoing]) -> list[str]:
        """Message ids in the order of `messages`; split into requests of at most 1,000 messages and 9.5 MB."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object at one generation. `updated_s` is Unix seconds; `crc32c` is base64 as the service gives it."""

    name: str
    generation: int
    size: int
    metadata: Mapping[str, str] = field(default_factory=dict)
    content_type: str = ""
    updated_s: float = 0.0
    crc32c: str = ""


class ObjectStore(Protocol):
    """One bucket. All methods may raise DependencyError, and ServiceRefused for what is wrong with this one request; those that name a
    generation raise PreconditionFailed. What is no name, no content or no media type raises TypeError or ValueError before anything is
    asked (`batch.arguments`)."""

    bucket_name: str

    def write(
        self,
        name: str,
        data: bytes,
        *,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
        if_generation: int | None = None,
    ) -> ObjectInfo:
        """Write an object. `if_generation=0`: only if absent. Without it the write replaces whatever is there.

        After a lost response the client's own retry may find its own object: callers that pass `if_generation`
        compare the metadata before they believe a PreconditionFailed.
        """

    def read(self, name: str) -> bytes:
        """The content, unzipped where it is stored with `Content-Encoding: gzip`. Raises ObjectMissing, ObjectDamaged."""

    def read_stored(self, name: str, max_bytes: int | None = None) -> tuple[bytes, bytes | None]:
        """The content, as `read` gives it, and what is stored where that is another: zipped. Raises as `read`;
        ObjectTooLarge for more than `max_bytes`, of which no more is ever held."""

    def read_with_info(self, name: str) -> tuple[bytes, ObjectInfo]:
        """Content, as `read` gives it, and info of the same generation. Raises ObjectMissing, ObjectDamaged."""

    def download(self, name: str, path: str | os.PathLike[str], *, max_bytes: int | None = None) -> ObjectInfo:
        """Write the content, as `read` gives it, to the file `path`, in pieces; returns the info of that generation.

        Raises ObjectMissing, ObjectDamaged; ObjectTooLarge when the content has more than `max_bytes`, before anything is downloaded where
        its size is known (unzipped, it is not); OSError of the file. After an error there is no such file: no part of the content, and
        not what the file held before the first piece came.
        """

    def upload(
        self,
        name: str,
        path: str | os.PathLike[str],
        *,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
        if_generation: int | None = None,
    ) -> ObjectInfo:
        """As `write`, from the file `path`, in pieces; also OSError of the file, which must not change meanwhile."""

    def info(self, name: str) -> ObjectInfo | None:
        """None when there is no such object."""

    def list(self, prefix: str, start: str = "") -> Iterator[ObjectInfo]:
        """All objects below `prefix`, in the order of their names, with their metadata; those before the name `start` are left out."""

    def patch_metadata(self, name: str, metadata: Mapping[str, str]) -> ObjectInfo:
        """Merge `metadata` into the object's. Raises ObjectMissing."""

    def delete(self, name: str, *, if_generation: int | None = None) -> bool:
        """False when there was no such object."""
