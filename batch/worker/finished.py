"""What a slot hands to the committer: a message that ended, goes back, or is delayed. Values only."""

from __future__ import annotations

from dataclasses import dataclass

from batch.model.delivery import Delivery, Outgoing


@dataclass(slots=True)
class Ended:
    """The task has an outcome: its line goes to `shard`, then the message is acknowledged. A dead one is published first.

    `outcome` is one of `batch.model.outcomes.PRECEDENCE`. Not frozen: each message makes one, and a frozen one takes five times as long.
    """

    ack_id: str
    shard: str
    task_id: str
    message_id: str
    outcome: str
    line: bytes
    dead_letter: Outgoing | None = None


@dataclass(frozen=True, slots=True)
class Nack:
    """The message is handed back, to be delivered again after `after_s`. `dependency`: the service that failed under its handler."""

    ack_id: str
    after_s: float = 0.0
    dependency: str = ""
    unrecorded: tuple[str, float] | None = None
    """Of a snoozed task: its id and the time before which it may not run. Nobody else knows it, should the hand-back fail."""


@dataclass(frozen=True, slots=True)
class Delayed:
    """The task waits in the bucket until `not_before` (Unix seconds): its message is written there, then acknowledged. It has no outcome
    yet. `on_record`: its attempts, or the message itself, tell that time too; a snoozed one's do not."""

    delivery: Delivery
    task_id: str
    not_before: float
    on_record: bool = True

    @property
    def ack_id(self) -> str:
        return self.delivery.ack_id


Finished = Ended | Nack | Delayed
