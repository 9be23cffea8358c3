"""Drains the dead-letter subscription into the log. Its one rule: data, outcome line, segment, then ack, never the other way.

Killed anywhere, it loses nothing: what is not acknowledged comes again. What was already logged is logged twice then, and counts once;
what had gone back to its lane goes back twice, and takes effect once.
"""

from __future__ import annotations

import random
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from batch.dead.draining.arrived import Arrived, Judged, arrived, judged
from batch.dead.draining.settings import DeadLetterSettings
from batch.dead.lanes import LaneFacts
from batch.dead.letters import MAX_INLINE_BYTES, Key, Letter, to_line
from batch.dead.log import MAX_LINES, MAX_SEGMENT_BYTES, Act, Entry, about
from batch.dead.segments import write
from batch.events import log
from batch.model import outcomes
from batch.model.attempts import NONE, Attempts, from_json
from batch.model.clock import Clock, iso
from batch.model.delivery import MAX_EXTENSION_S, MAX_PULL_MESSAGES, Delivery
from batch.model.errors import DependencyError, DependencyMissing, FanoutError, ObjectMissing, PreconditionFailed
from batch.model.exit import ExitReason
from batch.model.names import attempts_object, dead_raw_object, dead_segment_object, outcome_object, writer_of
from batch.services.calls import batches
from batch.services.drain import DrainProof
from batch.services.leases import LeaseKeeper
from batch.services.ports import ObjectStore, Subscription, Topic
from batch.shards import outcomes_of

READS_IN_FLIGHT = 32
AT_ONCE = 128
"""Records of `attempts/` that are read before what they tell is used; each may have 200 KB."""
MAX_TAKEN = MAX_LINES
MAX_TAKEN_BYTES = 16_000_000
"""Of messages that are in memory at a time."""
GATHER_S = 5.0
GATHER_PULL_S = 1.0
"""A subscription may give ten messages of ten thousand: so long more are pulled, so that segments are few."""
MAX_UNSETTLED = 50_000
SETTLED = ("succeeded", "superseded", "cancelled")
"""A letter whose task has one of these outcomes waits for nobody."""
LINE_ROOM = 4096


