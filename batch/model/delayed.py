"""A delayed message: it waits in the bucket, because Pub/Sub delays one by 600 s at most. Here as an object, and as a message again.

The object is one line of JSON, then the message's data as it was: empty, binary, or large. Data and attributes come back unchanged; one
attribute is added, which tells the worker when the task was due and which message it was when it was first published.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from batch.model.delivery import MAX_ATTRIBUTES, Delivery, Outgoing, own_attributes

DELAYED = "delayed"
"""The attribute of a message that has waited in the bucket: `<due> <first published> <first message id>`, times in Unix seconds."""
_FORMAT = 1
_DELAYED = re.compile(r"(\d{10}) (\d{1,10}\.\d{6}) ([A-Za-z0-9][A-Za-z0-9._:~-]{0,255})", re.ASCII)


@dataclass(frozen=True, slots=True)
class DelayedMessage:
    """A message as it was delivered, and the task in it; `published_s` is Unix seconds."""

    task_id: str
    message_id: str
    published_s: float
    attributes: Mapping[str, str]
    data: bytes


def to_object(message: DelayedMessage) -> bytes:
    """The same bytes for the same message, whichever worker writes them."""
    head = {
        "format": _FORMAT,
        "task_id": message.task_id,
        "message_id": message.message_id,
        "published_s": message.published_s,
        "attributes": dict(sorted(message.attributes.items())),
        "data_bytes": len(message.data),
    }
    return json.dumps(head, separators=(",", ":")).encode() + b"\n" + message.data


def from_object(body: bytes) -> DelayedMessage:
    """Raises ValueError when it is not the whole of what `to_object` writes."""
    line, _, data = body.partition(b"\n")
    try:
        head = json.loads(line)
        message = DelayedMessage(head["task_id"], head["message_id"], float(head["published_s"]), head["attributes"], data)
        whole = head["format"] == _FORMAT and head["data_bytes"] == len(data)
        texts = [message.task_id, message.message_id, *message.attributes.keys(), *message.attributes.values()]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"not a delayed message: {error!r}"[:300]) from error
    if not whole or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"not a delayed message: it has {len(data)} bytes of data, and its first line says {line[:200]!r}")
    return message


def as_outgoing(message: DelayedMessage, due: int) -> Outgoing:
    """The message to publish now that it is due; one that has as many attributes as Pub/Sub takes comes back without ours."""
    attributes = own_attributes(message.attributes)
    if DELAYED in attributes or len(attributes) < MAX_ATTRIBUTES:
        attributes[DELAYED] = f"{due:010d} {message.published_s:.6f} {message.message_id}"
    return Outgoing(message.data, attributes)


def due_of(attributes: Mapping[str, str]) -> float:
    """When a message that has waited in the bucket was due (Unix seconds); 0 for any other."""
    found = _DELAYED.fullmatch(attributes.get(DELAYED, ""))
    return float(found[1]) if found else 0.0


def as_first_published(delivery: Delivery) -> Delivery:
    """A delivery of a message that has waited in the bucket, under the id and time that it was first published with: what was made from
    these (the id of a task that has none, the shard of one that names none) stays the same. Any other delivery comes back as it is."""
    found = _DELAYED.fullmatch(delivery.attributes.get(DELAYED, ""))
    return replace(delivery, message_id=found[3], published_s=float(found[2])) if found else delivery
