"""One message on its way through a worker, as values: a fresh delivery or an attempt, then what becomes of it.

A message carries its own state: the value says all there is to know, and no table beside it has to agree.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from batch.handling.registry import Handler
from batch.model.attempts import NONE, Attempts
from batch.model.delayed import asks_bucket
from batch.model.delivery import MAX_EXTENSION_S, Delivery, Outgoing
from batch.model.errors import MAX_WAIT_S
from batch.model.message import Task
from batch.telemetry.ports import AttemptSpan


@dataclass(eq=False, slots=True)
class Attempt:
    """A delivery whose task and handler are known.

    `before` are the failed attempts on record, with the in-progress marker of this one if it has one; `began_s` and `deadline_s` are
    monotonic: when its time began to count, and when it must have ended. `quarantined`: the task may have killed a worker, so it runs
    alone in a child. `marker_generation` is that of the record with its marker, None without a marker. `counts_as`: the task as which
    its failure counts when a type may be slowed, where one call failed for several.
    """

    delivery: Delivery
    task: Task
    handler: Handler
    payload: Any
    began_s: float
    deadline_s: float
    before: Attempts = NONE
    quarantined: bool = False
    marker_generation: int | None = None
    counts_as: str = ""
    has_record: bool | None = None
    """Whether there may be a record of its task under `attempts/`; None before the bucket was asked."""
    nacked: bool = False
    """Whether it has gone back unrun; guarded by `Unstarted`."""
    claim: threading.Lock | None = None
    """Of one with a time limit: the first to acquire it gives the answer, the thread that ran the handler or the one that finds it late."""
    span: AttemptSpan | None = None
    """Where its message is sampled and telemetry is on."""

    @property
    def number(self) -> int:
        """Counts runs of the handler, from 1."""
        return self.before.attempt_count + 1

    @property
    def traceparent(self) -> str:
        """The context of its span; empty without one."""
        return "" if self.span is None else self.span.traceparent

    @property
    def function(self) -> Callable[..., Any]:
        """Its handler's, which finds its span as the current one."""
        return self.handler.function if self.span is None else self.span.around(self.handler.function)

    @property
    def ack_id(self) -> str:
        return self.delivery.ack_id

    @property
    def message_id(self) -> str:
        return self.delivery.message_id

    @property
    def marked(self) -> bool:
        """Whether its in-progress marker is in the bucket, or about to be."""
        return self.marker_generation is not None

    def claimed(self) -> bool:
        """True for the first who asks; only for one with a time limit."""
        return self.claim is not None and self.claim.acquire(blocking=False)


Work = Delivery | Attempt
"""What waits for an executor: a delivery that no worker has had before, or an attempt that is ready to run."""


def delivery_of(work: Work) -> Delivery:
    return work if isinstance(work, Delivery) else work.delivery


def may_have_record(work: Work) -> bool:
    """Whether there may be a record of its task under `attempts/`."""
    if isinstance(work, Attempt) and work.has_record is not None:
        return work.has_record
    return asks_bucket(delivery_of(work))


@dataclass(slots=True)
class Ended:
    """The task has an outcome: its line goes to `shard`, then the message is acknowledged. A dead letter is published first.

    `outcome` is one of `batch.model.outcomes.PRECEDENCE`. Not frozen: each message makes one, and a frozen one takes five times as long.
    """

    ack_id: str
    shard: str
    task_id: str
    message_id: str
    outcome: str
    line: bytes
    dead_letter: Outgoing | None = None
    delivery: Delivery | None = None
    """Of a message that was delivered before: it may have to be nacked after all."""
    submission_id: str = ""


@dataclass(frozen=True, slots=True)
class Nack:
    """The message is nacked, to be delivered again after `after_s` seconds. `dependency`: the service that failed under its handler."""

    work: Work
    after_s: float = 0.0
    dependency: str = ""
    not_before: float = 0.0
    """The time before which it may not run (Unix seconds), where that is known better than by `after_s`."""
    on_record: bool = True
    """As of `Delayed`: should the nack fail, what else tells that time?"""
    reported: bool = False
    """Whether a worker has reported the wait as deferred already: the one that published the message again."""

    @property
    def ack_id(self) -> str:
        return self.work.ack_id


@dataclass(frozen=True, slots=True)
class Delayed:
    """The task waits in the bucket until `not_before` (Unix seconds): its message is written there, then acknowledged. It has no outcome
    yet. `on_record`: its attempts, or the message itself, tell that time too; a snoozed one's do not."""

    attempt: Attempt
    not_before: float
    on_record: bool = True

    @property
    def ack_id(self) -> str:
        return self.attempt.ack_id


Finished = Ended | Nack | Delayed
"""What an executor hands to the committer."""


def nack_after(work: Work, after_s: float) -> Nack:
    """A nack with a delay that Pub/Sub takes."""
    return Nack(work, min(max(0.0, after_s), MAX_EXTENSION_S))


def later(attempt: Attempt, not_before: float, now: float, *, on_record: bool = True) -> Nack | Delayed:
    """Not before this time (Unix seconds): nacked with a delay where Pub/Sub can hold the message so long, else delayed.

    A time beyond the longest wait can only come from a damaged record: the task is looked at again after that wait.
    """
    not_before = min(not_before, now + MAX_WAIT_S)
    wait_s = max(0.0, not_before - now)
    if wait_s > MAX_EXTENSION_S:
        return Delayed(attempt, not_before, on_record)
    return Nack(attempt, wait_s, not_before=not_before, on_record=on_record)
