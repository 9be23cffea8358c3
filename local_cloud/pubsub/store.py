"""Topics, subscriptions, snapshots and their messages on disk: written before a change is confirmed, read at the start.

The rule: a change that a client has an answer for is in the file. Leases are not: after a restart a message without an acknowledgement can
be delivered again, and earlier ack ids have no effect.

The body of a message is stored once, with the others of its publish call. Every subscription that has to deliver it, and everything that
retains it for a seek, owns a range of message ids of that call. So a publish call adds one row for each owner, and an acknowledgement cuts
ranges, however many messages they have.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, pairwise
from pathlib import Path
from sqlite3 import Connection
from typing import Any

from google.pubsub_v1.types import pubsub

from local_cloud.clock import Clock
from local_cloud.database import Database
from local_cloud.pubsub.messages.delivery import Delivery
from local_cloud.pubsub.messages.message import Message
from local_cloud.pubsub.messages.observer import Observer, SubscriptionObserver
from local_cloud.pubsub.messages.publication import Publication
from local_cloud.pubsub.model import settings
from local_cloud.pubsub.model.pubsub import DELETED_TOPIC, PubSub
from local_cloud.pubsub.model.refusal import Refusal
from local_cloud.pubsub.model.snapshot import Snapshot

SWEEP_BYTES = 16 * 1024 * 1024
"""Bodies without an owner are deleted when so many bytes, and half of all that are stored, were acknowledged. Messages also become
outdated, or never have an owner: so they are looked for, too, when so many bytes, and as many as are stored, were published."""

_VERSION = 1
# An owner is the full name of a topic, a subscription or a snapshot. `is_retained` is 1 for what a subscription has acknowledged; 0
# for all else. Ids go from `first_id` to before `end_id`.
_SCHEMA = """
CREATE TABLE topic (name TEXT PRIMARY KEY, settings BLOB, retention_s REAL) WITHOUT ROWID;
CREATE TABLE subscription (
    name TEXT PRIMARY KEY, topic TEXT, settings BLOB, retention_s REAL, retains_acked INT, is_detached INT) WITHOUT ROWID;
CREATE TABLE snapshot (name TEXT PRIMARY KEY, topic TEXT, settings BLOB) WITHOUT ROWID;
CREATE TABLE failure (subscription TEXT, message_id INT, count INT, PRIMARY KEY (subscription, message_id)) WITHOUT ROWID;
CREATE TABLE publication (first_id INTEGER PRIMARY KEY, end_id INT, topic TEXT, published_s REAL, lengths BLOB, bodies BLOB);
CREATE TABLE owned (
    owner TEXT, is_retained INT, first_id INT, end_id INT, publication INT, PRIMARY KEY (owner, is_retained, first_id)) WITHOUT ROWID;
CREATE TRIGGER published AFTER INSERT ON publication BEGIN
    INSERT INTO owned SELECT name, 0, NEW.first_id, NEW.end_id, NEW.first_id FROM (
        SELECT name FROM subscription WHERE topic = NEW.topic AND NOT is_detached
        UNION ALL SELECT name FROM topic WHERE name = NEW.topic AND retention_s
        UNION ALL SELECT name FROM snapshot WHERE topic = NEW.topic);
