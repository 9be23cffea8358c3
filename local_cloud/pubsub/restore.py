"""From the journal to the model at the start, and from the model to the journal afterwards.

The rule: nothing is confirmed to a client that the journal does not have. Leases are not in it: after a restart every
message without an acknowledgement can be delivered again, and the ack ids of before have no effect.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from local_cloud.clock import Clock
from local_cloud.pubsub import entries, settings
from local_cloud.pubsub.delivery import Delivery
from local_cloud.pubsub.entries import Kind, Place, entry
from local_cloud.pubsub.folded import Folded
from local_cloud.pubsub.journal import REWRITE_BYTES, Journal
from local_cloud.pubsub.message import Message, stamp
from local_cloud.pubsub.model import PubSub
from local_cloud.pubsub.publication import Publication
from local_cloud.pubsub.refusal import Refusal
from local_cloud.pubsub.snapshot import Snapshot
from local_cloud.pubsub.witness import Fate, Witness


def keep_state(model: PubSub, clock: Clock, folder: Path, rewrite_bytes: int = REWRITE_BYTES) -> Journal:
    """Give an empty `model` what stands in `folder`, and keep what becomes of it there; call it before serving.

    Raises RuntimeError if another process uses the folder, ValueError if its file is damaged.
    """

    def condense(data: memoryview, spans: Iterable[tuple[int, int]]) -> Iterator[bytes]:
        return _condensed(data, spans, clock.now())

    next_ids = []

    def fill(data: memoryview, spans: Iterable[tuple[int, int]]) -> None:
        folded = Folded(data, spans)
        next_ids.append(folded.last_id + 1)
        _fill(model, folded, data)

    journal = Journal(folder, condense, rewrite_bytes)
    journal.rewrite()
    journal.read(fill)
    model.keep(JournalWitness(journal), *next_ids)
    return journal


def _condensed(data: memoryview, spans: Iterable[tuple[int, int]], now_s: float) -> Iterator[bytes]:
    folded = Folded(data, spans)
    folded.drop_outdated(now_s)
    yield from folded.entries(data)


def _fill(model: PubSub, folded: Folded, data: memoryview) -> None:
    shared: dict[int, Message] = {}

    def message(message_id: int, place: Place) -> Message:
        found = shared.get(message_id)
        if found is None:
            published_s, start, end = place
            (found,) = stamp([bytes(data[start:end])], [message_id], published_s)
            shared[message_id] = found
        return found

    def messages(places: dict[int, Place]) -> list[Message]:
        return [message(*item) for item in places.items()]

    for name, kept in folded.topics.items():
        model.create_topic(name, kept.settings).restore(messages(kept.retained), ())
    for name, image in folded.snapshots.items():
        snapshot = Snapshot.restored(name, image.topic, image.settings)
        snapshot.offer(messages(image.messages))
        model.restore_snapshot(snapshot)
    for name, holding in folded.holdings.items():
        subscription = model.restore_subscription(name, holding.topic, holding.settings, settings.policy(holding.settings))
        failure_counts = {str(message_id): count for message_id, count in holding.failure_counts.items()}
        subscription.restore(messages(holding.undelivered), messages(holding.retained), failure_counts)


class JournalWitness(Witness):
    """Raises an UNAVAILABLE refusal when the disk takes no more: then nothing is confirmed."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def topic_set(self, name: str, settings: bytes) -> None:
        self.append(entry(Kind.TOPIC, name, settings))

    def let_go(self, now_s: float) -> None:
        self.append(entries.let_go(now_s))

    def topic_deleted(self, name: str) -> None:
        self.append(entry(Kind.TOPIC_DELETED, name))

    def subscription_set(self, name: str, topic: str, settings: bytes) -> None:
        self.append(entry(Kind.SUBSCRIPTION, name, topic, settings))

    def subscription_deleted(self, name: str) -> None:
        self.append(entry(Kind.SUBSCRIPTION_DELETED, name))

    def snapshot_set(self, name: str, topic: str, subscription: str, settings: bytes) -> None:
        self.append(entry(Kind.SNAPSHOT, name, topic, subscription, settings))

    def snapshot_deleted(self, name: str) -> None:
        self.append(entry(Kind.SNAPSHOT_DELETED, name))

    def published(self, topic: str, publication: Publication) -> None:
        self.append(entries.published(topic, publication))

    def fate(self, subscription: str) -> Fate:
        return JournalFate(self, subscription)

    def append(self, content: bytes) -> None:
        try:
            self._journal.append(content)
        except OSError as error:
            raise Refusal("UNAVAILABLE", str(error)) from error


class JournalFate(Fate):
    def __init__(self, witness: JournalWitness, subscription: str) -> None:
        self._witness = witness
        self._name = subscription

    def acknowledged(self, messages: Sequence[Message]) -> None:
        self._append(Kind.ACKNOWLEDGED, messages)

    def failed(self, deliveries: Sequence[Delivery]) -> None:
        ids = [int(delivery.message.message_id) for delivery in deliveries]
        self._witness.append(entry(Kind.FAILED, self._name, ids, [delivery.failure_count for delivery in deliveries]))

    def returned(self, messages: Sequence[Message]) -> None:
        self._append(Kind.RETURNED, messages)

    def retained(self, messages: Sequence[Message]) -> None:
        self._witness.append(entry(Kind.RETAINED, self._name, [int(message.message_id) for message in messages]))

    def _append(self, kind: Kind, messages: Sequence[Message]) -> None:
        if messages:
            self._witness.append(entry(kind, self._name, [int(message.message_id) for message in messages]))
