"""A message that is published again: by the tick after it has waited in the bucket, for Pub/Sub delays one by 600 s at most, or by a
worker before the subscription's dead-letter policy takes it. Here also as the object that waits.

The object is one line of JSON, then the message's data as it was: empty, binary, or large. Data and attributes come back unchanged; one
attribute is added, which tells when the task is due and which message it was when it was first published.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil

from batch.model.delivery import MAX_ATTRIBUTES, Delivery, Outgoing, own_attributes

DELAYED = "delayed"
"""The attribute of a message that was published again; a subscription of other readers excludes these by `NOT attributes:delayed`."""
_FORMAT = 1
_REPUBLICATION = re.compile(
    r"(?P<due>\d{10}) (?P<published>\d{1,10}\.\d{6}) (?P<id>[A-Za-z0-9][A-Za-z0-9._:~-]{0,255})(?: (?P<count>\d{1,9}) (?P<record>[01]))?",
    re.ASCII,
)
_IN_FILTER = re.compile(rf'attributes\s*[:.]\s*"?{DELAYED}"?(?![\w.-])')
_LAST_DUE = 9_999_999_999


@dataclass(frozen=True, slots=True)
class Republication:
    """What the attribute says. `due` is Unix seconds: the task may not run before. `published_s` and `message_id` are those of the first
    publish; `count` tells how often the message was published again. `has_record`: there may be a record under `attempts/`."""

    due: int
    published_s: float
    message_id: str
    count: int = 1
    has_record: bool = True

    def __str__(self) -> str:
        return f"{self.due:010d} {self.published_s:.6f} {self.message_id} {self.count} {int(self.has_record)}"


def republication_of(attributes: Mapping[str, str]) -> Republication | None:
    """None for a message that was never published again. Without the last two values, as 0.1 wrote it, there may be a record."""
    found = _REPUBLICATION.fullmatch(attributes.get(DELAYED, ""))
    if found is None:
        return None
    count, record = int(found["count"] or 1), found["record"] != "0"
    return Republication(int(found["due"]), float(found["published"]), found["id"], count, record)


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
        whole = head["format"] == _FORMAT and head["data_bytes"] == len(data) and 0 <= message.published_s <= _LAST_DUE
        "".join((message.task_id, message.message_id, *message.attributes.keys(), *message.attributes.values())).encode()
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"not a delayed message: {error!r}"[:300]) from error
    if not whole:
        raise ValueError(f"not a delayed message: it has {len(data)} bytes of data, and its first line says {line[:200]!r}")
    return message


def as_outgoing(message: DelayedMessage, due: int) -> Outgoing:
    """The message to publish now that it is due; one that has as many attributes as Pub/Sub takes comes back without ours."""
    marked = _marked(message.attributes, due, message.published_s, message.message_id, has_record=True)
    return Outgoing(message.data, own_attributes(message.attributes) if marked is None else marked)


def published_again(delivery: Delivery, not_before: float, *, has_record: bool) -> Outgoing | None:
    """The message of a delivery, to be published instead of a nack; None if it has as many attributes as Pub/Sub takes."""
    first = as_first_published(delivery)
    due = min(_LAST_DUE, max(0, ceil(not_before)))
    marked = _marked(delivery.attributes, due, first.published_s, first.message_id, has_record=has_record)
    return None if marked is None else Outgoing(delivery.data, marked)


def _marked(attributes: Mapping[str, str], due: int, published_s: float, message_id: str, *, has_record: bool) -> dict[str, str] | None:
    """A message's attributes with ours; None without room for it."""
    own, before = own_attributes(attributes), republication_of(attributes)
    if len(own.keys() | {DELAYED}) > MAX_ATTRIBUTES:
        return None
    count = 1 if before is None else before.count + 1
    return {**own, DELAYED: str(Republication(due, published_s, message_id, count, has_record))}


def due_of(attributes: Mapping[str, str]) -> float:
    """Before when (Unix seconds) a message that was published again may not run; 0 for any other."""
    found = republication_of(attributes)
    return float(found.due) if found else 0.0


def concerns_filter(message_filter: str) -> bool:
    """Whether a subscription's filter treats messages that were published again in another way than others."""
    return _IN_FILTER.search(message_filter) is not None


def as_first_published(delivery: Delivery) -> Delivery:
    """A delivery of a message that was published again, under the id and time that it was first published with: what was made from these
    (the id of a task that has none, the shard of one that names none) stays the same. Any other delivery comes back as it is."""
    found = republication_of(delivery.attributes)
    # No message was first published after it was published again: a client that says so would own its outputs for years.
    return replace(delivery, message_id=found.message_id, published_s=min(found.published_s, delivery.published_s)) if found else delivery


def asks_bucket(delivery: Delivery) -> bool:
    """Whether the bucket must be asked about a message before it may run: a worker had it before, or may have had it. One that was
    published again without a record is as good as a first delivery."""
    if delivery.delivery_attempt != 1:
        return True
    return DELAYED in delivery.attributes and (found := republication_of(delivery.attributes)) is not None and found.has_record
