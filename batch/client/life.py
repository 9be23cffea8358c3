"""The life of one task, as far as the bucket tells: what became of it, or what it waits for, and what is known of it.

What is read is bounded by the task's outcome shard, never by the history. A task that waits and one that runs for the first time have left
nothing yet: they are told apart only where a live worker's progress names the task.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from math import ceil

from batch.client.keys import KeyRecord, read_record
from batch.dead.filters import Filter
from batch.dead.letters import Key, Letter
from batch.dead.segments import has_letters, lines, listed
from batch.dead.selecting import may_hold
from batch.handling.cancels import Cancels
from batch.model.attempts import NONE, Attempts, from_json
from batch.model.clock import from_iso, hour, iso, minute
from batch.model.delayed import DelayedMessage, from_object
from batch.model.errors import ObjectMissing, SettingsError
from batch.model.message import TASK_ID_PATTERN, rolling_shard, shard_in_id, shard_of
from batch.model.names import (
    DAMAGED,
    DELAYED,
    attempts_object,
    delayed_folder,
    delayed_parts,
    manifest_object,
    outcome_folder,
    result_object,
    submission_object,
)
from batch.model.outcomes import PRECEDENCE, RANK, REPLAYED, Outcome, from_line
from batch.services.ports import ObjectInfo, ObjectStore
from batch.shards import contents

HOUR_S = 3600.0
AROUND_S = 300.0
"""How much earlier than it is said a task may have been published."""
FIRST_S, LAST_S = 366 * 86_400.0, 9_999_999_999.0
RETENTION_S = 7 * 86_400.0
"""As long as Pub/Sub keeps a message: what has left no trace since waits no more."""
MAX_SEGMENTS = 200
_ROLLING = re.compile(r"rolling-(?P<lane>.+)-(?P<hour>\d{10})", re.ASCII)
_MINUTE = re.compile(r"\d{12}", re.ASCII)


class State(StrEnum):
    """What may be said of a task; the first four as in its outcome."""

    SUCCEEDED, SUPERSEDED, CANCELLED, DEAD = PRECEDENCE
    RUNNING = "running"
    DELAYED = "delayed"
    RETRYING = "retrying"
    PENDING_AGAIN = "pending again"
    """It was replayed, and nothing more is known."""
    WAITING = "waiting or running"
    NOT_KNOWN = "not known"


@dataclass(frozen=True, slots=True)
class Running:
    """A worker's try that said at `told_at` that it runs the task, since `since` (Unix seconds)."""

    execution: str
    index: int
    retry: int
    since: float
    told_at: float


@dataclass(frozen=True, slots=True)
class Where:
    """Where a task's traces lie: its outcome in one of `shards`, of which nothing older than the minute `since` is read but of those
    `guessed`; `lane` is empty if nothing names it."""

    shards: tuple[str, ...]
    lane: str = ""
    since: str = ""
    guessed: frozenset[str] = frozenset()
    record: KeyRecord | None = None


@dataclass(frozen=True, slots=True)
class Life:
    """What is known of a task. `outcomes` are its lines, the one that counts first; `due` (Unix seconds) is when a delayed task may run, or
    the next attempt of one that failed; `letter` is its last dead letter in the log; `outputs` are objects that it has written.
    `problems`: what could not be read, so that more may be true than is told."""

    task_id: str
    state: State
    where: Where
    outcomes: tuple[Outcome, ...] = ()
    attempts: Attempts = NONE
    due: float = 0.0
    running: Running | None = None
    delayed: DelayedMessage | None = None
    letter: Letter | None = None
    outputs: tuple[ObjectInfo, ...] = ()
    problems: tuple[str, ...] = ()
    cancelled_by: str = ""
    """By whom and when, of one that has not ended yet."""

    @property
    def outcome(self) -> Outcome | None:
        """The line that counts; one that says `replayed` means that the task is pending again."""
        return self.outcomes[0] if self.outcomes else None

    @property
    def replay_number(self) -> int:
        """How often it was replayed, as far as its outcomes tell."""
        return self.outcomes[0].replay_number if self.outcomes else 0


