"""What a slot hands to the committer: a message that ended, or one that goes back. Values only."""

from __future__ import annotations

from dataclasses import dataclass

from batch.outcomes import Outcome
from batch.subscription import Outgoing


@dataclass(frozen=True, slots=True)
class Ended:
    """The task has an outcome: its line goes to `shard`, then the message is acknowledged. A dead one is published first."""

    ack_id: str
    shard: str
    outcome: Outcome
    line: bytes
    dead_letter: Outgoing | None = None


@dataclass(frozen=True, slots=True)
class GoesBack:
    """The message is handed back, to be delivered again after `after_s`. `dependency`: the service that failed under its handler."""

    ack_id: str
    after_s: float = 0.0
    dependency: str = ""


Finished = Ended | GoesBack
