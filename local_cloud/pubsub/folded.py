"""What the entries of a journal add up to: topics, subscriptions and snapshots with the messages that they hold.

The rule: this follows from the entries alone, without the model, so that a file can be rewritten while the model works on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from local_cloud.pubsub.entries import Kind, Reader, copied, entry
from local_cloud.pubsub.holdings import Holding, Image, Kept, Places, newer
from local_cloud.pubsub.model import DELETED_TOPIC

# Messages are copied in portions: one entry is whole in memory for a moment.
_PORTION_COUNT = 1_000


class Folded:
    """Made of all entries of a journal; places are in the bytes that it was made of."""

    def __init__(self, data: memoryview, spans: Iterable[tuple[int, int]]) -> None:
        self.topics: dict[str, Kept] = {}
        self.holdings: dict[str, Holding] = {}
        self.snapshots: dict[str, Image] = {}
        self.last_id = 0
        self._loose: Places = {}
        # By topic: the subscriptions that get what is published there.
        self._names: defaultdict[str, dict[str, None]] = defaultdict(dict)
        for start, end in spans:
            self._apply(Reader(data, start, end))
        self._loose.clear()

    def _apply(self, read: Reader) -> None:
        kind = read.kind
        if kind is Kind.MESSAGES:
            self._loose.update(read.messages())
            return
        if kind is Kind.LAST_ID:
            self.last_id = max(self.last_id, *read.numbers())
            return
        if kind is Kind.LET_GO:
            self.drop_outdated(read.moment_s())
            return
        name = read.text()
        if kind is Kind.PUBLISHED:
            self._publish(name, read.messages())
        elif kind in (Kind.TOPIC, Kind.TOPIC_DELETED, Kind.TOPIC_RETAINED):
            self._change_topic(kind, name, read)
        elif kind is Kind.SUBSCRIPTION:
            self._set_subscription(name, read.text(), read.blob())
        elif kind is Kind.SUBSCRIPTION_DELETED:
            self._delete_subscription(name)
        elif kind in (Kind.SNAPSHOT, Kind.SNAPSHOT_DELETED, Kind.SNAPSHOT_HELD):
            self._change_snapshot(kind, name, read)
        else:
            holding = self.holdings.get(name)
            # Its deletion may have been written just before the last acknowledgements.
            if holding is not None:
                self._change(kind, holding, read)

    def _change(self, kind: Kind, holding: Holding, read: Reader) -> None:
        message_ids = read.numbers()
        if kind is Kind.ACKNOWLEDGED:
            holding.acknowledge(message_ids)
        elif kind is Kind.FAILED:
            holding.failure_counts.update(zip(message_ids, read.numbers(), strict=True))
        elif kind is Kind.RETURNED:
            holding.take_back(self._found(holding, message_ids))
        elif kind is Kind.HELD:
            holding.undelivered.update(self._picked(message_ids))
        elif kind is Kind.RETAINED:
            holding.retained = self._found(holding, message_ids)

    def _picked(self, message_ids: Iterable[int]) -> Places:
        return {message_id: self._loose[message_id] for message_id in message_ids}

    def _found(self, holding: Holding, message_ids: Iterable[int]) -> Places:
        """A seek takes them from what the subscription retains, from what its topic retains, or from a snapshot."""
        stores = [holding.retained, self._loose]
        if holding.topic in self.topics:
            stores.append(self.topics[holding.topic].retained)
        stores.extend(image.messages for image in self.snapshots.values() if image.topic == holding.topic)
        found: Places = {}
        for message_id in message_ids:
            place = next((store[message_id] for store in stores if message_id in store), None)
            if place is not None:
                found[message_id] = place
        return found

    def _publish(self, topic: str, messages: Places) -> None:
        self.last_id = max(self.last_id, *messages)
        for name in self._names[topic]:
            self.holdings[name].undelivered.update(messages)
        kept = self.topics.get(topic)
        if kept is not None and kept.retention_s:
            kept.retained.update(messages)
        for image in self.snapshots.values():
            if image.topic == topic:
                image.messages.update(messages)

    def _change_topic(self, kind: Kind, name: str, read: Reader) -> None:
        if kind is Kind.TOPIC_RETAINED:
            self.topics[name].retained.update(self._picked(read.numbers()))
        elif kind is Kind.TOPIC:
            self.topics.setdefault(name, Kept(b"")).configure(read.blob())
        else:
            self.topics.pop(name, None)
            for subscription in self._names.pop(name, {}):
                self.holdings[subscription].topic = DELETED_TOPIC
            for image in self.snapshots.values():
                if image.topic == name:
                    image.topic = DELETED_TOPIC

    def _change_snapshot(self, kind: Kind, name: str, read: Reader) -> None:
        if kind is Kind.SNAPSHOT_DELETED:
            self.snapshots.pop(name, None)
        elif kind is Kind.SNAPSHOT_HELD:
            self.snapshots[name].messages.update(self._picked(read.numbers()))
        else:
            topic, subscription, settings = read.text(), read.text(), read.blob()
            image = self.snapshots.get(name)
            if image is not None:
                image.settings = settings
                return
            holding = self.holdings.get(subscription)
            messages = {} if holding is None else dict(sorted(holding.undelivered.items()))
            self.snapshots[name] = Image(topic, settings, messages)

    def _set_subscription(self, name: str, topic: str, settings: bytes) -> None:
        holding = self.holdings.get(name)
        if holding is None:
            holding = self.holdings[name] = Holding(topic, settings)
        else:
            self._names[holding.topic].pop(name, None)
            holding.configure(topic, settings)
        if not holding.is_detached and topic in self.topics:
            self._names[topic][name] = None

    def _delete_subscription(self, name: str) -> None:
        holding = self.holdings.pop(name, None)
        if holding is not None:
            self._names[holding.topic].pop(name, None)

    def drop_outdated(self, now_s: float) -> None:
        """Forget messages that are older than anybody keeps them, and snapshots that have expired."""
        for kept in self.topics.values():
            kept.retained = newer(kept.retained, now_s - kept.retention_s)
        for holding in self.holdings.values():
            kept_s = self.topics[holding.topic].retention_s if holding.topic in self.topics else 0.0
            holding.drop_outdated(now_s - max(holding.retention_s, kept_s))
        self.snapshots = {name: image for name, image in self.snapshots.items() if image.expires_s > now_s}

    def entries(self, data: memoryview) -> Iterator[bytes]:
        """The shortest entries that add up to the same; `data` is what this was made of."""
        yield entry(Kind.LAST_ID, [self.last_id])
        messages = sorted(self._live().items())
        for at in range(0, len(messages), _PORTION_COUNT):
            yield copied(data, messages[at : at + _PORTION_COUNT])
        for name, kept in self.topics.items():
            yield entry(Kind.TOPIC, name, kept.settings)
            yield entry(Kind.TOPIC_RETAINED, name, list(kept.retained))
        for name, holding in self.holdings.items():
            yield entry(Kind.SUBSCRIPTION, name, holding.topic, holding.settings)
            yield entry(Kind.HELD, name, list(holding.undelivered))
            yield entry(Kind.RETAINED, name, list(holding.retained))
            yield entry(Kind.FAILED, name, list(holding.failure_counts), list(holding.failure_counts.values()))
        for name, image in self.snapshots.items():
            yield entry(Kind.SNAPSHOT, name, image.topic, "", image.settings)
            yield entry(Kind.SNAPSHOT_HELD, name, list(image.messages))

    def _live(self) -> Places:
        live: Places = {}
        for kept in self.topics.values():
            live |= kept.retained
        for holding in self.holdings.values():
            live |= holding.undelivered
            live |= holding.retained
        for image in self.snapshots.values():
            live |= image.messages
        return live
