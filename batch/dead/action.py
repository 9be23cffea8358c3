"""One replay or discard of many dead letters, step by step; each step can be resumed where it was interrupted.

A replay opens (an entry of the log says which letters, who and why), claims all its letters, and then, a segment at a time: writes the
outcome line `replayed` to each task's shard, begins a new round of submissions with an end to fire, publishes, and notes in the log what
Pub/Sub has confirmed. At last it closes. A kill repeats at most the requests that were in flight, and these are counted. Which outcome of a
task counts is decided by the replay's number: so a message that is published twice takes effect once.
"""

from __future__ import annotations

import hashlib
import itertools
import random
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace

from batch.dead import claims, segments
from batch.dead.filters import Filter
from batch.dead.lanes import LaneFacts
from batch.dead.letters import Letter
from batch.dead.log import Act, Entry, Fold, about
from batch.dead.publishing import Pacer, message_of, portion_count, publish
from batch.dead.selecting import edited, waiting
from batch.ends import rounds
from batch.model.clock import Clock, from_iso, iso
from batch.model.deadletters import Replay, fingerprint_of
from batch.model.delivery import MAX_PUBLISH_BYTES
from batch.model.errors import ObjectMissing, PreconditionFailed
from batch.model.names import dead_segment_object, outcome_object
from batch.model.outcomes import REPLAYED, Outcome, counted, to_line
from batch.services.ports import ObjectInfo, ObjectStore, Topic
from batch.shards import outcomes_of

IN_FLIGHT = 4
"""Publish requests at a time, each of another segment."""
WRITES_AT_A_TIME = 8
"""Of one segment, whose letters may belong to many outcome shards."""
Progress = Callable[[int, int], None]
"""Told how many letters are done with, of how many."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What an action has done. `done_count` letters were published again, or discarded; `repeated_count` of them at most were published
    twice, after interruptions. `skipped` counts those whose task needs it no more, by its outcome. `closed`: it is not to be resumed.
    `action_id` is empty if nothing was claimed. `untaken_count` letters match and wait on: they are envelopes, and the lane takes none."""

    action_id: str = ""
    claimed_count: int = 0
    done_count: int = 0
    repeated_count: int = 0
    skipped: Mapping[str, int] = field(default_factory=dict)
    closed: bool = True
    untaken_count: int = 0


