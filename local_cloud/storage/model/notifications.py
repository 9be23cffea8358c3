"""Notification configurations of buckets, and the messages that they make of what happens to an object.

A message is stored in the transaction of its event: no event of a confirmed write is without it. Sending is not done here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from threading import RLock
from typing import Any

from local_cloud.storage.model.errors import InvalidArgument, NotFound, NotSupported
from local_cloud.storage.model.records import Bucket, StoredObject
from local_cloud.storage.model.store import Message, Store

JSON_PAYLOAD = "JSON_API_V1"
LIMIT_COUNT = 100
ATTRIBUTE_LIMIT_COUNT = 5
_PAYLOADS = (JSON_PAYLOAD, "NONE")
_SERVER_FIELDS = {"etag", "id", "kind", "selfLink"}
_FIELDS = {"custom_attributes", "event_types", "object_name_prefix", "payload_format", "topic"}
_TOPIC_HOST = "//pubsub.googleapis.com/"
_TOPIC = re.compile(r"(?://pubsub\.googleapis\.com/)?(projects/[^/\s]+/topics/[A-Za-z][A-Za-z0-9\-_.~+%]{2,254})")


class EventType(StrEnum):
    """ARCHIVE never happens: no versions are kept."""

    FINALIZE = "OBJECT_FINALIZE"
    UPDATE = "OBJECT_METADATA_UPDATE"
    DELETE = "OBJECT_DELETE"
    ARCHIVE = "OBJECT_ARCHIVE"


@dataclass(frozen=True, slots=True)
class Notification:
    """One configuration; `fields` as the client wrote them, checked."""

    id: str
    bucket: str
    fields: Mapping[str, Any]

    @property
    def topic(self) -> str:
        """`projects/P/topics/T`."""
        return topic_of(self.fields)

    def wants(self, event: EventType, name: str) -> bool:
        types = self.fields.get("event_types")
        return (not types or event in types) and name.startswith(self.fields.get("object_name_prefix", ""))

    def message(self, event: EventType, stored: StoredObject, at_s: float, more: Mapping[str, str]) -> Message:
        """The message of an event at Unix seconds `at_s`; `more`: attributes that this event has beside those of all."""
        payload = str(self.fields["payload_format"])
        attributes = {
            **self.fields.get("custom_attributes", {}),
            "notificationConfig": f"projects/_/buckets/{self.bucket}/notificationConfigs/{self.id}",
            "eventType": event.value,
            "payloadFormat": payload,
            "bucketId": self.bucket,
            "objectId": stored.name,
            "objectGeneration": str(stored.generation),
            "eventTime": datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            **more,
        }
        return Message(self.topic, attributes, stored if payload == JSON_PAYLOAD else None)


class Notifications:
    """Of all buckets. `lock` is the model's own, which the callers of the methods that make messages hold."""

    def __init__(self, store: Store, lock: RLock) -> None:
        self._store = store
        self._lock = lock
        self._found: dict[str, dict[str, Notification]] = {}
        for number, bucket, record in store.notifications():
            self._found.setdefault(bucket, {})[str(number)] = Notification(str(number), bucket, json.loads(record))
        self.check_topic: Callable[[str], None] = _any_topic
        """Raises a StorageError unless messages can be sent to this topic."""

    def insert(self, read_bucket: Callable[[], Bucket], resource: Mapping[str, Any]) -> Notification:
        """`read_bucket` raises NotFound without the bucket. Raises InvalidArgument, NotSupported, and what `check_topic` raises."""
        read_bucket()
        fields = _checked(resource)
        self.check_topic(topic_of(fields))
        with self._lock:
            bucket = read_bucket()  # again, as the question to Pub/Sub took its time
            there = self._found.setdefault(bucket.name, {})
            if len(there) >= LIMIT_COUNT:
                raise InvalidArgument(f"Too many notification configurations: a bucket has at most {LIMIT_COUNT}.")
            self._check_versions(bucket)
            number = self._store.add_notification(bucket.name, json.dumps(fields))
            there[str(number)] = made = Notification(str(number), bucket.name, fields)
            return made

    def of(self, bucket: str) -> list[Notification]:
        with self._lock:
            return list(self._found.get(bucket, {}).values())

    def get(self, bucket: str, number: str) -> Notification:
        """Raises NotFound."""
        with self._lock:
            found = self._found.get(bucket, {}).get(number)
        if found is None:
            raise NotFound(f"No such notification configuration: {bucket}/{number}")
        return found

    def delete(self, bucket: str, number: str) -> None:
        """Raises NotFound. What has happened before is still sent."""
        with self._lock:
            self.get(bucket, number)
            self._store.delete_notifications(bucket, int(number))
            del self._found[bucket][number]

    def forget(self, bucket: str) -> None:
        """Its bucket is deleted."""
        if self._found.pop(bucket, None):
            self._store.delete_notifications(bucket)

    def check(self, bucket: Bucket) -> None:
        """Raises NotSupported when a bucket with notifications is to keep versions: events of versions are not made here."""
        if self._found.get(bucket.name):
            self._check_versions(bucket)

    def _check_versions(self, bucket: Bucket) -> None:
        if (bucket.fields.get("versioning") or {}).get("enabled"):
            text = "keeps no versions, so it cannot notify of OBJECT_ARCHIVE: a bucket with notifications must have versioning off"
            raise NotSupported(f"The local Cloud Storage {text}.")

    def of_write(self, stored: StoredObject, replaced: StoredObject | None) -> Sequence[Message]:
        """A new generation; without versions the one that it replaces is deleted."""
        if stored.bucket not in self._found:
            return ()
        at_s = stored.created_s
        if replaced is None:
            return [*self._messages(EventType.FINALIZE, stored, at_s)]
        new = self._messages(EventType.FINALIZE, stored, at_s, overwroteGeneration=str(replaced.generation))
        return [*new, *self._messages(EventType.DELETE, replaced, at_s, overwrittenByGeneration=str(stored.generation))]

    def of_update(self, stored: StoredObject) -> Sequence[Message]:
        return [*self._messages(EventType.UPDATE, stored, stored.updated_s)]

    def of_delete(self, stored: StoredObject, at_s: float) -> Sequence[Message]:
        return [*self._messages(EventType.DELETE, stored, at_s)]

    def _messages(self, event: EventType, stored: StoredObject, at_s: float, **more: str) -> Iterator[Message]:
        for one in self._found.get(stored.bucket, {}).values():
            if one.wants(event, stored.name):
                yield one.message(event, stored, at_s, more)


