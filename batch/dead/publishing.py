"""Publishing dead letters again: the message that a letter becomes, at a steady rate, and what is done where Pub/Sub refuses one."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from batch.dead.letters import Letter
from batch.model.clock import Clock, from_iso
from batch.model.deadletters import REPLAY, Replay, with_facts
from batch.model.delayed import DELAYED, Republication, republication_of
from batch.model.delivery import MAX_PUBLISH_MESSAGES, Outgoing
from batch.model.errors import DependencyError, FanoutError
from batch.services.ports import Topic

PORTION_S = 2.0
"""With a rate, a request carries what may be published in this time."""
LATE_S = 1.0
"""What a slow service has cost more than this is not made up for: it would come as a burst."""


def message_of(letter: Letter, data: bytes, replay: Replay, lane: str) -> Outgoing:
    """The letter's message with another replay number, for this lane. It carries no fact of its death; it keeps its outcome shard, its
    first message id and the time of its first publish, from which the id of a task that names none is made."""
    before = republication_of(letter.attributes)
    first_id = letter.first_message_id or letter.task_id.removeprefix("message-")
    again = Republication(0, max(0.0, from_iso(letter.first_at or letter.died_at)), first_id, before.count + 1 if before else 1)
    facts = {DELAYED: str(again), REPLAY: str(replay), "shard": letter.shard, "task_id": letter.task_id}
    if lane != letter.lane:
        facts["lane"] = lane
    return Outgoing(data, with_facts(letter.attributes, facts))


def portion_count(rate: float | None) -> int:
    """How many messages a request carries."""
    return MAX_PUBLISH_MESSAGES if rate is None else max(1, min(MAX_PUBLISH_MESSAGES, int(rate * PORTION_S)))


def publish(topic: Topic, messages: Sequence[Outgoing]) -> dict[int, str]:
    """By position, why Pub/Sub refused messages that it can never take: none keeps back another. Raises DependencyError."""
    if not messages:
        return {}
    try:
        topic.publish(messages)
        return {}
    except DependencyError:
        raise
    except FanoutError as error:
        if len(messages) == 1:
            return {0: str(error)}
    middle = len(messages) // 2
    later = publish(topic, messages[middle:])
    return publish(topic, messages[:middle]) | {middle + at: why for at, why in later.items()}


@dataclass(slots=True)
class Pacer:
    """Shared by several publishers: each message has its place in one schedule, so that time which a request takes is no time lost. `rate`
    is messages a second; None: at once."""

    rate: float | None
    clock: Clock
    stop: threading.Event
    until_s: float | None = None
    _next_s: float | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def wait(self, count: int) -> bool:
        """Until so many messages may be published; False if that is not before the end (`until_s`, by the clock's `monotonic`)."""
        now = due_s = self.clock.monotonic()
        if self.rate is not None:
            with self._lock:
                begin_s = now if self._next_s is None else max(self._next_s, now - LATE_S)
                due_s = self._next_s = begin_s + count / self.rate
        if self.until_s is not None and due_s >= self.until_s:
            return False
        return not (self.clock.wait(self.stop, due_s - now) if due_s > now else self.stop.is_set())
