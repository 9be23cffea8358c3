"""What is ready to be delivered, in its order.

The rule: whoever looks at the front sees a message, a delivery or a lane; publications are opened only when they get there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice

from local_cloud.pubsub.delivery import Delivery
from local_cloud.pubsub.lane import Lane
from local_cloud.pubsub.message import Message
from local_cloud.pubsub.publication import Publication


class Line(deque[Publication | Message | Delivery | Lane]):
    """Not thread-safe. What was never delivered stands here as publications and messages, without an object beyond these."""

    def front(self) -> Message | Delivery | Lane:
        """Of a line that is not empty; it stays there."""
        item = self[0]
        if isinstance(item, Publication):
            self.popleft()
            self.extendleft(reversed(item.messages()))
            return item.messages()[0]
        return item


def fresh(line: Iterable[object]) -> Iterator[Message]:
    """The messages in a line that were never delivered."""
    for item in line:
        if isinstance(item, Publication):
            yield from item.messages()
        elif isinstance(item, Message):
            yield item


def oldest_fresh_s(line: Iterable[object]) -> list[float]:
    """Publish time (unix seconds) of the first message that `fresh` gives; nothing if there is none."""
    return list(islice((item.published_s for item in line if isinstance(item, Publication | Message)), 1))
