"""What a seek makes of the messages of a subscription.

The rule: every message that is known and not too old is afterwards either to be delivered or acknowledged, never both.
https://cloud.google.com/pubsub/docs/replay-overview
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from local_cloud.pubsub.message import Message


@dataclass(frozen=True)
class Verdict:
    """All lists are in the order of publishing."""

    wanted: list[Message]
    """To be delivered from now on."""
    acknowledged: list[Message]
    """All others that are known."""
    purged: list[Message]
    """Those of `acknowledged` that were not acknowledged before."""
    returned: list[Message]
    """Those of `wanted` that were."""


def in_order(messages: Iterable[Message]) -> list[Message]:
    """Each message once, in the order of publishing."""
    known = {message.message_id: message for message in messages}
    return sorted(known.values(), key=lambda message: int(message.message_id))


def judge(before: list[Message], others: Iterable[Message], is_acknowledged: Callable[[Message], bool]) -> Verdict:
    """Of the messages `before` that were not acknowledged, and `others` that were or that the subscription never saw."""
    before_ids = {message.message_id for message in before}
    wanted: list[Message] = []
    acknowledged: list[Message] = []
    for message in in_order((*others, *before)):
        (acknowledged if is_acknowledged(message) else wanted).append(message)
    return Verdict(
        wanted,
        acknowledged,
        purged=[message for message in acknowledged if message.message_id in before_ids],
        returned=[message for message in wanted if message.message_id not in before_ids],
    )
