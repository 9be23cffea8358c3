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
from batch.model.errors import (
    DependencyError,
    DependencyForbidden,
    DependencyMissing,
    DependencyUnavailable,
    FanoutError,
    ObjectMissing,
    PreconditionFailed,
    ServiceRefused,
)
from batch.model.names import dead_raw_object, outcome_object, writer_of
from batch.model.outcomes import counted
from batch.services.leases import LeaseKeeper
from batch.services.ports import ObjectStore, Subscription, Topic
from batch.settings import WorkerSettings
from batch.worker.attempt import Attempt, Delayed, Ended, Finished, Nack, Work, delivery_of
from batch.worker.circuit_breaker import CircuitBreaker
from batch.worker.committing.delaying import Delaying
from batch.worker.committing.republishing import Republishing
from batch.worker.tally import Tally

MAX_BUFFERED_COUNT = 2000
MAX_TAKEN_COUNT = 4000
"""Taken from the inbox at most: the rest of what may be outstanding goes on while this is flushed."""
MAX_BUFFERED_BYTES = 4 * 1024 * 1024
MAX_FLUSH_FAILURES = 3
"""Flushes that fail in a row; each has already been retried for about a minute by the client."""
MAX_CONTRADICTIONS = 3
"""Names that the bucket calls taken and does not have: a few can have been deleted meanwhile, with more it cannot be used."""
RETRY_FLUSH_S = 1.0
IDLE_FLUSH_S = 0.05
LOOK_EVERY_S = 0.25


