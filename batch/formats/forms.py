"""Forms: what a lane's messages may look like, and the one task that each becomes.

A lane of envelopes decodes with `batch.model.message.decode` itself. On any other the first of these decides: the attributes of a bucket's
notification, those or the content type of a CloudEvent, a JSON object with a task type, and else the message is raw. Only what the lane
accepts is looked for. Whatever a message holds, it gives a task or a MessageRefused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from batch.formats.kinds import CLOUD_EVENT, ENVELOPE, NOTIFICATION, RAW
from batch.formats.read import EventUnwanted, Read
from batch.model.clock import iso
from batch.model.deadletters import publishers_attributes, replay_number_of
from batch.model.errors import MessageRefused
from batch.model.message import (
    BUILT_IN,
    Task,
    check_task_type,
    decode,
    is_task_id,
    readable_task_id,
    rolling_shard,
    shard_of,
    task_type_of,
)

Decode = Callable[..., Task]
"""`(data, attributes, *, message_id, published_s, lane)`, as `batch.model.message.decode`; the id and time of the first publish."""
NAMESPACES = {
    RAW: "7a3c1d52-52f1-5c0e-8a53-9f1c64a1d001",
    NOTIFICATION: "7a3c1d52-52f1-5c0e-8a53-9f1c64a1d002",
    CLOUD_EVENT: "7a3c1d52-52f1-5c0e-8a53-9f1c64a1d003",
}
"""Of the UUIDv5 that such a task has as its id. They never change: outputs and outcomes go by it."""
_NAMESPACES = {form: bytes.fromhex(namespace.replace("-", "")) for form, namespace in NAMESPACES.items()}
_NOT_ENVELOPES = ("not_json", "not_an_object", "no_task_type")
"""What `decode` says of a message that names no task type."""


@dataclass(frozen=True, slots=True)
class Forms:
    """What a lane accepts, as its annotations and its workers' settings say. `subscription` is the short name of its subscription."""

    accept: tuple[str, ...] = (ENVELOPE,)
    default_type: str = ""
    event_types: tuple[str, ...] = ("OBJECT_FINALIZE",)
    subscription: str = ""

    @property
    def foreign(self) -> bool:
        """Whether it takes messages that were not written for Fanout."""
        return self.accept != (ENVELOPE,)

    @property
    def decode(self) -> Decode:
        """How its messages are decoded; look it up once. Raises MessageRefused, EventUnwanted."""
        return self._decoded if self.foreign else decode

    @property
    def type_of(self) -> Callable[[bytes, Mapping[str, str]], str | None]:
        """The task type that a message's data and attributes ask for, None where it cannot be told; look it up once."""
        return self._type_of if self.foreign else _type_in_data

    def told(self, data: bytes, attributes: Mapping[str, str], *, message_id: str, published_s: float, lane: str) -> tuple[Task, str]:
        """As much of a task as can be told of a message, and why it is none, empty where it is one."""
        try:
            return self.decode(data, attributes, message_id=message_id, published_s=published_s, lane=lane), ""
        except EventUnwanted as error:
            return error.task, ""
        except MessageRefused as error:
            problem = str(error)
        is_envelope = ENVELOPE in self.accept
        told = attributes.get("task_type") or task_type_of(data) if is_envelope else self.default_type
        task = Task(
            task_id=readable_task_id(data, attributes, message_id) if is_envelope else self._raw_id(message_id, attributes),
            task_type=told or "unknown",
            submitted_at=iso(published_s),
            submission_id=attributes.get("submission_id", "") if is_envelope else "",
            lane=lane,
            shard=self._shard(attributes, lane, published_s, trusted=is_envelope),
            replay_number=replay_number_of(attributes),
            form=ENVELOPE if is_envelope else RAW,
        )
        return task, problem

    def is_of_message(self, task_id: str, message_id: str) -> bool:
        """Whether this id was made from the message's own, so that a copy of the message is another task."""
        return task_id.startswith("message-") or (self.foreign and task_id == self.id_of_message(message_id))

    def id_of_message(self, message_id: str) -> str:
        """The id of a raw message's task, by its first message id."""
        return self._raw_id(message_id, {})

    def _type_of(self, data: bytes, attributes: Mapping[str, str]) -> str | None:
        if self.default_type and ENVELOPE not in self.accept and not is_built_in(data, attributes):
            return self.default_type
        try:
            return self._decoded(data, attributes, message_id="", published_s=0.0, lane="").task_type
        except MessageRefused:
            return None

    def _decoded(self, data: bytes, attributes: Mapping[str, str], *, message_id: str, published_s: float, lane: str) -> Task:
        if is_built_in(data, attributes):
            return decode(data, attributes, message_id=message_id, published_s=published_s, lane=lane)
        read, form = self._read(data, attributes)
        if read is None and ENVELOPE in self.accept:
            try:
                task = decode(data, attributes, message_id=message_id, published_s=published_s, lane=lane)
            except MessageRefused as error:
                if RAW not in self.accept or error.kind not in _NOT_ENVELOPES:
                    raise MessageRefused(error.kind, f"{error}; this lane takes {self._taken()}", error.fields) from error
            else:
                if task.task_type.startswith(BUILT_IN):
                    raise _own_type(task.task_type)
                return task
        if read is None:
            if RAW not in self.accept:
                raise MessageRefused("not_accepted", f"{_lacking(self.accept)}; this lane takes {self._taken()}")
            read, form = Read(message_id, "", {}, data), RAW
        task_type = self.default_type or read.task_type
        check_task_type(task_type)
        if task_type.startswith(BUILT_IN):
            raise _own_type(task_type)
        task = Task(
            self._id(form, read.identity, attributes),
            task_type,
            iso(published_s),
            read.fields,
            lane=lane,
            shard=self._shard(attributes, lane, published_s),
            replay_number=replay_number_of(attributes),
            form=form,
            data=read.data,
            attributes=publishers_attributes(attributes),
        )
        if read.unwanted:
            raise EventUnwanted(read.unwanted, task)
        return task

    def _read(self, data: bytes, attributes: Mapping[str, str]) -> tuple[Read | None, str]:
        """What the attributes say it is, where the lane accepts that."""
        if NOTIFICATION in self.accept:
            from batch.formats import notifications

            if notifications.is_one(attributes):
                return notifications.read(data, attributes, self.event_types), NOTIFICATION
        if CLOUD_EVENT in self.accept:
            from batch.formats import cloud_events

            if cloud_events.is_one(attributes):
                return cloud_events.read(data, attributes), CLOUD_EVENT
        return None, ""

    def _shard(self, attributes: Mapping[str, str], lane: str, published_s: float, *, trusted: bool = False) -> str:
        """A publisher may have an attribute of this name; that of a replay is ours."""
        if trusted or replay_number_of(attributes):
            return shard_of(attributes, lane=lane, published_s=published_s)
        return rolling_shard(lane, published_s)

    def _raw_id(self, message_id: str, attributes: Mapping[str, str]) -> str:
        return self._id(RAW, message_id, attributes)

    def _id(self, form: str, identity: str, attributes: Mapping[str, str]) -> str:
        """Made of the subscription too: what two lanes get is a task of each, for attempts and outputs go by the id. One that was replayed
        keeps its id, which the replay names: also on a lane with another subscription."""
        if replay_number_of(attributes) and is_task_id(named := attributes.get("task_id", "")):
            return named
        return _uuid5(_NAMESPACES[form], f"{self.subscription}\n{identity}".encode("utf-8", "surrogatepass"))

    def _taken(self) -> str:
        return ", ".join(self.accept)


