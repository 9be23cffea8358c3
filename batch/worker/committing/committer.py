"""The committer: makes outcomes durable, then acknowledges. Its one rule: dead letter, then outcome line, then ack, never the other way.

Outcome lines wait for company: they are written when there are enough of them, when the oldest has waited long enough, or when
nothing else is outstanding. Leases are kept until the acknowledgement is through.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import ceil
from queue import Empty, SimpleQueue

from batch.events import log
from batch.model.clock import Clock
from batch.model.deadletters import MAX_DATA_BYTES, referring
from batch.model.delivery import MAX_EXTENSION_S, Outgoing
from batch.model.errors import DependencyError, DependencyForbidden, DependencyMissing, FanoutError, ObjectMissing, PreconditionFailed
from batch.model.names import dead_raw_object, outcome_object
from batch.services.ports import ObjectStore, Subscription, Topic
from batch.settings import WorkerSettings
from batch.worker.attempt import Delayed, Ended, Finished, Nack
from batch.worker.circuit_breaker import CircuitBreaker
from batch.worker.committing.delaying import Delaying
from batch.worker.leases import LeaseKeeper
from batch.worker.tally import Tally

MAX_BUFFERED_COUNT = 2000
MAX_TAKEN_COUNT = 4000
"""Taken from the inbox at most: the rest of what may be outstanding goes on while this is flushed."""
MAX_BUFFERED_BYTES = 4 * 1024 * 1024
MAX_FLUSH_FAILURES = 3
"""Flushes that fail in a row; each has already been retried for about a minute by the client."""
RETRY_FLUSH_S = 1.0
IDLE_FLUSH_S = 0.05
LOOK_EVERY_S = 0.25


@dataclass(slots=True)
class Committer:
    """One thread calls `run`; one round is `take`, then `flush` when `due`. `heartbeat` is called before each call to a service,
    `freed` when acknowledged messages make room for others."""

    settings: WorkerSettings
    inbox: SimpleQueue[list[Finished] | None]
    subscription: Subscription
    dead_letters: Topic
    store: ObjectStore
    leases: LeaseKeeper
    tally: Tally
    breaker: CircuitBreaker
    clock: Clock
    each_round: Callable[[], None] = lambda: None
    heartbeat: Callable[[], None] = lambda: None
    freed: Callable[[], None] = lambda: None
    _delaying: Delaying = field(init=False)
    _buffer: list[Ended] = field(default_factory=list)
    _byte_count: int = 0
    _oldest_s: float = 0.0
    _sequence: int = 0
    _failure_count: int = 0
    _abandoned: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._delaying = Delaying(self.store, self.subscription, self.leases, self.tally, self.heartbeat)

    def run(self) -> None:
        """Until `None` comes through the inbox; then what is buffered is flushed. Raises DependencyError when that cannot be done."""
        ended = False
        while not ended:
            finished, ended = self._came()
            self.heartbeat()
            self.each_round()
            self.take(finished)
            if self.due() and not ended:
                self.try_flush()
        self.flush()

    def _came(self) -> tuple[list[Finished], bool]:
        """Wait for what is finished; with it comes all that lies there already, as a flush of many costs hardly more than one of a few.
        True when there will be no more."""
        finished: list[Finished] = []
        wait_s = self._wait_s()
        with suppress(Empty):
            while len(finished) < MAX_TAKEN_COUNT:
                came = self.inbox.get(timeout=wait_s) if not finished else self.inbox.get_nowait()
                if came is None:
                    return finished, True
                finished += came
        return finished, False

    def take(self, finished: Iterable[Finished]) -> None:
        """Buffer outcomes, nack what goes back, delay what must wait for long."""
        back: dict[float, list[str]] = defaultdict(list)
        snoozed: dict[str, tuple[str, float]] = {}
        delayed: list[Delayed] = []
        for one in finished:
            if one.ack_id in self._abandoned:
                continue
            if isinstance(one, Nack):
                # In whole seconds, as the service takes them: one call for all that fail in a round, not one for each.
                back[float(ceil(one.after_s))].append(one.ack_id)
                if one.dependency:
                    self.breaker.failed(one.dependency)
                if one.unrecorded:
                    snoozed[one.ack_id] = one.unrecorded
                continue
            if isinstance(one, Delayed):
                delayed.append(one)
                continue
            if not self._buffer:
                self._oldest_s = self.clock.monotonic()
            self.breaker.ended()
            self._buffer.append(one)
            self._byte_count += len(one.line)
        for after_s, ack_ids in back.items():
            early = self.nack(ack_ids, after_s)
            self._delaying.note(snoozed[one] for one in early if one in snoozed)
        if delayed:
            self._delay(delayed)

    def _delay(self, delayed: Sequence[Delayed]) -> None:
        """What cannot be delayed is nacked for as long as Pub/Sub can hold it, which is less than it asked for."""
        failed = self._delaying.delay(delayed)
        if failed:
            self.breaker.failed(next(iter(failed.values())))
            self.nack(list(failed), MAX_EXTENSION_S)

    def nack(self, ack_ids: Sequence[str], after_s: float = 0.0) -> Sequence[str]:
        """Nack these messages. When that fails they come back by themselves as their leases end; returns those that may come early."""
        if not ack_ids:
            return ()
        self.heartbeat()
        self.leases.forget(ack_ids, after_s)
        refused: Sequence[str] = ()
        early: Sequence[str] = ()
        try:
            early = refused = self.subscription.nack(ack_ids, after_s)
            if refused:
                log("nack_failed", message_count=len(refused))
        except FanoutError as error:
            log("nack_failed", message_count=len(ack_ids), error=str(error))
            early = ack_ids
        # A refused one belongs to another worker by now. One without an answer may have been nacked: it counts as deferred.
        if refused:
            self.tally.nacked(len(refused))
        if len(refused) < len(ack_ids):
            self.tally.nacked(len(ack_ids) - len(refused), after_s)
        return early

    def abandon(self, ack_ids: Sequence[str]) -> None:
        """Nack messages whose handlers still run: what these may still return comes too late."""
        self._abandoned.update(ack_ids)
        self.nack(ack_ids)

    def due(self) -> bool:
        """Whether to flush now."""
        if not self._buffer:
            return False
        if len(self._buffer) >= MAX_BUFFERED_COUNT or self._byte_count >= MAX_BUFFERED_BYTES:
            return True
        if self.leases.byte_count >= self.settings.max_outstanding_bytes / 2:
            # What is not acknowledged counts as outstanding, and the puller waits for room.
            return True
        waited_s = self.clock.monotonic() - self._oldest_s
        return waited_s >= self._patience_s()

    def _patience_s(self) -> float:
        """How long the oldest outcome waits: when nothing else is outstanding only for what the next pull may bring."""
        interval_s = self.settings.flush_interval_s
        return min(IDLE_FLUSH_S, interval_s) if self.tally.outstanding <= len(self._buffer) else interval_s

    def try_flush(self) -> None:
        """Flush; a failure is kept and tried again, until the breaker opens."""
        try:
            self.flush()
            self._failure_count = 0
        except DependencyError as error:
            self._failure_count += 1
            log("flush_failed", outcome_count=len(self._buffer), failure_count=self._failure_count, error=str(error))
            self._oldest_s = self.clock.monotonic() + RETRY_FLUSH_S - self.settings.flush_interval_s
            hopeless = isinstance(error, DependencyMissing | DependencyForbidden)
            if hopeless or self._failure_count >= MAX_FLUSH_FAILURES:
                self.breaker.trip(str(error))

    def flush(self) -> None:
        """Everything buffered: dead letters, outcome lines, acks. Repeating it after a failure does no harm. Raises DependencyError."""
        self._flush_ended([one for one in self._buffer if one.dead_letter is None])
        dead = [one for one in self._buffer if one.dead_letter is not None]
        if dead:
            # Last, so that a dead-letter topic that is missing holds up nobody but the dead.
            self._publish(dead)
            self._flush_ended(dead)

    def _flush_ended(self, ended: Sequence[Ended]) -> None:
        shards: dict[str, list[Ended]] = defaultdict(list)
        for one in ended:
            shards[one.shard].append(one)
        for shard, of_shard in shards.items():
            self._write(shard, b"".join(one.line for one in of_shard))
            self._acknowledge(of_shard)
            written = {one.ack_id for one in of_shard}
            self._buffer = [one for one in self._buffer if one.ack_id not in written]
            self._byte_count = sum(len(one.line) for one in self._buffer)

    def _publish(self, dead: Sequence[Ended]) -> None:
        """All dead letters; one that cannot travel does not hold up the others: its bytes are kept. Raises DependencyError."""
        letters = [self._sendable(one) for one in dead]
        try:
            self.dead_letters.publish(letters)
        except DependencyError:
            raise
        except FanoutError as error:
            if len(dead) == 1:
                log("dead_letter_refused", task_id=dead[0].task_id, object=self._keep_raw(dead[0]), error=str(error))
            else:
                for one in dead:
                    self._publish([one])

    def _sendable(self, one: Ended) -> Outgoing:
        """The letter, or, when its data is too large to travel with the facts, a reference to where the data lies."""
        self.heartbeat()
        letter = one.dead_letter
        assert letter is not None, "only dead tasks have letters"
        return letter if len(letter.data) <= MAX_DATA_BYTES else referring(letter, self._keep_raw(one))

    def _keep_raw(self, one: Ended) -> str:
        name = dead_raw_object(one.task_id, one.message_id)
        self.store.write(name, one.dead_letter.data if one.dead_letter else b"")
        return name

    def unwritten(self) -> list[str]:
        """Ack ids of what was never flushed."""
        return [one.ack_id for one in self._buffer]

    def _write(self, shard: str, data: bytes) -> None:
        """Write one outcome object under the next free number. Finding our own bytes there means that an answer was lost."""
        self.heartbeat()
        settings = self.settings
        while True:
            name = outcome_object(shard, settings.execution, settings.index, settings.retry, self._sequence)
            self._sequence += 1
            try:
                self.store.write(name, data, content_type="application/x-ndjson", if_generation=0)
                return
            except PreconditionFailed:
                with suppress(ObjectMissing):
                    if self.store.read(name) == data:
                        return

    def _acknowledge(self, ended: Sequence[Ended]) -> None:
        self.heartbeat()
        ack_ids = [one.ack_id for one in ended]
        lost = set(self.subscription.ack(ack_ids))
        if lost:
            log("acks_lost", message_count=len(lost))
        self.leases.release(ack_ids)
        self.freed()
        self.tally.acknowledged(len(ended) - len(lost), (one.outcome for one in ended if one.ack_id not in lost))
        if lost:
            self.tally.nacked(len(lost))
        log("flushed", outcome_count=len(ended), acked_count=len(ended) - len(lost))

    def _wait_s(self) -> float:
        if not self._buffer:
            return LOOK_EVERY_S
        return min(LOOK_EVERY_S, max(0.01, self._oldest_s + self._patience_s() - self.clock.monotonic()))