def located(store: ObjectStore, task_id: str, *, shard: str = "", lane: str = "", at: float | None = None) -> Where:
    """Where to look for a task. `at`: about when it was published (Unix seconds); with `lane` it leads to the shard of a message that
    names none. Raises SettingsError when nothing leads to a shard, DependencyError."""
    if not re.fullmatch(rf"{TASK_ID_PATTERN}|message-[!-~]{{1,200}}", task_id):
        raise SettingsError([f"{task_id!r:.200} is no task id: it must match {TASK_ID_PATTERN}"])
    if at is not None and not FIRST_S < at < LAST_S:
        raise SettingsError([f"--at: no task was published {'before 1971' if at < LAST_S else 'after 2286'}"])
    own, record = shard or shard_in_id(task_id) or "", None
    if not own:
        try:
            record = read_record(store, task_id)
        except ValueError as error:
            if not lane or at is None:
                raise SettingsError([f"the record of {task_id} is damaged ({error}): give --shard, or --lane and --at"]) from error
        own, lane = (record.shard, lane or record.lane) if record else ("", lane)
    guessed = [rolling_shard(lane, at + hours * HOUR_S) for hours in (0, -1, 1)] if lane and at is not None and not shard else []
    shards = tuple(dict.fromkeys([*([own] if own else []), *guessed]))
    if not shards:
        told = f"{task_id} names no outcome shard, and no record of an idempotency key does"
        need = "give --lane and --at (about when it was published), or --shard if the message had that attribute"
        raise SettingsError([f"{told}: {need}. So it is with keyed tasks of a front door without a bucket, and messages of others"])
    if any(shard_of({"shard": one}, lane="", published_s=0.0) != one for one in shards):
        raise SettingsError([f"{shards[0]!r:.200} can be no outcome shard: look at --lane and --shard"])
    rolling = _ROLLING.fullmatch(own)
    since = minute(at - AROUND_S) if at is not None else ""
    return Where(shards, lane or (rolling["lane"] if rolling else ""), since, frozenset(guessed) - {own}, record)