ENVELOPES = Forms()


def _uuid5(namespace: bytes, name: bytes) -> str:
    """As `uuid.uuid5`, in a quarter of its time: every such message has one."""
    number = int.from_bytes(hashlib.sha1(namespace + name, usedforsecurity=False).digest()[:16], "big")
    text = f"{number & ~(0xF000 << 64) & ~(0xC000 << 48) | (5 << 76) | (0x8000 << 48):032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def is_built_in(data: bytes, attributes: Mapping[str, str]) -> bool:
    """Whether a message says of itself that it is one of Fanout's own tasks: as its attribute and in its data. Whether that is true its
    handler asks the bucket."""
    named = attributes.get("task_type", "")
    return named.startswith(BUILT_IN) and task_type_of(data) == named


def _own_type(task_type: str) -> MessageRefused:
    """Why a message of others cannot be a task of this type."""
    return MessageRefused("invalid", f"task type {task_type!r} is one of Fanout's own, which only Fanout publishes", ("task_type",))


def _type_in_data(data: bytes, _attributes: Mapping[str, str]) -> str | None:
    return task_type_of(data)


def _lacking(accept: tuple[str, ...]) -> str:
    """What a message has not, that none of these forms is found in."""
    wanted = {
        NOTIFICATION: "the attributes of a bucket's notification (notificationConfig, eventType, bucketId)",
        CLOUD_EVENT: "those of a CloudEvent (ce-specversion, or content-type application/cloudevents+json)",
    }
    return "the message has not " + ", nor ".join(wanted[one] for one in accept if one in wanted)