def topic_of(fields: Mapping[str, Any]) -> str:
    """`projects/P/topics/T` of checked fields."""
    return str(fields["topic"]).removeprefix(_TOPIC_HOST)


def _any_topic(_topic: str) -> None:
    return None


def _checked(resource: Mapping[str, Any]) -> dict[str, Any]:
    """What a client may set. Raises InvalidArgument, NotSupported."""
    unknown = sorted(set(resource) - _FIELDS - _SERVER_FIELDS)
    if unknown:
        raise NotSupported(f"A notification configuration has no field {unknown[0]!r}; it has {', '.join(sorted(_FIELDS))}.")
    fields = {key: value for key, value in resource.items() if key in _FIELDS and value not in (None, "", [], {})}
    topic = _TOPIC.fullmatch(str(fields.get("topic", "")))
    if topic is None:
        text = f"Invalid Google Cloud Pub/Sub topic: {fields.get('topic')!r}"
        raise InvalidArgument(f"{text}. Valid are names like {_TOPIC_HOST}projects/P/topics/T.")
    fields["topic"] = _TOPIC_HOST + topic[1]  # gcloud leaves the host out
    if fields.get("payload_format") not in _PAYLOADS:
        raise InvalidArgument(f"Invalid payload_format: {fields.get('payload_format')!r}. Valid are {' and '.join(_PAYLOADS)}.")
    types, known = fields.get("event_types", []), [one.value for one in EventType]
    if not isinstance(types, list) or not set(map(str, types)) <= set(known):
        raise InvalidArgument(f"Invalid event_types: {types!r}. Valid are lists of {', '.join(known)}.")
    if not isinstance(fields.get("object_name_prefix", ""), str):
        raise InvalidArgument(f"Invalid object_name_prefix: {fields['object_name_prefix']!r}. A text is wanted.")
    custom = fields.get("custom_attributes", {})
    if not isinstance(custom, dict) or not all(isinstance(value, str) for value in custom.values()):
        raise InvalidArgument("Invalid custom_attributes: an object of texts is wanted.")
    if len(custom) > ATTRIBUTE_LIMIT_COUNT or any(len(key.encode()) > 256 or len(value.encode()) > 1024 for key, value in custom.items()):
        limits = f"at most {ATTRIBUTE_LIMIT_COUNT}, with keys of up to 256 bytes and values of up to 1024"
        raise InvalidArgument(f"Invalid custom_attributes: a configuration has {limits}.")
    return fields
