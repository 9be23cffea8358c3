"""Which messages of a subscription are acknowledged after a seek.

The rule: every message that is known and not too old is afterwards either to be delivered or acknowledged, never both.
https://cloud.google.com/pubsub/docs/replay-overview
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from local_cloud.pubsub.messages.message import Message


@dataclass(frozen=True)
class SeekResult:
    """All lists are in the order of publishing."""

    unacknowledged: list[Message]
    """To be delivered from now on."""
    acknowledged: list[Message]
    """All others that are known."""
    purged: list[Message]
    """Those of `acknowledged` that were not acknowledged before."""
    returned: list[Message]
    """Those of `unacknowledged` that were acknowledged, or unknown to the subscription, before."""


def in_order(messages: Iterable[Message]) -> list[Message]:
    """Each message once, in the order of publishing."""
    known = {message.message_id: message for message in messages}
    return sorted(known.values(), key=lambda message: int(message.message_id))


def seek_result(before: list[Message], others: Iterable[Message], is_acknowledged: Callable[[Message], bool]) -> SeekResult:
    """`before` are the messages that were not acknowledged, `others` those that were, or that the subscription never saw."""
    before_ids = {message.message_id for message in before}
    unacknowledged: list[Message] = []
    acknowledged: list[Message] = []
    for message in in_order((*others, *before)):
        (acknowledged if is_acknowledged(message) else unacknowledged).append(message)
    return SeekResult(
        unacknowledged,
        acknowledged,
        purged=[message for message in acknowledged if message.message_id in before_ids],
        returned=[message for message in unacknowledged if message.message_id not in before_ids],
    )
