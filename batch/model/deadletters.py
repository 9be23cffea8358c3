"""Dead letters: a message that can never succeed, republished with its data unchanged and the reason as attributes."""

from __future__ import annotations

from collections.abc import Mapping

from batch.model.delivery import MAX_ATTRIBUTES, Outgoing, own_attributes

MAX_REASON_BYTES = 1024
MAX_DATA_BYTES = 8_000_000
"""Larger data goes to the bucket, and the letter names the object."""


def dead_letter(
    data: bytes,
    attributes: Mapping[str, str],
    *,
    task_id: str,
    error_type: str,
    reason: str,
    attempt_count: int,
    execution: str,
    index: int,
) -> Outgoing:
    """The message to publish on the dead-letter topic: data unchanged (also when empty), attributes kept, the facts added; where there are
    too many attributes, the client's last ones make room."""
    facts = {
        "task_id": task_id,
        "dead_error_type": cut(error_type, MAX_REASON_BYTES),
        "dead_reason": cut(reason, MAX_REASON_BYTES),
        "dead_attempt_count": str(attempt_count),
        "dead_execution": execution,
        "dead_index": str(index),
    }
    return Outgoing(data, dict(list(own_attributes(attributes).items())[: MAX_ATTRIBUTES - len(facts)]) | facts)


def referring(letter: Outgoing, raw_object: str) -> Outgoing:
    """The same letter without its data, which lies in the bucket: for data too large to travel with the facts."""
    return Outgoing(b"", dict(list(letter.attributes.items())[1 - MAX_ATTRIBUTES :]) | {"dead_raw": raw_object})


def cut(text: str, limit_bytes: int) -> str:
    """At most `limit_bytes` of UTF-8, never half a character."""
    return text.encode("utf-8", "replace")[:limit_bytes].decode("utf-8", "ignore")
