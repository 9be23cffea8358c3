"""How much one StreamingPull may have outstanding, and how much it has.

The rule: a message is counted when its lease begins, and counted off exactly once, when that lease ends, however it ends.
"""

from __future__ import annotations

import threading

from local_cloud.pubsub.messages.message import Message

# For a stream without limits of its own: more than anything that fits into memory.
_UNLIMITED = 2**62


class FlowControl:
    """Limits of 0 or less mean none. Not thread-safe: used under the lock of its subscription. `freed` is set when a lease ends.

    https://cloud.google.com/pubsub/docs/reference/rpc/google.pubsub.v1#streamingpullrequest
    """

    def __init__(self, max_count: int, max_bytes: int, freed: threading.Event) -> None:
        self._max_count = max_count if max_count > 0 else _UNLIMITED
        self._max_bytes = max_bytes if max_bytes > 0 else _UNLIMITED
        self._freed = freed
        self.count = 0
        self.bytes = 0

    @property
    def room_count(self) -> int:
        """Messages that may be sent now. The last of them may be larger than the bytes that are left."""
        return max(0, self._max_count - self.count) if self.bytes < self._max_bytes else 0

    @property
    def room_bytes(self) -> int:
        return max(0, self._max_bytes - self.bytes)

    def begin(self, message: Message) -> None:
        self.count += 1
        self.bytes += len(message.body)

    def end(self, message: Message) -> None:
        self.count -= 1
        self.bytes -= len(message.body)
        self._freed.set()