@dataclass
class Tracing:
    """Reads one task's life. `subscriptions`: by lane, empty if they are not known. `running`: which worker says that it runs the task; it
    is given the lanes in question. `before_reading` is called with how many objects are about to be read, and raises to stop that."""

    store: ObjectStore
    task_id: str
    where: Where
    now: float
    subscriptions: Callable[[], Mapping[str, str]]
    running: Callable[[Sequence[str]], Running | None]
    before_reading: Callable[[int], None] = lambda _count: None
    problems: list[str] = field(default_factory=list)

    def life(self) -> Life:
        """Raises DependencyError."""
        outcomes = tuple(sorted(self._outcomes(), key=lambda one: one.order))
        counts = outcomes[0] if outcomes else None
        number = counts.replay_number if counts else 0
        attempts = self._attempts().of_replay(number)
        dead = next((one for one in outcomes if one.outcome == State.DEAD), None)
        letter = self._letter(dead) if dead is not None and counts is not None and counts.outcome in (State.DEAD, REPLAYED) else None
        outputs = tuple(self._outputs(outcomes))
        running, delayed, due, cancelled_by = None, None, 0.0, ""
        if counts is not None and counts.outcome != REPLAYED:
            state = State(counts.outcome)
        else:
            running = self.running(self._lanes)
            due, delayed = (0.0, None) if running else self._delayed(attempts)
            state = self._pending(running, due, attempts, replayed=counts is not None)
            due = due or attempts.not_before
            cancelled_by = self._cancelled_by(counts)
            if self.where.since and not outcomes:
                self.problems.append(f"of what was written before {self.where.since} (UTC, --at) nothing was read: it may have ended then")
        problems = tuple(self.problems)
        return Life(self.task_id, state, self.where, outcomes, attempts, due, running, delayed, letter, outputs, problems, cancelled_by)

    def _cancelled_by(self, replayed: Outcome | None) -> str:
        """Of a small submission only its messages name it, so a cancel of all of it shows here only once it has taken effect."""
        for lane in self._lanes[:1]:
            cancels = Cancels()
            if problem := cancels.look(self.store, lane, self.now):
                self.problems.append(problem)
            for name in (self.task_id, *self.where.shards):
                entry = cancels.by_id.get(name)
                if entry is not None and (replayed is None or replayed.finished_at <= iso(entry.at)):
                    return entry.reason
        return ""

    def _pending(self, running: Running | None, due: float, attempts: Attempts, *, replayed: bool) -> State:
        if running is not None:
            return State.RUNNING
        if due or (attempts.not_before > self.now and not attempts.attempt_count):
            return State.DELAYED
        if attempts.attempt_count:
            return State.RETRYING
        if replayed:
            return State.PENDING_AGAIN
        return State.WAITING if attempts != NONE or self._is_submitted() else State.NOT_KNOWN

    def _outcomes(self) -> list[Outcome]:
        """Newest minutes first, until a line has succeeded: no other can count more than that, unless it is of a later replay, so objects
        that may tell of replays are read before."""
        infos = [info for shard in self.where.shards for info in self.store.list(outcome_folder(shard)) if self._is_wanted(shard, info)]
        infos.sort(key=lambda info: (_tells_replays(info), _minute(info), info.name), reverse=True)
        self.before_reading(len(infos))
        found: list[Outcome] = []
        told = f'"{self.task_id}"'.encode()
        telling_count = sum(map(_tells_replays, infos))
        for read_count, (info, data) in enumerate(contents(self.store, infos), 1):
            if told in data:
                found += self._lines(info.name, data, told)
            if found and read_count >= telling_count and min(one.order for one in found)[1] == RANK[State.SUCCEEDED]:
                break
        return found

    def _is_wanted(self, shard: str, info: ObjectInfo) -> bool:
        return shard in self.where.guessed or not _minute(info) or _minute(info) >= self.where.since

    def _lines(self, name: str, data: bytes, told: bytes) -> Iterator[Outcome]:
        for line in data.splitlines():
            if told not in line:
                continue
            try:
                outcome = from_line(line)
            except ValueError:
                self.problems.append(f"{name} holds a damaged line that names this task: {line[:80]!r}")
                continue
            if outcome.task_id == self.task_id:
                yield outcome

    def _attempts(self) -> Attempts:
        try:
            data = self.store.read(attempts_object(self.task_id))
        except ObjectMissing:
            return NONE
        attempts = from_json(data)
        if attempts == NONE:
            self.problems.append(f"{attempts_object(self.task_id)} is damaged: its attempts count as none, to workers too")
        return attempts

    @cached_property
    def _lanes(self) -> Sequence[str]:
        """Its lane, or all if nothing names it."""
        if self.where.lane:
            return [self.where.lane]
        try:
            return [str(json.loads(self.store.read(submission_object(self.where.shards[0])))["lane"])]
        except (ObjectMissing, ValueError, KeyError, TypeError, RecursionError):
            return list(self.subscriptions())

    def _letter(self, dead: Outcome) -> Letter | None:
        """The letter of a death: the `dead-letters` job writes it some time after."""
        key = Key(self.task_id, dead.replay_number)
        try:
            since = minute(from_iso(dead.finished_at) - AROUND_S)
        except ValueError:
            since = ""
        wanted = Filter(fingerprints=(dead.fingerprint,) if dead.fingerprint else ())
        for lane in self._lanes:
            infos = [info for info in listed(self.store, lane, since) if has_letters(info) and may_hold(info, wanted)]
            if infos:
                self.before_reading(len(infos[:MAX_SEGMENTS]))
            for line in lines(self.store, infos[:MAX_SEGMENTS]):
                if isinstance(line.what, Letter) and line.what.key == key:
                    return line.what
            if rest := infos[MAX_SEGMENTS:]:
                self.problems.append(f"its dead letter may lie in {rest[0].name} or a later segment: these were not read")
        return None

    def _delayed(self, attempts: Attempts) -> tuple[float, DelayedMessage | None]:
        """When the delayed task is due, and its message; 0 if it is not delayed."""
        subscriptions = self.subscriptions()
        folders = [delayed_folder(subscriptions[lane]) for lane in self._lanes if lane in subscriptions]
        found: list[tuple[int, str]] = []
        if attempts.not_before:
            # Its object is named by the time that stands in the record.
            found = self._delayed_below(f"{folder}{ceil(attempts.not_before):010d}-{self.task_id}" for folder in folders)
        found = found or self._delayed_below([*folders, DAMAGED] if folders else [DELAYED])
        damaged = [name for _, name in found if name.startswith(DAMAGED)]
        self.problems += [f"its delayed message cannot be published: look at {name}" for name in damaged]
        for due, name in sorted(found, reverse=True):
            if name in damaged:
                continue
            try:
                return float(due), from_object(self.store.read(name))
            except ObjectMissing:
                continue
            except ValueError as error:
                self.problems.append(f"{name} is damaged: {error}")
                return float(due), None
        return 0.0, None

    def _delayed_below(self, prefixes: Iterable[str]) -> list[tuple[int, str]]:
        named = [(info.name, delayed_parts(info.name)) for prefix in prefixes for info in self.store.list(prefix)]
        return [(parts[0], name) for name, parts in named if parts is not None and parts[1] == self.task_id]

    def _outputs(self, outcomes: Sequence[Outcome]) -> Iterator[ObjectInfo]:
        """What its outcome names, and its results; as they are now, when they may be another task's."""
        named = list(dict.fromkeys(one.output for one in outcomes if one.output))
        for name in named:
            try:
                info = self.store.info(name)
            except ValueError as error:
                self.problems.append(f"its outcome names an output that cannot be one: {error}")
                continue
            if info is None:
                self.problems.append(f"its output {name} is not there any longer")
            else:
                yield info
        stem = result_object(self.task_id).removesuffix(".json")
        for info in self.store.list(stem):
            is_own = info.name.startswith((f"{stem}.", f"{stem}-")) and info.metadata.get("task_id", self.task_id) == self.task_id
            if is_own and info.name not in named:
                yield info

    def _is_submitted(self) -> bool:
        """Whether anything says that there is such a task, which has left no trace."""
        if self.where.record is not None:
            return True
        own = self.where.shards[0]
        if own in self.where.guessed or shard_in_id(self.task_id) != own:
            return False
        rolling = _ROLLING.fullmatch(own)
        if rolling:
            return hour(self.now - RETENTION_S) <= rolling["hour"] <= hour(self.now + HOUR_S)
        infos = list(self.store.list(manifest_object(own, 0).rpartition("-")[0]))
        self.before_reading(len(infos))
        return any(f'"{self.task_id}"'.encode() in data for _, data in contents(self.store, infos))


def _tells_replays(info: ObjectInfo) -> bool:
    """Whether an object of outcomes may hold lines `replayed`, by the counts in its metadata."""
    return not info.metadata or REPLAYED in info.metadata


def _minute(info: ObjectInfo) -> str:
    """Empty for an object outside the folder of a minute."""
    folder = info.name.split("/")[-2]
    return folder if _MINUTE.fullmatch(folder) else ""