@dataclass
class Action:
    """One replay or discard. Its claims and entries carry `runner`, so that two processes that resume one action write no object twice."""

    store: ObjectStore
    topics: Callable[[str], Topic]
    lane: LaneFacts
    clock: Clock
    rng: random.Random
    opened: Entry
    until_s: float | None
    progress: Progress | None = None
    resumed: bool = False

    def __post_init__(self) -> None:
        self.runner = f"{self.rng.getrandbits(32):08x}"
        self.details = self.opened.details
        self.act = Act(self.details["act"])
        self.fold = Fold()
        self.stop = threading.Event()
        self.pacer = Pacer(self.details["rate"], self.clock, self.stop, self.until_s)
        self._numbers = itertools.count()
        self._counting: dict[str, tuple[int, str]] = {}
        self._done: Counter[str] = Counter()
        self._claimed_count = 0
        self._endless = {""}  # submissions without an end to fire
        self._made_topic: Topic | None = None
        self._opened = self.resumed
        self._lock = threading.Lock()

    @property
    def action_id(self) -> str:
        return self.opened.action_id

    def run(self, choose: Callable[[Letter], bool], wanted: Filter | None) -> Replayed:
        """All steps from where the action stands."""
        known = claims.of_action(self.store, self.lane.name, self.action_id) if self.resumed else {}
        for segment in known:
            claims.take_over(self.store, segment, self.action_id, self.runner, 0)
        infos = list(segments.listed(self.store, self.lane.name))
        known_names = {info.name for info in infos}
        self.fold = segments.folded(self.store, infos)
        self.opened = self.fold.replays.get(self.action_id, self.opened)
        if self.resumed and (wanted is None or "claimed_count" in self.opened.details):
            self._claimed_count = sum(len(one.lines) for one in known.values())
            infos = [info for info in infos if info.name in known]
            found = self._already_claimed(infos, known)
        else:
            found = self._claimed(infos, choose, wanted, known)
        work, shards = self._work(found)
        if not self._opened:
            return Replayed()
        self._catch_up(known_names)
        if self.action_id in self.fold.closed:
            return self._result(closed=False)  # somebody else has resumed it while it claimed, and ended it
        if self.act is Act.REPLAYED:
            self._ask_outcomes(shards)
        earlier = Counter(self._told(entry) for entry in self.fold.ended.values() if entry.action_id == self.action_id)
        self._done.update(earlier)
        whole = self._all(work) and (not work or self._is_mine(min(work)))  # who takes over begins with the first
        return self._closed() if whole else self._result(closed=False)

    # --- claiming

    def _claimed(
        self, infos: Sequence[ObjectInfo], choose: Callable[[Letter], bool], wanted: Filter | None, known: Mapping[str, claims.Claim]
    ) -> Iterator[tuple[str, dict[int, Letter]]]:
        """Claims letters, all of them before the first is published: another action has what it claimed before. What an interrupted try has
        claimed stays claimed, also where an edit has changed what the letter matches."""
        limit = self.details["limit"]
        left = None if limit is None else max(0, limit - sum(len(one.lines) for one in known.values()))
        found = waiting(self.store, infos, self.fold, lambda _: True) if known else waiting(self.store, infos, self.fold, choose, wanted)
        for one in found:
            if not self._opened:
                self._write([self.opened])
                self._opened = True
            before = set(known[one.segment].lines) if one.segment in known else set()
            new = [line for line, letter in one.letters.items() if line not in before and (not known or choose(letter))][:left]
            held = claims.claim(self.store, one.segment, self.action_id, self.runner, new, self.fold.closed)
            left = None if left is None else left - (len(held.lines) - len(before))
            self._claimed_count += len(held.lines)
            yield one.segment, {line: one.letters[line] for line in held.lines if line in one.letters}
            if left is not None and left <= 0 and not known:
                break
        if self._opened:
            self.opened = replace(self.opened, details={**self.details, "claimed_count": self._claimed_count})
            self._write([self.opened])

    def _already_claimed(self, infos: Sequence[ObjectInfo], known: Mapping[str, claims.Claim]) -> Iterator[tuple[str, dict[int, Letter]]]:
        for one in waiting(self.store, infos, self.fold, lambda _: True):
            lines = set(known[one.segment].lines)
            yield one.segment, {line: letter for line, letter in one.letters.items() if line in lines}

    def _work(self, found: Iterator[tuple[str, dict[int, Letter]]]) -> tuple[dict[str, tuple[int, ...]], dict[str, set[str]]]:
        """Lines by segment, and task ids by shard: contents are read again when it is their turn."""
        work: dict[str, tuple[int, ...]] = {}
        shards: dict[str, set[str]] = {}
        for segment, letters in found:
            if letters:
                work[segment] = tuple(letters)
            for letter in letters.values():
                shards.setdefault(letter.shard, set()).add(letter.task_id)
        return work, shards

    def _ask_outcomes(self, shards: Mapping[str, set[str]]) -> None:
        for shard, task_ids in shards.items():
            for task_id, outcome in outcomes_of(self.store, {shard: task_ids}).items():
                if outcome.replay_number or outcome.outcome != "dead":
                    # Dead by this action's own word (`_died_again`): its letter may not be in the log yet.
                    own = outcome.execution == self.action_id
                    self._counting[task_id] = (outcome.replay_number, REPLAYED if own else outcome.outcome)

    def _catch_up(self, known: Collection[str]) -> None:
        """With what was done while the letters were being claimed: an edit that was accepted then is published, and a letter that was told
        twice and that another action has ended is not. From now on nobody else does anything to them."""
        new = [info for info in segments.listed(self.store, self.lane.name) if info.name not in known]
        for line in segments.lines(self.store, filter(segments.has_acts, new)):
            if isinstance(line.what, Entry):
                self.fold.add(line.what)

    # --- a segment at a time

    def _all(self, work: Mapping[str, tuple[int, ...]]) -> bool:
        """Whether all is done. Raises what a segment raised, when the others have ended what they had begun."""
        with ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="replay") as pool:
            futures = [pool.submit(self._one, segment, lines) for segment, lines in work.items()]
            try:
                done = [one.result() for one in futures]
            except BaseException:  # also a person's Ctrl-C: what is in flight is still noted, and nothing else begun
                self.stop.set()
                raise
        return all(done)

    def _one(self, segment: str, lines: Sequence[int]) -> bool:
        """Whether the segment is done with."""
        if self.stop.is_set():
            return False
        try:
            return self._is_mine(segment) and self._segment(segment, lines)
        except BaseException:  # raised again for who waits; the other segments are to stop now
            self.stop.set()
            raise

    def _is_mine(self, segment: str) -> bool:
        """False, and all is stopped, once somebody else has resumed this action."""
        claim = claims.read(self.store, segment).get(self.action_id)
        if claim is None or claim.runner != self.runner:
            self.stop.set()
        return not self.stop.is_set()

    def _segment(self, segment: str, lines: Sequence[int]) -> bool:
        parsed = segments.parsed(segment, self.store.read(segment), set(lines))
        letters = [edited(one, self.fold) for line in parsed if isinstance(one := line.what, Letter) and self.fold.waits(one.key)]
        if self.act is not Act.REPLAYED:
            self._note([self._entry(letter, self.act) for letter in letters])
            return True
        entries: list[Letter | Entry] = []
        ready: list[Letter] = []
        for letter in letters:
            over = self._over(letter)
            if over is None:
                ready.append(letter)
            else:
                entries.append(self._entry(letter, over[0], over[1]))
        if entries:
            self._note(entries)
        begun = False
        for portion in self._portions(ready):
            if not self.pacer.wait(len(portion)) or not self._is_mine(segment):
                return False
            if not begun:
                self._announce(segment, ready)
                self._begin_rounds(ready)
                begun = True
                if not self._is_mine(segment):  # who has resumed it meanwhile may have announced, and published, first
                    return False
            self._publish(portion)
        return True

    def _over(self, letter: Letter) -> tuple[Act, str] | None:
        """What to note of a letter that is not to be published, and why; None for one that is."""
        number, outcome = self._counting.get(letter.task_id, (0, "dead"))
        if number <= letter.replay_number:
            return None if outcome in ("dead", REPLAYED) else (Act.SUCCEEDED, outcome)
        if number == letter.replay_number + 1 and (outcome == REPLAYED or self.resumed):
            return None if outcome == REPLAYED else (Act.REPLAYED, "")  # published before an interruption
        return Act.SUCCEEDED, "replayed since"

    def _announce(self, segment: str, letters: Sequence[Letter]) -> None:
        """The outcome lines that make the tasks pending again. Where all stood there already, an interrupted try may have published a first
        portion after it had written them."""
        shards: dict[str, list[Letter]] = {}
        for letter in letters:
            shards.setdefault(letter.shard, []).append(letter)
        writer, at_s = f"{self.action_id}-{hashlib.sha256(segment.encode()).hexdigest()[:12]}", from_iso(self.opened.at)

        def write(shard: str) -> bool:
            try:
                told = [(letter, self._outcome(letter, REPLAYED)) for letter in shards[shard]]
                self._write_outcomes(outcome_object(shard, at_s, writer, 0), shard, told)
                return True
            except PreconditionFailed:
                return False

        with ThreadPoolExecutor(min(WRITES_AT_A_TIME, len(shards))) as pool:
            written = list(pool.map(write, shards))
        if self.resumed and not any(written):
            repeated = min(len(letters), portion_count(self.details["rate"]))
            claims.take_over(self.store, segment, self.action_id, self.runner, repeated)

    def _begin_rounds(self, letters: Sequence[Letter]) -> None:
        """Submissions whose tasks are pending again will end once more: their marks stand before anything is published. Asked for each
        segment, for such an end may have been fired since."""
        submissions = {letter.submission_id for letter in letters} - self._endless
        if not submissions:
            return
        with ThreadPoolExecutor(min(WRITES_AT_A_TIME, len(submissions))) as pool:
            to_end = pool.map(lambda one: (one, rounds.begin(self.store, one, self.action_id)), submissions)
            self._endless |= {submission_id for submission_id, ends in to_end if not ends}

    def _outcome(self, letter: Letter, outcome: str, error_type: str = "", reason: str = "", fingerprint: str = "") -> Outcome:
        return Outcome(
            task_id=letter.task_id,
            task_type=letter.task_type,
            outcome=outcome,
            finished_at=self.opened.at if outcome == REPLAYED else iso(self.clock.now()),
            attempt_count=0,
            execution=self.action_id,
            error_type=error_type,
            reason=reason,
            fingerprint=fingerprint,
            replay_number=letter.replay_number + 1,
        )

    def _write_outcomes(self, name: str, shard: str, told: Sequence[tuple[Letter, Outcome]]) -> None:
        """Raises PreconditionFailed, DependencyError."""
        counts = counted(shard, ((outcome.outcome, letter.submission_id) for letter, outcome in told))
        body = b"".join(to_line(outcome) for _, outcome in told)
        self.store.write(name, body, content_type="application/x-ndjson", metadata=counts, if_generation=0)

    def _portions(self, letters: Sequence[Letter]) -> Iterator[list[tuple[Letter, bytes | str]]]:
        """With their data, or why they have none: what lay in the bucket is gone. One request each."""
        most, size = portion_count(self.details["rate"]), 0
        portion: list[tuple[Letter, bytes | str]] = []
        for letter in letters:
            data = self._data(letter)
            data_bytes = len(data) if isinstance(data, bytes) else 0
            if portion and (len(portion) >= most or size + data_bytes > MAX_PUBLISH_BYTES // 2):
                yield portion
                portion, size = [], 0
            portion.append((letter, data))
            size += data_bytes
        if portion:
            yield portion

    def _data(self, letter: Letter) -> bytes | str:
        try:
            return self.store.read(letter.raw_object) if letter.raw_object else letter.data
        except ObjectMissing as error:
            return str(error)

    def _publish(self, portion: Sequence[tuple[Letter, bytes | str]]) -> None:
        # The time counts from here: what is cancelled while a replay waits for its turn is published all the same, and runs.
        now, lane = self.clock.now(), self.details["to_lane"]
        messages = [
            (letter, message_of(letter, data, Replay(letter.replay_number + 1, now, self.action_id), lane))
            for letter, data in portion
            if isinstance(data, bytes)
        ]
        refused = publish(self._topic(), [message for _, message in messages])
        failed = [(letter, data) for letter, data in portion if isinstance(data, str)]
        failed += [(messages[at][0], why) for at, why in refused.items()]
        died = [self._died_again(letter, why) for letter, why in failed]
        self._note([*(self._entry(letter, Act.REPLAYED) for letter, _ in portion), *died])

    def _topic(self) -> Topic:
        with self._lock:
            if self._made_topic is None:
                self._made_topic = self.topics(self.details["topic"])
            return self._made_topic

    def _died_again(self, letter: Letter, why: str) -> Letter:
        """A letter that cannot be published is dead under its new number, with that reason: its task would be pending for ever."""
        error_type, reason = "NotPublished", f"its message could not be published again: {why}"
        fingerprint, now = fingerprint_of(error_type, reason), self.clock.now()
        name = outcome_object(letter.shard, now, f"{self.action_id}-{self.runner}", next(self._numbers))
        with suppress(PreconditionFailed):  # no name is given twice: it is ours, and an answer was lost
            self._write_outcomes(name, letter.shard, [(letter, self._outcome(letter, "dead", error_type, reason, fingerprint))])
        number = letter.replay_number + 1
        changed = replace(letter, died_at=iso(now), error_type=error_type, reason=reason, fingerprint=fingerprint, replay_number=number)
        return replace(changed, kept_because="it could not be published: edit it, or discard it")

    # --- the log

    def _entry(self, letter: Letter, act: Act, why: str = "") -> Entry:
        lane = self.details["to_lane"] if self.details["to_lane"] != self.lane.name else ""
        return about(
            letter, act, at=iso(self.clock.now()), action_id=self.action_id, who=self.opened.who, why=why or self.opened.why, to_lane=lane
        )

    def _note(self, entries: Sequence[Letter | Entry]) -> None:
        self._write(entries)
        with self._lock:
            self._done.update(self._told(one) for one in entries if isinstance(one, Entry))
            if self.progress is not None:
                self.progress(self._done.total(), self._claimed_count)

    @staticmethod
    def _told(entry: Entry) -> str:
        return entry.why if entry.act is Act.SUCCEEDED else entry.act.value

    def _write(self, what: Sequence[Letter | Entry]) -> None:
        writer = f"{self.action_id}-{self.runner}"
        segments.write(self.store, dead_segment_object(self.lane.name, self.clock.now(), writer, next(self._numbers)), what)

    def _closed(self) -> Replayed:
        result = self._result(closed=True)
        counts = {
            "claimed_count": result.claimed_count,
            "done_count": result.done_count,
            "repeated_count": result.repeated_count,
            "skipped": dict(result.skipped),
        }
        self._write([Entry(Act.CLOSED, iso(self.clock.now()), self.action_id, self.opened.who, self.opened.why, details=counts)])
        return result

    def _result(self, *, closed: bool) -> Replayed:
        repeated = 0
        if self.resumed:
            repeated = sum(one.repeated_count for one in claims.of_action(self.store, self.lane.name, self.action_id).values())
        done = self._done[self.act.value]
        skipped = {why: count for why, count in self._done.items() if why != self.act.value}
        return Replayed(self.action_id, self._claimed_count, done, repeated, skipped, closed)
