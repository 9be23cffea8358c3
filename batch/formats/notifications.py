"""Notifications of Cloud Storage: what a bucket publishes when an object changes. The attributes say what happened to which object; the
data is the object's resource, or empty (payload format NONE).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from batch.formats.read import Read
from batch.model.deadletters import publishers_attributes
from batch.model.errors import MessageRefused
from batch.model.message import json_object, short

WITH_RESOURCE, WITHOUT = "JSON_API_V1", "NONE"
METADATA_UPDATE = "OBJECT_METADATA_UPDATE"
_OWN = frozenset(
    (
        "notificationConfig",
        "eventType",
        "payloadFormat",
        "bucketId",
        "objectId",
        "objectGeneration",
        "eventTime",
        "overwroteGeneration",
        "overwrittenByGeneration",
    )
)
"""What Cloud Storage sets; the others are the notification's `custom_attributes`."""
_NEEDED = ("eventType", "bucketId", "objectId", "objectGeneration")


def is_one(attributes: Mapping[str, str]) -> bool:
    """Whether the attributes are those of a notification."""
    return "notificationConfig" in attributes or ("eventType" in attributes and "bucketId" in attributes)


def read(data: bytes, attributes: Mapping[str, str], event_types: Sequence[str]) -> Read:
    """Raises MessageRefused for one that lacks what every notification has."""
    lacking = [name for name in _NEEDED if not attributes.get(name)]
    if lacking:
        raise MessageRefused("invalid", f"a bucket's notification without the attributes {', '.join(lacking)}", lacking)
    payload = attributes.get("payloadFormat", "")
    if payload not in (WITH_RESOURCE, WITHOUT):
        raise MessageRefused("invalid", f"payloadFormat must be {WITH_RESOURCE} or {WITHOUT}, got {short(payload)}", ("payloadFormat",))
    resource = json_object(data, "the data of a bucket's notification") if payload == WITH_RESOURCE else {}
    event, bucket, name, generation = (attributes[one] for one in _NEEDED)
    metageneration = _text(resource.get("metageneration"))
    # Without the resource only the time tells two changes of one object's metadata apart; all else happens to a generation once.
    which = metageneration or (attributes.get("eventTime", "") if event == METADATA_UPDATE else "")
    fields = {
        "bucket": bucket,
        "name": name,
        "generation": generation,
        "metageneration": metageneration,
        "event_type": event,
        "event_time": attributes.get("eventTime", ""),
        "size": _size(resource.get("size")),
        "content_type": _text(resource.get("contentType")),
        "custom_attributes": {key: value for key, value in publishers_attributes(attributes).items() if key not in _OWN},
    }
    unwanted = "" if event in event_types else f"event type {short(event)} is none that this lane runs: {', '.join(event_types)}"
    return Read(f"{bucket}/{name}#{generation}#{which}#{event}", "", fields, data, unwanted)


def _text(value: object) -> str:
    """Cloud Storage writes 64-bit numbers as texts."""
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _size(value: object) -> int | None:
    text = _text(value)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None
