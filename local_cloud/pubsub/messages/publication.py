"""The messages of one publish call, kept as they came until one of them is delivered.

A backlog of a hundred thousand messages is a hundred of these; a message becomes an object of its own just before its first delivery.
"""

from __future__ import annotations

import threading

from local_cloud.pubsub.messages.message import Message, stamp


class Publication:
    """Safe to use from any thread. `bodies` are serialized PubsubMessages, at least one, without id and publish time; their ids follow
    each other from `first_id` on; `published_s` are unix seconds. Once `messages` was called, `bodies` is empty."""

    __slots__ = ("_lock", "_messages", "bodies", "count", "first_id", "published_s")

    def __init__(self, bodies: list[bytes], first_id: int, published_s: float) -> None:
        self.count = len(bodies)
        self.first_id = first_id
        self.published_s = published_s
        self.bodies = bodies
        self._messages: list[Message] = []
        self._lock = threading.Lock()

    @property
    def ids(self) -> range:
        return range(self.first_id, self.first_id + self.count)

    def messages(self) -> list[Message]:
        """The same objects at every call; not to be changed."""
        with self._lock:
            if not self._messages:
                self._messages = stamp(self.bodies, self.ids, self.published_s)
                self.bodies = []
            return self._messages