@dataclass(slots=True)
class Drain:
    """One worker's part; several may pull from the subscription at once. `lanes` by name; `end_s` (monotonic) is when it must have ended;
    `counts` tells what it did."""

    settings: DeadLetterSettings
    subscription: Subscription
    topics: Callable[[str], Topic]
    store: ObjectStore
    lanes: Mapping[str, LaneFacts]
    clock: Clock
    rng: random.Random
    stopping: threading.Event
    end_s: float
    counts: Counter[str] = field(default_factory=Counter)
    problem: str = ""
    """Why some messages could not go back to their lane; the last one."""
    leases: LeaseKeeper = field(init=False)
    _outstanding: set[str] = field(default_factory=set)
    _waiting: dict[str, list[tuple[Judged, Letter | Entry, int]]] = field(default_factory=lambda: defaultdict(list))
    """By lane, what is not written yet, as lines of the log with their sizes."""
    _unsettled: dict[str, dict[Key, Letter]] = field(default_factory=lambda: defaultdict(dict))
    """By shard, the letters that this worker has logged, without their data."""
    _sequence: int = 0
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(READS_IN_FLIGHT, thread_name_prefix="records"))

    def __post_init__(self) -> None:
        self.leases = LeaseKeeper(self.subscription, self.clock, self.rng, self._fail)

    @property
    def writer(self) -> str:
        return writer_of(self.settings.execution, self.settings.index, self.settings.retry)

    @property
    def outstanding_count(self) -> int:
        return len(self._outstanding)

    def run(self) -> ExitReason:
        """Why it ended. Whatever ended it, what is not written is nacked. Raises FanoutError."""
        self.leases.start()
        try:
            reason = self._drain()
            self._settle()
            return ExitReason.BROKEN if self.problem and reason is ExitReason.DRAINED else reason
        finally:
            self.leases.end()
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _fail(self, error: BaseException) -> None:
        """Without leases what is taken would be taken by others too."""
        self.problem = f"leases cannot be extended: {error!r}"
        self.stopping.set()

    def _drain(self) -> ExitReason:
        proof = DrainProof(least_s=self.settings.drain_after_s)
        while not self.stopping.is_set():
            began_s = self.clock.monotonic()
            if began_s >= self.end_s:
                return ExitReason.OUT_OF_TIME
            wait_s = min(proof.next_wait_s(began_s), max(0.01, self.end_s - began_s))
            taken = self.subscription.pull(MAX_PULL_MESSAGES, wait_s)
            now_s = self.clock.monotonic()
            if taken:
                self._round(taken)
                proof.saw_messages(self.clock.monotonic())
                continue
            proof.saw_empty(began_s, now_s, began_s)
            if proof.proven:
                return ExitReason.DRAINED
            self.clock.wait(self.stopping, wait_s - (now_s - began_s))  # a pull may come back at once
        return ExitReason.STOPPED

    def _round(self, first: Sequence[Delivery]) -> None:
        """Take more, log all of it."""
        try:
            taken = self._held(first)
            until_s = self.clock.monotonic() + GATHER_S
            while len(taken) < MAX_TAKEN and self.leases.byte_count < MAX_TAKEN_BYTES and self.clock.monotonic() < until_s:
                more = self._held(self.subscription.pull(min(MAX_PULL_MESSAGES, MAX_TAKEN - len(taken)), GATHER_PULL_S))
                if not more or self.stopping.is_set():
                    break
                taken += more
            for at in range(0, len(taken), AT_ONCE):
                if self.stopping.is_set():
                    return
                self._take(taken[at : at + AT_ONCE])
            for lane in list(self._waiting):
                self._write(lane)
        finally:
            self._waiting.clear()
            self._nack(list(self._outstanding))

    def _held(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        ids = [one.ack_id for one in deliveries]
        self._outstanding.update(ids)
        self.leases.hold(ids, self.clock.monotonic(), [len(one.data) for one in deliveries])
        return list(deliveries)

    def _nack(self, ack_ids: Sequence[str], after_s: float = 0.0) -> None:
        if not ack_ids:
            return
        self.leases.forget(ack_ids, after_s)
        self._outstanding.difference_update(ack_ids)
        self.counts["nacked"] += len(ack_ids)
        try:
            self.subscription.nack(ack_ids, after_s)
        except FanoutError as error:
            log("nack_failed", message_count=len(ack_ids), error=str(error))

    def _take(self, deliveries: Sequence[Delivery]) -> None:
        """Judge these, and write the lanes of which there is enough. Raises DependencyError."""
        came = [arrived(one, self.lanes) for one in deliveries]
        found = [judged(one, attempts) for one, attempts in zip(came, self._pool.map(self._record, came), strict=True)]
        if any(len(one.letter.data) > MAX_INLINE_BYTES for one in found):
            found = list(self._pool.map(self._stored, found))
        back = defaultdict(list)
        for one in found:
            if one.returned is not None:
                back[one.topic].append(one)
            else:
                self._keep(one)
        for topic, messages in back.items():
            self._return(topic, messages)
        for lane, waiting in list(self._waiting.items()):
            if len(waiting) >= MAX_LINES or sum(size for _, _, size in waiting) >= MAX_SEGMENT_BYTES:
                self._write(lane)

    def _record(self, one: Arrived) -> Attempts:
        if not one.may_have_record:
            return NONE
        try:
            return from_json(self.store.read(attempts_object(one.letter.task_id)))
        except ObjectMissing:
            return NONE

    def _stored(self, one: Judged) -> Judged:
        """With its data in the bucket, where that is too large for the log."""
        letter = one.letter
        if one.returned is not None or len(letter.data) <= MAX_INLINE_BYTES:
            return one
        name = dead_raw_object(letter.task_id, one.delivery.message_id)
        self.store.write(name, letter.data)
        return replace(one, letter=replace(letter, data=b"", raw_object=name))

    def _keep(self, one: Judged) -> None:
        """Its letter is to be logged."""
        one = self._stored(one)
        self._waiting[one.letter.lane].append((one, one.letter, len(to_line(one.letter))))

    def _return(self, topic: str, messages: Sequence[Judged]) -> None:
        """Publish them to their lane; what its topic refuses is kept for a person. If it does not answer, they come again later."""
        try:
            self.topics(topic).publish([one.returned for one in messages if one.returned is not None])
        except FanoutError as error:
            if isinstance(error, DependencyError) and not isinstance(error, DependencyMissing):
                self.problem = f"{len(messages)} messages could not go back to topic {topic}: {error}"
                log("return_failed", topic=topic, message_count=len(messages), error=str(error))
                self._nack([one.delivery.ack_id for one in messages], MAX_EXTENSION_S)
            elif len(messages) > 1:
                for one in messages:
                    self._return(topic, [one])
            else:
                self._keep(messages[0].kept(f"it could not go back to topic {topic}: {error}"))
            return
        at = iso(self.clock.now())
        for one in messages:
            entry = about(one.letter, Act.RETURNED, at=at, action_id=self.writer, who=self.writer, why=one.letter.reason)
            self._waiting[one.letter.lane].append((one, entry, LINE_ROOM))

    def _write(self, lane: str) -> None:
        """All that waits of a lane: outcome lines, segments, acks. Raises DependencyError."""
        waiting = self._waiting.pop(lane)
        for part in batches(waiting, lambda one: one[2], MAX_LINES, MAX_SEGMENT_BYTES):
            dead = [one for one, _, _ in part if one.dead]
            self._write_outcomes(dead)
            write(self.store, dead_segment_object(lane, self.clock.now(), self.writer, self._next()), [line for _, line, _ in part])
            for one in dead:
                letter = one.letter
                facts = {"task_id": letter.task_id, "task_type": letter.task_type, "error_type": letter.error_type, "reason": letter.reason}
                log("dead_lettered", f"dead lettered: {letter.reason}", lane=lane, **facts)
            self._acknowledge([one.delivery.ack_id for one, _, _ in part])
            letters = [line for _, line, _ in part if isinstance(line, Letter)]
            for letter in letters:
                self._unsettled[letter.shard][letter.key] = replace(letter, data=b"", errors=(), attributes={}, source={})
            self.counts.update(logged=len(letters), returned=len(part) - len(letters))
            log("dead_letters_logged", lane=lane, letter_count=len(letters), returned_count=len(part) - len(letters))
        if sum(map(len, self._unsettled.values())) > MAX_UNSETTLED:
            self._settle()

    def _write_outcomes(self, dead: Iterable[Judged]) -> None:
        shards: dict[str, list[Judged]] = defaultdict(list)
        for one in dead:
            shards[one.letter.shard].append(one)
        worker = (self.settings.execution, self.settings.index, self.settings.retry)
        for shard, of_shard in shards.items():
            name = outcome_object(shard, self.clock.now(), self.writer, self._next())
            try:
                data = b"".join(outcomes.to_line(one.outcome(*worker)) for one in of_shard)
                counts = outcomes.counted(shard, (("dead", one.letter.submission_id) for one in of_shard))
                self.store.write(name, data, content_type="application/x-ndjson", metadata=counts, if_generation=0)
            except PreconditionFailed:
                continue  # no name is given twice: it is ours, and an answer was lost

    def _acknowledge(self, ack_ids: Sequence[str]) -> None:
        lost = self.subscription.ack(ack_ids)
        if lost:
            log("acks_lost", message_count=len(lost))
        self.leases.release(ack_ids)
        self._outstanding.difference_update(ack_ids)

    def _settle(self) -> None:
        """Note which of the letters that were logged wait for nobody, because their task has ended well. Raises DependencyError."""
        unsettled, self._unsettled = self._unsettled, defaultdict(dict)
        settled: dict[str, list[Letter | Entry]] = defaultdict(list)
        at = iso(self.clock.now())
        for shard, letters in unsettled.items():
            if self.stopping.is_set() or self.clock.monotonic() >= self.end_s:
                break  # a replay looks again before it publishes
            known = outcomes_of(self.store, {shard: {key.task_id for key in letters}})
            for key, letter in letters.items():
                outcome = known.get(key.task_id)
                if outcome is None:
                    continue
                repeats = outcome.replay_number > letter.replay_number
                if repeats or outcome.outcome in SETTLED:
                    why = f"it repeats what was replayed as {outcome.replay_number}" if repeats else f"its outcome is {outcome.outcome}"
                    settled[letter.lane].append(about(letter, Act.SUCCEEDED, at=at, action_id=self.writer, who=self.writer, why=why))
        for lane, entries in settled.items():
            for first in range(0, len(entries), MAX_LINES):
                name = dead_segment_object(lane, self.clock.now(), self.writer, self._next())
                write(self.store, name, entries[first : first + MAX_LINES])
            self.counts["settled"] += len(entries)

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence
