"""Messages that are delivered a second time on purpose, and the ack ids under which they go out then.

The rule: a duplicate has ack ids of its own, as in the real service, and acknowledging either delivery acknowledges the message.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from typing import Any

from google.pubsub_v1.types import pubsub

_RECEIVED = pubsub.ReceivedMessage.pb()
_PULL_RESPONSE = pubsub.PullResponse.pb()


class Duplicates:
    """By full name of the subscription. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._waiting: dict[str, deque[Any]] = {}
        self._originals: dict[str, dict[str, str]] = {}

    def add(self, subscription: str, received: list[Any]) -> None:
        """Let the next pull get these raw ReceivedMessages again."""
        with self._lock:
            originals = self._originals.setdefault(subscription, {})
            waiting = self._waiting.setdefault(subscription, deque())
            for message in received:
                again = _RECEIVED()
                again.CopyFrom(message)
                # As long as a real id, and like one.
                again.ack_id = f"{message.ack_id[:-16]}{next(self._numbers):x}again".ljust(len(message.ack_id), "0")
                originals[again.ack_id] = originals.get(message.ack_id, message.ack_id)
                waiting.append(again)

    def take(self, subscription: str, max_count: int) -> Any | None:
        """A raw PullResponse with the duplicates of a subscription; None if there are none."""
        if subscription not in self._waiting:
            return None
        with self._lock:
            waiting = self._waiting.get(subscription, deque())
            response = _PULL_RESPONSE(received_messages=[waiting.popleft() for _ in range(min(max_count, len(waiting)))])
            if not waiting:
                self._waiting.pop(subscription, None)
        return response if response.received_messages else None

    def resolve(self, request: Any) -> None:
        """Put the first delivery's ack ids in the place of duplicates' in a raw Acknowledge or ModifyAckDeadline request."""
        originals = self._originals.get(request.subscription)
        if originals:
            request.ack_ids[:] = [originals.get(ack_id, ack_id) for ack_id in request.ack_ids]

    def clear(self, project: str) -> None:
        with self._lock:
            for names in (self._waiting, self._originals):
                for name in [name for name in names if name.startswith(f"projects/{project}/")]:
                    del names[name]
