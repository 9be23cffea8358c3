"""The records of buckets, objects and upload sessions in the service's database. The contents of objects are files beside it.

A record is on disk when its call returns.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from local_cloud.database import Database
from local_cloud.storage.model.records import Bucket, StoredObject

_VERSION = 1
_SCHEMA = """
    CREATE TABLE bucket (name TEXT PRIMARY KEY, record TEXT NOT NULL);
    CREATE TABLE object (bucket TEXT, name TEXT, record TEXT NOT NULL, PRIMARY KEY (bucket, name)) WITHOUT ROWID;
    CREATE TABLE session (token TEXT PRIMARY KEY, created_s REAL NOT NULL, record TEXT NOT NULL);
    CREATE TABLE last_deleted (generation INTEGER NOT NULL, location TEXT NOT NULL);
    INSERT INTO last_deleted VALUES (0, '')
"""


# Later than version 1, whose folders stay readable.
_NOTIFICATIONS = """
    CREATE TABLE IF NOT EXISTS notification (id INTEGER PRIMARY KEY AUTOINCREMENT, bucket TEXT NOT NULL, record TEXT NOT NULL)
"""
_MESSAGES = """
    CREATE TABLE IF NOT EXISTS outbox (id INTEGER PRIMARY KEY, topic TEXT NOT NULL, attributes TEXT NOT NULL, object TEXT)
"""


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a notification that Pub/Sub has not taken yet; `topic` is `projects/P/topics/T`, `stored` None without a payload."""

    topic: str
    attributes: Mapping[str, str]
    stored: StoredObject | None


@dataclass(frozen=True, slots=True)
class Found:
    """What an earlier process has left, the objects in the order of their names. `deleted_location`: the last file that it had to remove,
    and may not have removed; empty without one."""

    buckets: list[Bucket]
    objects: list[StoredObject]
    last_generation: int
    deleted_location: str


class Store:
    """Every call raises OSError, and changes nothing, when the disk takes no more. The caller serialises calls."""

    def __init__(self, folder: Path) -> None:
        """Raises like `Database`."""
        self._database = Database(folder / "meta" / "state.db", _SCHEMA, _VERSION, recovers=True)
        for table in (_NOTIFICATIONS, _MESSAGES):
            self._database.execute(table)
        self.new_messages = threading.Event()
        """Set with each message."""

    def load(self) -> Found:
        with self._database.transaction() as connection:
            buckets = [Bucket(**json.loads(record)) for (record,) in connection.execute("SELECT record FROM bucket")]
            objects = [
                StoredObject(**json.loads(record)) for (record,) in connection.execute("SELECT record FROM object ORDER BY bucket, name")
            ]
            generation, location = connection.execute("SELECT generation, location FROM last_deleted").fetchone()
        return Found(buckets, objects, max([generation, *(stored.generation for stored in objects)]), location)

    def save_bucket(self, bucket: Bucket) -> None:
        self._database.execute("INSERT OR REPLACE INTO bucket VALUES (?, ?)", (bucket.name, _text(bucket)))

    def delete_bucket(self, name: str) -> None:
        self._database.execute("DELETE FROM bucket WHERE name = ?", (name,))

    def save_object(self, stored: StoredObject, messages: Sequence[Message] = ()) -> None:
        """An object and the messages that say so, as a whole."""
        row = (stored.bucket, stored.name, _text(stored))
        if not messages:
            self._database.execute(_SAVE_OBJECT, row)
            return
        with self._database.transaction() as connection:
            connection.execute(_SAVE_OBJECT, row)
            connection.executemany(_SAVE_MESSAGE, map(_row, messages))
        self.new_messages.set()

    def delete_object(self, stored: StoredObject, last_generation: int, messages: Sequence[Message] = ()) -> None:
        """Called before its file is removed. No generation up to `last_generation` is given out again."""
        with self._database.transaction() as connection:
            connection.executemany(_SAVE_MESSAGE, map(_row, messages))
            connection.execute("DELETE FROM object WHERE bucket = ? AND name = ?", (stored.bucket, stored.name))
            connection.execute("UPDATE last_deleted SET generation = ?, location = ?", (last_generation, stored.location))
        if messages:
            self.new_messages.set()

    def notifications(self) -> list[tuple[int, str, str]]:
        """Number, bucket and record of each."""
        with self._database.transaction() as connection:
            return list(connection.execute("SELECT id, bucket, record FROM notification ORDER BY id"))

    def add_notification(self, bucket: str, record: str) -> int:
        """Returns its number, which is never given out again."""
        with self._database.transaction() as connection:
            return int(connection.execute("INSERT INTO notification (bucket, record) VALUES (?, ?)", (bucket, record)).lastrowid or 0)

    def delete_notifications(self, bucket: str, number: int | None = None) -> None:
        """One of a bucket's, or all."""
        self._database.execute("DELETE FROM notification WHERE bucket = ? AND ? IN (id, -1)", (bucket, -1 if number is None else number))

    def messages(self, count: int) -> list[tuple[int, Message]]:
        """The oldest, with their numbers."""
        with self._database.transaction() as connection:
            rows = list(connection.execute("SELECT id, topic, attributes, object FROM outbox ORDER BY id LIMIT ?", (count,)))
        return [
            (number, Message(topic, json.loads(attributes), StoredObject(**json.loads(stored)) if stored else None))
            for number, topic, attributes, stored in rows
        ]

    def delete_messages(self, numbers: Sequence[int]) -> None:
        with self._database.transaction() as connection:
            connection.executemany("DELETE FROM outbox WHERE id = ?", [(number,) for number in numbers])

    def save_session(self, token: str, created_s: float, session: Mapping[str, Any]) -> None:
        self._database.execute("INSERT INTO session VALUES (?, ?, ?)", (token, created_s, json.dumps(session)))

    def session(self, token: str) -> dict[str, Any] | None:
        with self._database.transaction() as connection:
            row = connection.execute("SELECT record FROM session WHERE token = ?", (token,)).fetchone()
        found: dict[str, Any] | None = None if row is None else json.loads(row[0])
        return found

    def delete_session(self, token: str) -> None:
        self._database.execute("DELETE FROM session WHERE token = ?", (token,))

    def keep_sessions_since(self, created_s: float) -> set[str]:
        """Delete the older ones; returns the tokens of the others."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM session WHERE created_s <= ?", (created_s,))
            return {token for (token,) in connection.execute("SELECT token FROM session")}

    def close(self) -> None:
        self._database.close()


_SAVE_OBJECT = "INSERT OR REPLACE INTO object VALUES (?, ?, ?)"
_SAVE_MESSAGE = "INSERT INTO outbox (topic, attributes, object) VALUES (?, ?, ?)"


def _row(message: Message) -> tuple[str, str, str | None]:
    return message.topic, json.dumps(message.attributes), None if message.stored is None else _text(message.stored)


def _text(value: Bucket | StoredObject) -> str:
    # Not `asdict`, which copies what the fields hold: half the time of a write.
    return json.dumps({field.name: getattr(value, field.name) for field in fields(value)}, separators=(",", ":"))
