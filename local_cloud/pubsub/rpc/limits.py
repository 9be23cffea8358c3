"""The limits of one request, checked before any state changes.

Numbers: https://cloud.google.com/pubsub/quotas#resource_limits. The texts are close to the real ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sized
from typing import Any

from google.protobuf.message import DecodeError
from google.pubsub_v1.types import pubsub

from local_cloud.pubsub.messages.message import bare
from local_cloud.pubsub.messages.wire import are_only_data, is_only_data
from local_cloud.pubsub.model.refusal import invalid, too_large, too_small

PUBLISH_MAX_COUNT = 1_000
PUBLISH_MAX_BYTES = 10 * 1024 * 1024
ACK_MAX_BYTES = 512 * 1024
ACK_DEADLINE_MAX_S = 600
STREAM_DEADLINE_MIN_S = 10

_PUBSUB_MESSAGE = pubsub.PubsubMessage.pb()
_ATTRIBUTE_MAX_COUNT = 100
_KEY_MAX_BYTES = 256
_VALUE_MAX_BYTES = 1_024
_ORDERING_KEY_MAX_BYTES = 1_024


def _check_bytes(request: Any, maximum: int) -> None:
    if request.ByteSize() > maximum:
        raise invalid(f"Request payload size exceeds the limit: {maximum} bytes.")


def checked_bodies(request: Any) -> list[bytes]:
    """The messages of a PublishEnvelope, as `message.bare` makes them."""
    bodies: list[bytes] = list(request.messages)
    count = len(bodies)
    if count < 1:
        raise too_small("message_count", count, 1)
    if count > PUBLISH_MAX_COUNT:
        raise too_large("message_count", count, PUBLISH_MAX_COUNT)
    # `ByteSize` costs as much as serialization, so it is called only for large requests.
    if sum(map(len, bodies)) > PUBLISH_MAX_BYTES // 2:
        _check_bytes(request, PUBLISH_MAX_BYTES)
    return bodies if are_only_data(bodies) else [_checked_body(body) for body in bodies]


def _checked_body(body: bytes) -> bytes:
    if is_only_data(body):
        return body
    try:
        message = _PUBSUB_MESSAGE.FromString(body)
    except DecodeError as error:
        raise invalid(f"A message in the publish request cannot be read: {error}.") from error
    _check_message(message, len(body))
    return bare(message) if message.message_id or message.HasField("publish_time") else body


def _check_message(message: Any, size: int) -> None:
    if message.attributes:
        _check_keys(message.attributes)
        # A value can be too long only if all of them together are.
        if size - len(message.data) > _VALUE_MAX_BYTES:
            _check_values(message.attributes)
    elif not message.data:
        raise invalid("One or more messages in the publish request is empty. Each message must contain data or attributes.")
    if len(message.ordering_key.encode()) > _ORDERING_KEY_MAX_BYTES:
        raise invalid(f"The ordering key is too long: at most {_ORDERING_KEY_MAX_BYTES} bytes are allowed.")


_OF_CLIENTS = frozenset({"googclient_traceparent", "googclient_tracestate"})
"""What Google's own clients write, by their source."""


def _check_keys(attributes: Any) -> None:
    if len(attributes) > _ATTRIBUTE_MAX_COUNT:
        raise too_large("attribute_count", len(attributes), _ATTRIBUTE_MAX_COUNT)
    for key in attributes:
        # A character takes at most 4 bytes: only long texts have to be encoded to be measured.
        taken = key.startswith("goog") and key not in _OF_CLIENTS
        if not key or taken or (len(key) > _KEY_MAX_BYTES // 4 and len(key.encode()) > _KEY_MAX_BYTES):
            raise invalid(f"Invalid attribute key ({key[:80]}): a key has 1 to {_KEY_MAX_BYTES} bytes and does not begin with 'goog'.")


def _check_values(attributes: Any) -> None:
    for key, value in attributes.items():
        if len(value) > _VALUE_MAX_BYTES // 4 and len(value.encode()) > _VALUE_MAX_BYTES:
            raise invalid(f"The value of attribute {key} is too long: at most {_VALUE_MAX_BYTES} bytes are allowed.")


def check_ack_ids(request: Any) -> None:
    """Of a raw AcknowledgeRequest or ModifyAckDeadlineRequest."""
    ack_ids: Sized = request.ack_ids
    if not ack_ids:
        raise invalid("No ack ids specified.")
    _check_bytes(request, ACK_MAX_BYTES)


def check_deadline(seconds: int) -> None:
    """Of ModifyAckDeadline, where 0 is a nack."""
    if seconds < 0:
        raise too_small("ack_deadline_seconds", seconds, 0)
    if seconds > ACK_DEADLINE_MAX_S:
        raise too_large("ack_deadline_seconds", seconds, ACK_DEADLINE_MAX_S)


def check_stream_deadline(seconds: int) -> None:
    """Of the first request of a StreamingPull, or of a later one that changes it."""
    if not STREAM_DEADLINE_MIN_S <= seconds <= ACK_DEADLINE_MAX_S:
        raise invalid(
            f"stream_ack_deadline_seconds must be between {STREAM_DEADLINE_MIN_S} and {ACK_DEADLINE_MAX_S} seconds, got {seconds}."
        )


def check_stream_deadlines(request: Any) -> None:
    """Of a raw StreamingPullRequest."""
    _check_bytes(request, ACK_MAX_BYTES)
    if len(request.modify_deadline_ack_ids) != len(request.modify_deadline_seconds):
        raise invalid("modify_deadline_ack_ids and modify_deadline_seconds must have the same size.")
    for seconds in request.modify_deadline_seconds:
        check_deadline(seconds)


def check_max_messages(count: int) -> None:
    if count < 1:
        raise too_small("max_messages", count, 1)


def page(names: Iterable[str], page_size: int, page_token: str) -> tuple[list[str], str]:
    """One page of sorted `names` after the name `page_token`, and the token of the next page ("" after the last)."""
    if page_size < 0:
        raise too_small("page_size", page_size, 0)
    rest = [name for name in names if name > page_token]
    shown = rest[: page_size or None]
    return shown, shown[-1] if len(shown) < len(rest) else ""
