"""Messages of publishers that do not know Fanout, exactly as these write them, and the task that a handler is given for one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from batch.formats.forms import Forms
from batch.formats.kinds import CLOUD_EVENT, EVENT_TYPES, NOTIFICATION, RAW
from batch.model.clock import from_iso
from batch.model.delivery import Outgoing
from batch.model.message import Task

GENERATION = "1700000000000001"


def raw(data: bytes, **attributes: str) -> Outgoing:
    """Any bytes, with any attributes."""
    return Outgoing(data, attributes)


def notification(
    bucket: str,
    name: str,
    *,
    size: int = 0,
    content_type: str = "application/octet-stream",
    event_type: str = "OBJECT_FINALIZE",
    generation: str = GENERATION,
    metageneration: int = 1,
    custom_attributes: Mapping[str, str] | None = None,
    with_resource: bool = True,
) -> Outgoing:
    """What Cloud Storage publishes when an object changes; `with_resource=False`: with the payload format NONE."""
    resource = {
        "kind": "storage#object",
        "id": f"{bucket}/{name}/{generation}",
        "name": name,
        "bucket": bucket,
        "generation": generation,
        "metageneration": str(metageneration),
        "contentType": content_type,
        "size": str(size),
    }
    attributes = {
        "notificationConfig": f"projects/_/buckets/{bucket}/notificationConfigs/1",
        "eventType": event_type,
        "payloadFormat": "JSON_API_V1" if with_resource else "NONE",
        "bucketId": bucket,
        "objectId": name,
        "objectGeneration": generation,
        "eventTime": "2026-01-31T12:00:00.000000Z",
        **(custom_attributes or {}),
    }
    return Outgoing(json.dumps(resource, indent=2).encode() if with_resource else b"", attributes)


def cloud_event(data: bytes, *, type: str, source: str = "//test", id: str = "1", **extensions: str) -> Outgoing:
    """A CloudEvent in binary mode. `content_type` among the extensions is that of its data."""
    content_type = extensions.pop("content_type", "application/json")
    context = {"specversion": "1.0", "id": id, "source": source, "type": type, **extensions}
    return Outgoing(data, {**{f"ce-{name}": value for name, value in context.items()}, "content-type": content_type})


def structured(context: Mapping[str, Any]) -> Outgoing:
    """A CloudEvent in structured mode: the whole event, `data` or `data_base64` among it."""
    return Outgoing(json.dumps({"specversion": "1.0", **context}).encode(), {"content-type": "application/cloudevents+json; charset=utf-8"})


def task_of(message: Outgoing, task_type: str, submitted_at: str) -> Task:
    """The task of a message of any form but an envelope's, on a lane whose default type this is. Raises MessageRefused."""
    forms = Forms((RAW, NOTIFICATION, CLOUD_EVENT), task_type, EVENT_TYPES, "test")
    return forms.decode(message.data, message.attributes, message_id="1", published_s=from_iso(submitted_at), lane="test")