@dataclass(slots=True)
class Committer:
    """One thread calls `run`; one round is `take`, then `flush` when `due`. `heartbeat` is called before each call to a service,
    `freed` when acknowledged messages make room for others, `writes_to` with the shard before each write of outcomes. `given_up` makes a
    dead letter of a message, with a reason; `topics` makes the subscription's topic."""

    settings: WorkerSettings
    inbox: SimpleQueue[list[Finished] | None]
    subscription: Subscription
    dead_letters: Topic
    store: ObjectStore
    leases: LeaseKeeper
    tally: Tally
    breaker: CircuitBreaker
    clock: Clock
    given_up: Callable[[Work, str], Finished]
    topics: Callable[[str], Topic] | None = None
    each_round: Callable[[], None] = lambda: None
    heartbeat: Callable[[], None] = lambda: None
    freed: Callable[[], None] = lambda: None
    writes_to: Callable[[str], None] = lambda _shard: None
    _delaying: Delaying = field(init=False)
    _republishing: Republishing = field(init=False)
    _buffer: list[Ended] = field(default_factory=list)
    _byte_count: int = 0
    _oldest_s: float = 0.0
    _sequence: int = 0
    _failure_count: int = 0
    _abandoned: dict[str, Finished | None] = field(default_factory=dict)
    """By ack id, what alone may become of a message whose handler still runs; None: it was nacked."""

    def __post_init__(self) -> None:
        self._delaying = Delaying(self.store, self.subscription, self.leases, self.tally, self.heartbeat)
        self._republishing = Republishing(self.subscription, self.topics, self.leases, self.tally, self.clock, self.heartbeat)

    def run(self) -> None:
        """Until `None` comes through the inbox; then what is buffered is flushed. Raises FanoutError when that cannot be done."""
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
        """Buffer outcomes, nack what is to be nacked, delay what must wait for long."""
        ended: list[Ended] = []
        nacks: list[Nack] = []
        delayed: list[Delayed] = []
        abandoned = self._abandoned
        for one in finished:
            if abandoned and abandoned.get(one.ack_id, one) is not one:
                continue
            if isinstance(one, Nack):
                if one.dependency:
                    self.breaker.failed(one.dependency)
                nacks.append(one)
                continue
            if isinstance(one, Delayed):
                delayed.append(one)
                continue
            self.breaker.ended()
            ended.append(one)
        self._keep(ended)
        if nacks:
            self._nack(nacks, self._keep)
        if delayed:
            self._delay(delayed)

    def _keep(self, ended: Sequence[Ended]) -> None:
        if ended and not self._buffer:
            self._oldest_s = self.clock.monotonic()
        self._buffer += ended
        self._byte_count += sum(len(one.line) for one in ended)

    def _delay(self, delayed: Sequence[Delayed]) -> None:
        """What cannot be delayed is nacked for as long as Pub/Sub can hold it, which is less than it asked for."""
        failed = self._delaying.delay(delayed)
        if failed:
            self.breaker.failed(next(iter(failed.values())))
            self._nack([Nack(one.attempt, MAX_EXTENSION_S) for one in delayed if one.ack_id in failed], self._keep)

    # --- nacks

    def nack(self, works: Iterable[Work]) -> None:
        """Nack what has not run, from another thread than the committer's."""
        self._nack([Nack(one) for one in works], lambda dead: self.inbox.put([*dead]))

    def abandon(self, works: Iterable[Work]) -> None:
        """What the handlers of these messages may still return comes too late. They are nacked, or `settle` says what becomes of them."""
        self._abandoned.update(dict.fromkeys(one.ack_id for one in works))

    def nack_abandoned(self, works: Iterable[Work]) -> None:
        self._nack([Nack(one) for one in works], self.settle)

    def settle(self, finished: Sequence[Finished]) -> None:
        """What alone becomes of abandoned messages."""
        self._abandoned.update({one.ack_id: one for one in finished})
        self.inbox.put([*finished])

    def nack_unwritten(self) -> None:
        """Nack what was never flushed, once the committer's thread has ended: its tasks are done again."""
        kept = [one.delivery for one in self._buffer if one.delivery is not None]
        self._nack([Nack(one) for one in kept], None)
        whole = {one.ack_id for one in kept}
        self._send([one.ack_id for one in self._buffer if one.ack_id not in whole], 0.0)

    def _nack(self, nacks: Sequence[Nack], bury: Callable[[Sequence[Ended]], None] | None) -> None:
        """The one way back to the broker. Messages that the subscription's dead-letter policy is about to take are published again; one
        with which that can never be done is dead with the reason, and goes to `bury`."""
        near = [one for one in nacks if self._republishing.is_near(delivery_of(one.work))]
        if not near:
            self._nack_plainly(nacks)
            return
        whole = {one.ack_id for one in near}
        self._nack_plainly([one for one in nacks if one.ack_id not in whole])
        plain: list[Nack] = []
        dead: list[Ended] = []
        for left in self._republishing.republish(near, self._note):
            ended = self.given_up(left.nack.work, left.reason) if bury and left.is_dead(self._republishing.limit) else None
            if isinstance(ended, Ended):
                dead.append(ended)
            else:
                plain.append(left.nack)
        self._nack_plainly(plain)
        if bury and dead:
            bury(dead)

    def _nack_plainly(self, nacks: Sequence[Nack]) -> None:
        """In whole seconds, as the service takes them: one call for all that fail in a round, not one for each."""
        back: dict[tuple[float, bool], list[Nack]] = defaultdict(list)
        for one in nacks:
            back[float(ceil(one.after_s)), one.reported].append(one)
        for (after_s, reported), alike in back.items():
            early = set(self._send([one.ack_id for one in alike], after_s, reported=reported))
            self._note(one for one in alike if one.ack_id in early)

    def _note(self, early: Iterable[Nack]) -> None:
        """Messages that may come back early: put on record what is not."""
        self._delaying.note((one.work.task, one.not_before) for one in early if isinstance(one.work, Attempt) and not one.on_record)

    def _send(self, ack_ids: Sequence[str], after_s: float, *, reported: bool = False) -> Sequence[str]:
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
            self.tally.nacked(len(ack_ids) - len(refused), 0.0 if reported else after_s)
        return early

    # --- flushes

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
        except FanoutError as error:
            self._failure_count += 1
            log("flush_failed", outcome_count=len(self._buffer), failure_count=self._failure_count, error=str(error))
            self._oldest_s = self.clock.monotonic() + RETRY_FLUSH_S - self.settings.flush_interval_s
            hopeless = isinstance(error, DependencyMissing | DependencyForbidden | ServiceRefused)
            if hopeless or self._failure_count >= MAX_FLUSH_FAILURES:
                self.breaker.trip(str(error))

    def flush(self) -> None:
        """Everything buffered: dead letters, outcome lines, acks. Repeating it after a failure does no harm. Raises FanoutError."""
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
            self.writes_to(shard)
            self._write(shard, of_shard)
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

    def _write(self, shard: str, ended: Sequence[Ended]) -> None:
        """Write one outcome object under the next free number; its metadata counts its lines by outcome. Finding our own bytes there means
        that an answer was lost."""
        self.heartbeat()
        data = b"".join(one.line for one in ended)
        counts = counted(shard, ((one.outcome, one.submission_id) for one in ended))
        writer, missing_count = writer_of(self.settings.execution, self.settings.index, self.settings.retry), 0
        while missing_count <= MAX_CONTRADICTIONS:
            name = outcome_object(shard, self.clock.now(), writer, self._sequence)
            self._sequence += 1
            try:
                self.store.write(name, data, content_type="application/x-ndjson", metadata=counts, if_generation=0)
                return
            except PreconditionFailed:
                try:
                    if self.store.read(name) == data:
                        return
                except ObjectMissing:
                    missing_count += 1
        raise DependencyUnavailable(f"{missing_count} outcome objects can neither be created nor read: find what answers for the bucket")

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
