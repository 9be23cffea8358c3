"""Records of idempotency keys: one object a key, created before its task is published, so that a key means one task.

A publish is never exactly once, its effect is: a client that submits a task under its key again publishes the same message again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from typing import NamedTuple

from batch.model.clock import from_iso
from batch.model.delivery import Outgoing
from batch.model.errors import DependencyUnavailable, MessageRefused, ObjectMissing, PreconditionFailed
from batch.model.message import Task, decode, encode, shard_of, short
from batch.model.names import key_object
from batch.services.ports import ObjectStore

AT_A_TIME = 16
MAX_ROUNDS = 10


class Keyed(NamedTuple):
    """A task's message, and its idempotency key."""

    key: str
    message: Outgoing


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What the first task under a key was: the hash of its type and fields, when it was submitted (ISO 8601), to which lane, and where its
    outcome goes. No other task may ever have the key: outputs, attempts and dead letters of both would be taken for those of one."""

    body_hash: str
    submitted_at: str
    shard: str
    lane: str


def read_record(store: ObjectStore, task_id: str) -> KeyRecord | None:
    """The record of a task with a key; None if there is none. Raises ValueError for one that is damaged, DependencyError."""
    found = _found(store, task_id)
    return None if found is None else from_json(found)


def is_recorded(store: ObjectStore, task: Task) -> bool:
    """Whether this very task, with this type and these fields, was submitted to its lane under a key. Raises DependencyError."""
    try:
        record = read_record(store, task.task_id)
    except ValueError:
        return False
    return record is not None and record.body_hash == _body_hash(task)


def from_json(data: bytes) -> KeyRecord:
    """Raises ValueError for what is no record."""
    try:
        body = json.loads(data)
        record = KeyRecord(**{of.name: body[of.name] for of in fields(KeyRecord)})
        from_iso(record.submitted_at)
        whole = type(record.lane) is str and shard_of({"shard": record.shard}, lane="", published_s=0.0) == record.shard
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"not the record of an idempotency key: {error!r}"[:300]) from error
    if not whole:
        raise ValueError(f"not the record of an idempotency key: its shard is {short(record.shard)}, its lane {short(record.lane)}")
    return record


def all_settled(store: ObjectStore, all_keyed: Sequence[Keyed], unix_s: float) -> list[Outgoing | MessageRefused]:
    """As `settled`, in order and several at a time; those with one key one after the other. Raises DependencyError: some records may be
    written then, and a repeat finds them."""
    groups: dict[str, list[int]] = {}
    for at, one in enumerate(all_keyed):
        groups.setdefault(one.message.attributes["task_id"], []).append(at)
    done: list[Outgoing | MessageRefused] = [one.message for one in all_keyed]

    def settle(places: Sequence[int]) -> None:
        for at in places:
            try:
                done[at] = settled(store, all_keyed[at], unix_s)
            except MessageRefused as error:
                done[at] = error

    with ThreadPoolExecutor(AT_A_TIME, thread_name_prefix="keys") as pool:
        running = [pool.submit(settle, places) for places in groups.values()]
        try:
            for future in running:
                future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return done


def settled(store: ObjectStore, keyed: Keyed, unix_s: float) -> Outgoing:
    """The message to publish for a task with a key, whose record is there from now on: as it is if the key is new, else with the time and
    shard of the first. Raises MessageRefused if another task has the key, DependencyError."""
    message = keyed.message
    task = decode(message.data, message.attributes, message_id="", published_s=unix_s, lane=message.attributes["lane"])
    record = KeyRecord(_body_hash(task), task.submitted_at, task.shard, task.lane)
    name = key_object(task.task_id)
    body = json.dumps(asdict(record)).encode()
    for _ in range(MAX_ROUNDS):
        try:
            store.write(name, body, content_type="application/json", if_generation=0)
            return message
        except PreconditionFailed:
            found = _found(store, task.task_id)
        if found is not None:
            return _again(keyed, task, record, _known(found, keyed.key, name))
    raise DependencyUnavailable(f"object {name} changed {MAX_ROUNDS} times while it was written; find who writes under keys/")


def _found(store: ObjectStore, task_id: str) -> bytes | None:
    try:
        return store.read(key_object(task_id))
    except ObjectMissing:
        return None


def _known(data: bytes, key: str, name: str) -> KeyRecord:
    try:
        return from_json(data)
    except ValueError as error:
        reason = f"whether idempotency key {short(key)} is another task's cannot be told: object {name} is damaged ({error}); delete it"
        raise MessageRefused("invalid", reason, ("idempotency_key",)) from error


def _again(keyed: Keyed, task: Task, record: KeyRecord, known: KeyRecord) -> Outgoing:
    if record.body_hash != known.body_hash:
        first = f"idempotency key {short(keyed.key)} was used first at {known.submitted_at}, for a task with another type or other fields"
        reason = f"{first}: give this one a key of its own"
        raise MessageRefused("invalid", reason, ("idempotency_key",))
    if (record.submitted_at, record.shard) == (known.submitted_at, known.shard):
        return keyed.message
    data, attributes = encode(replace(task, submitted_at=known.submitted_at, shard=known.shard))
    return Outgoing(data, attributes)


def _body_hash(task: Task) -> str:
    body = json.dumps({**task.fields, "task_type": task.task_type}, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(body.encode("utf-8", "surrogatepass")).hexdigest()