END;
"""
# A subscription acknowledges the messages from `first` to before `end`. The statements add them to what it retains, keep the rest of a
# range that goes on after `end`, and of one that begins before `first`, and delete the ranges between, with their counts of failures.
_ACKNOWLEDGE = (
    """INSERT INTO owned SELECT owner, 1, max(first_id, :first), min(end_id, :end), publication FROM owned
    WHERE owner = :owner AND is_retained = 0 AND first_id < :end AND end_id > :first
    AND (SELECT retains_acked FROM subscription WHERE name = :owner)""",
    """INSERT INTO owned SELECT owner, 0, :end, end_id, publication FROM owned WHERE owner = :owner AND is_retained = 0 AND end_id > :end
    AND first_id = (SELECT max(first_id) FROM owned WHERE owner = :owner AND is_retained = 0 AND first_id < :end)""",
    """UPDATE owned SET end_id = :first WHERE owner = :owner AND is_retained = 0 AND end_id > :first
    AND first_id = (SELECT max(first_id) FROM owned WHERE owner = :owner AND is_retained = 0 AND first_id < :first)""",
    "DELETE FROM owned WHERE owner = :owner AND is_retained = 0 AND first_id >= :first AND first_id < :end",
    "DELETE FROM failure WHERE subscription = :owner AND message_id >= :first AND message_id < :end",
)
_OWN = """INSERT OR REPLACE INTO owned SELECT :owner, :is_retained, max(first_id, :first), min(end_id, :end), first_id FROM publication
    WHERE first_id >= ifnull((SELECT max(first_id) FROM publication WHERE first_id <= :first), :first)
    AND first_id < :end AND end_id > :first"""
_SWEEP = (
    """DELETE FROM owned WHERE EXISTS (SELECT 1 FROM topic AS t, publication AS p
    WHERE t.name = owner AND p.first_id = publication AND p.published_s < :now - t.retention_s)""",
    """DELETE FROM owned WHERE EXISTS (SELECT 1 FROM subscription AS s, publication AS p WHERE s.name = owner AND p.first_id = publication
    AND p.published_s < :now - max(s.retention_s, ifnull((SELECT retention_s FROM topic WHERE name = s.topic), 0)))""",
    # The last publication stays: it says which message ids were given out.
    """DELETE FROM publication WHERE first_id < (SELECT max(first_id) FROM publication)
    AND first_id NOT IN (SELECT publication FROM owned)""",
    "DELETE FROM failure WHERE message_id < (SELECT min(first_id) FROM publication)",
)


def keep_state(model: PubSub, clock: Clock, folder: Path, sweep_bytes: int = SWEEP_BYTES) -> Store:
    """Give an empty `model` what stands in `folder`, and keep its state there from now on; call it before serving.

    Raises RuntimeError if another process uses the folder, ValueError if its file is damaged.
    """
    store = Store(folder, clock, sweep_bytes)
    store.outdated_dropped(clock.now())
    with store.transaction() as connection:
        _fill(model, connection)
        (next_id,) = connection.execute("SELECT ifnull(max(end_id), 1) FROM publication").fetchone()
    model.report_to(store, next_id)
    return store


def _fill(model: PubSub, connection: Connection) -> None:
    stored: dict[int, list[Message]] = {}
    for first_id, published_s, lengths, bodies in connection.execute("SELECT first_id, published_s, lengths, bodies FROM publication"):
        bounds = accumulate(array("I", lengths), initial=0)
        stored[first_id] = Publication([bodies[start:end] for start, end in pairwise(bounds)], first_id, published_s).messages()

    def messages(owner: str, *, is_retained: int = 0) -> list[Message]:
        select = "SELECT publication, first_id, end_id FROM owned WHERE owner = ? AND is_retained = ? ORDER BY first_id"
        rows = connection.execute(select, (owner, is_retained))
        return [message for at, first_id, end_id in rows for message in stored[at][first_id - at : end_id - at]]

    for name, content in connection.execute("SELECT name, settings FROM topic"):
        model.create_topic(name, content).restore(messages(name), ())
    for name, topic, content in connection.execute("SELECT name, topic, settings FROM snapshot"):
        snapshot = Snapshot.restored(name, topic, content)
        snapshot.offer(messages(name))
        model.restore_snapshot(snapshot)
    for name, topic, content in connection.execute("SELECT name, topic, settings FROM subscription"):
        counts = connection.execute("SELECT cast(message_id AS TEXT), count FROM failure WHERE subscription = ?", (name,))
        subscription = model.restore_subscription(name, topic, content, settings.policy(content))
        subscription.restore(messages(name), messages(name, is_retained=1), dict(counts))


class Store(Observer):
    """Safe to use from any thread. Raises an UNAVAILABLE refusal when the disk takes no more: then nothing is confirmed."""

    def __init__(self, folder: Path, clock: Clock, sweep_bytes: int) -> None:
        self._database = Database(folder / "pubsub.db", _SCHEMA, _VERSION)
        self._clock = clock
        self._sweep_bytes = sweep_bytes
        self._published_left_bytes = self._acknowledged_left_bytes = sweep_bytes

    @property
    def used_bytes(self) -> int:
        return self._database.used_bytes

    def close(self) -> None:
        """Nothing may be written afterwards."""
        self._database.close()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        with _refusing(), self._database.transaction() as connection:
            yield connection

    def topic_set(self, name: str, settings: bytes) -> None:
        retention_s = _seconds(pubsub.Topic.pb().FromString(settings).message_retention_duration)
        with self.transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO topic VALUES (?, ?, ?)", (name, settings, retention_s))
            if not retention_s:
                connection.execute("DELETE FROM owned WHERE owner = ?", (name,))

    def topic_deleted(self, name: str) -> None:
        with self.transaction() as connection:
            connection.execute("DELETE FROM topic WHERE name = ?", (name,))
            connection.execute("DELETE FROM owned WHERE owner = ?", (name,))
            connection.execute("UPDATE subscription SET topic = ? WHERE topic = ? AND NOT is_detached", (DELETED_TOPIC, name))
            connection.execute("UPDATE snapshot SET topic = ? WHERE topic = ?", (DELETED_TOPIC, name))

    def outdated_dropped(self, now_s: float) -> None:
        with self.transaction() as connection:
            for statement in _SWEEP:
                connection.execute(statement, {"now": now_s})
        self._published_left_bytes = max(self._sweep_bytes, self.used_bytes)
        self._acknowledged_left_bytes = max(self._sweep_bytes, self.used_bytes // 2)

    def sweep_after(self, *, published_bytes: int = 0, acknowledged_bytes: int = 0) -> None:
        """Delete what nothing needs any more if it is time for it. A count that two threads lose only makes it later."""
        self._published_left_bytes -= published_bytes
        self._acknowledged_left_bytes -= acknowledged_bytes
        if min(self._published_left_bytes, self._acknowledged_left_bytes) < 0:
            self.outdated_dropped(self._clock.now())

    def subscription_set(self, name: str, topic: str, settings: bytes) -> None:
        raw = pubsub.Subscription.pb().FromString(settings)
        row = (name, topic, settings, _seconds(raw.message_retention_duration), raw.retain_acked_messages, raw.detached)
        with self.transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO subscription VALUES (?, ?, ?, ?, ?, ?)", row)

    def subscription_deleted(self, name: str) -> None:
        with self.transaction() as connection:
            for table, column in (("subscription", "name"), ("owned", "owner"), ("failure", "subscription")):
                connection.execute(f"DELETE FROM {table} WHERE {column} = ?", (name,))

    def snapshot_set(self, name: str, topic: str, subscription: str, settings: bytes) -> None:
        copy = "INSERT INTO owned SELECT ?, 0, first_id, end_id, publication FROM owned WHERE owner = ? AND is_retained = 0"
        with self.transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO snapshot VALUES (?, ?, ?)", (name, topic, settings))
            connection.execute(copy, (name, subscription))

    def snapshot_deleted(self, name: str) -> None:
        with self.transaction() as connection:
            connection.execute("DELETE FROM snapshot WHERE name = ?", (name,))
            connection.execute("DELETE FROM owned WHERE owner = ?", (name,))

    def published(self, topic: str, publication: Publication) -> None:
        lengths, bodies = array("I", map(len, publication.bodies)).tobytes(), b"".join(publication.bodies)
        ids = publication.ids
        with _refusing():
            self._database.execute(
                "INSERT INTO publication VALUES (?, ?, ?, ?, ?, ?)", (ids.start, ids.stop, topic, publication.published_s, lengths, bodies)
            )
        self.sweep_after(published_bytes=len(bodies))

    def of_subscription(self, subscription: str) -> SubscriptionObserver:
        return SubscriptionStore(self, subscription)


class SubscriptionStore(SubscriptionObserver):
    """Of one subscription. Raises as the store does."""

    def __init__(self, store: Store, subscription: str) -> None:
        self._store = store
        self._name = subscription

    def acknowledged(self, messages: Sequence[Message]) -> None:
        if messages:
            ranges = self._ranges(messages)
            with self._store.transaction() as connection:
                for statement in _ACKNOWLEDGE:
                    connection.executemany(statement, ranges)
            self._store.sweep_after(acknowledged_bytes=sum(len(message.body) for message in messages))

    def failed(self, deliveries: Sequence[Delivery]) -> None:
        rows = [(self._name, int(delivery.message.message_id), delivery.failure_count) for delivery in deliveries]
        with self._store.transaction() as connection:
            connection.executemany("INSERT OR REPLACE INTO failure VALUES (?, ?, ?)", rows)

    def returned(self, messages: Sequence[Message]) -> None:
        with self._store.transaction() as connection:
            connection.executemany(_OWN, self._ranges(messages, is_retained=0))

    def retained(self, messages: Sequence[Message]) -> None:
        with self._store.transaction() as connection:
            connection.execute("DELETE FROM owned WHERE owner = ? AND is_retained = 1", (self._name,))
            connection.executemany(_OWN, self._ranges(messages, is_retained=1))

    def _ranges(self, messages: Iterable[Message], **parameters: int) -> list[dict[str, Any]]:
        """Parameters of the statements above, one for each range of ids without a gap."""
        ids = sorted(int(message.message_id) for message in messages)
        gaps = [] if ids and ids[-1] - ids[0] < len(ids) else [at for at in range(1, len(ids)) if ids[at] > ids[at - 1] + 1]
        bounds = pairwise((0, *gaps, len(ids))) if ids else ()
        return [{"owner": self._name, "first": ids[start], "end": ids[end - 1] + 1, **parameters} for start, end in bounds]


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Refusal("UNAVAILABLE", str(error)) from error


def _seconds(duration: Any) -> float:
    return float(duration.ToNanoseconds()) / 1e9
