"""The client that submits: single tasks, and submissions whose every task can be asked for by name later.

A task is in a durable manifest before it is published, so that no published task of a submission is unknown to its proof.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from batch.client.keys import Keyed, all_settled, settled
from batch.handling.registry import Registry
from batch.model.clock import Clock, iso
from batch.model.delivery import Outgoing
from batch.model.errors import DependencyError, FanoutError, MessageRefused, PreconditionFailed, ServiceRefused
from batch.model.message import (
    BUILT_IN,
    ENVELOPE,
    ROLLING_BELOW,
    TASK_ID_PATTERN,
    Task,
    check_task_type,
    encode,
    keyed_task_id,
    new_task_id,
    rolling_shard,
    shard_in_id,
    short,
)
from batch.model.names import manifest_object, submission_object
from batch.services.ports import ObjectStore, Topic

TASKS_PER_PART = 1000
MAX_PART_BYTES = 32_000_000
"""A part is held in memory until it is published; so are the first tasks while their shard is not known."""
REFUSALS_KEPT = 1000


@dataclass(frozen=True, slots=True)
class NewTask:
    """A task as its client describes it. `position` is where it stood in the source, from 1 (0: count for me)."""

    task_type: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    idempotency_key: str | None = None
    position: int = 0


@dataclass(frozen=True, slots=True)
class Refusal:
    """A task that was not accepted, and why. `position` as in NewTask."""

    position: int
    reason: str


Check = Callable[[NewTask], None]
"""Raises MessageRefused when a task must not be submitted."""


@dataclass(frozen=True, slots=True)
class Report:
    """What is known of a submission. `accepted_count` tasks are published for certain; `uncertain_count` ones, at the positions
    `uncertain`, may be published. `refusals` holds the first thousand; `refused_count` counts all."""

    submission_id: str
    accepted_count: int
    refused_count: int
    refusals: tuple[Refusal, ...] = ()
    uncertain_count: int = 0
    uncertain: tuple[int, int] | None = None
    part_count: int = 0
    closed: bool = False


class SubmissionInterrupted(DependencyError):
    """A service failed in the middle of a submission. `report` says what is certain; `add` or `close` once more goes on from there."""

    def __init__(self, report: Report, cause: FanoutError) -> None:
        self.report = report
        maybe = "nothing of the rest is published"
        if report.uncertain is not None:
            first, last = report.uncertain
            maybe = f"{report.uncertain_count} (positions {first} to {last}) may be published, later ones are not"
        super().__init__(
            f"submission {report.submission_id} was interrupted: {report.accepted_count} tasks are published, {maybe}: {cause}; "
            "calling add() or close() again repeats that part with the same ids, which is harmless"
        )


def task_from_line(line: bytes, position: int = 0) -> NewTask | Refusal:
    """One line of NDJSON, `{"task_type", "idempotency_key"?, ...own fields}`, as a task; what submits it checks it."""
    try:
        body = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Refusal(position, f"the line is not JSON: {error}")
    if not isinstance(body, dict):
        return Refusal(position, f"a task is a JSON object, got {type(body).__name__}")
    return NewTask(body.pop("task_type", None), body, body.pop("idempotency_key", None), position)


def checked_message(
    new: NewTask,
    *,
    lane: str,
    unix_s: float,
    rng: random.Random,
    check: Check | None,
    submission_id: str = "",
    shard: str = "",
    built_in: bool = False,
) -> tuple[bytes, dict[str, str]]:
    """A new task's message data and attributes: the one way in for every client, and the only place that checks the envelope. Raises
    MessageRefused unless type, field names, key and size are such that the task can travel and be told apart, and `check` lets it pass."""
    # Clients also hand over what they parsed from JSON: the annotations promise nothing here.
    check_task_type(new.task_type)
    if not new.task_type.strip() or not new.task_type.isprintable():
        raise MessageRefused("no_task_type", f"task_type must be a text that can be read, got {short(new.task_type)}", ("task_type",))
    if not built_in and new.task_type.startswith(BUILT_IN):
        raise MessageRefused("invalid", f"type {short(new.task_type)} is Fanout's own: name yours without {BUILT_IN!r}", ("task_type",))
    taken = [name for name in ENVELOPE if name in new.fields]
    if taken:
        reason = "must be left out: set when the task is submitted; for a task that may be submitted twice give an idempotency key"
        if "task_id" in taken:
            reason += f" (only who publishes to the topic itself names a task_id: a text that matches {TASK_ID_PATTERN})"
        raise MessageRefused("invalid", f"{' and '.join(taken)} {reason}", taken)
    odd = next((name for name in new.fields if not isinstance(name, str)), None)
    if odd is not None:
        raise MessageRefused("invalid", f"names of fields must be texts, got {short(odd)}")
    if check is not None:
        check(new)
    task_id = keyed_task_id(lane, key) if (key := new.idempotency_key) is not None else new_task_id(rng, shard or submission_id)
    return encode(Task(task_id, new.task_type, iso(unix_s), new.fields, submission_id, lane, shard))


def check_by(registry: Registry, *, unknown_types: bool = False) -> Check:
    """A check by the handlers' payload models; `unknown_types` lets types pass that no handler is registered for."""

    def check(new: NewTask) -> None:
        if not unknown_types or new.task_type in registry:
            registry[new.task_type].checked(new.fields)

    return check


def checked_lane(lane: str) -> str:
    """Raises MessageRefused for a name that ids could not hold: workers would give such tasks other ids, and no proof would find them."""
    if shard_in_id(f"{0:016x}-{rolling_shard(lane, 0.0)}") is None:
        raise MessageRefused("invalid", f"lane {short(lane)} cannot stand in task ids: at most 92 letters, digits, '.', '_' and '-'")
    return lane


def choose_shard(submission_id: str, lane: str, count: int, unix_s: float, *, ended: bool) -> str:
    """Where the outcomes go: small submissions share their hour's shard, others, and those of unknown length, have one of their own."""
    return rolling_shard(lane, unix_s) if ended and count < ROLLING_BELOW else submission_id


def part_is_full(count: int, size: int, next_size: int, tasks_per_part: int = TASKS_PER_PART) -> bool:
    """Whether a part of `count` tasks and `size` bytes must be closed before one of `next_size` bytes joins it."""
    return count >= tasks_per_part or (count > 0 and size + next_size > MAX_PART_BYTES)


def submit_one(
    topic: Topic,
    new: NewTask,
    *,
    lane: str,
    clock: Clock,
    rng: random.Random,
    check: Check | None = None,
    store: ObjectStore | None = None,
    built_in: bool = False,
) -> tuple[str, str]:
    """Publish a single task; its task_id and message_id. With a bucket another task under the same idempotency key is refused. Raises
    MessageRefused, DependencyError."""
    unix_s = clock.now()
    message = single_message(new, lane=lane, unix_s=unix_s, rng=rng, check=check, built_in=built_in)
    if store is not None and new.idempotency_key is not None:
        message = settled(store, Keyed(new.idempotency_key, message), unix_s)
    return message.attributes["task_id"], topic.publish([message])[0]


def single_message(
    new: NewTask, *, lane: str, unix_s: float, rng: random.Random, check: Check | None = None, built_in: bool = False
) -> Outgoing:
    """The message of a task without a submission: its outcome goes to the shard of its lane and hour. Raises MessageRefused."""
    shard = rolling_shard(checked_lane(lane), unix_s)
    return Outgoing(*checked_message(new, lane=lane, unix_s=unix_s, rng=rng, check=check, shard=shard, built_in=built_in))


class _Prepared(NamedTuple):
    """A task that can travel. `position` and `key` (None without one) are its client's; `attributes` are not shared."""

    position: int
    data: bytes
    attributes: dict[str, str]
    key: str | None

    @property
    def message(self) -> Outgoing:
        return Outgoing(self.data, self.attributes)

    def to_shard(self, shard: str) -> _Prepared:
        """With the outcome shard of its submission, which is known only now: a small one's ids lead to the rolling shard."""
        task_id = self.attributes["task_id"]
        self.attributes["shard"] = shard
        if shard == self.attributes["submission_id"] or shard_in_id(task_id) is None:
            return self
        moved = f"{task_id[:16]}-{shard}"
        self.attributes["task_id"] = moved
        # The id begins with random digits, which no client can have put into its fields.
        return self._replace(data=self.data.replace(task_id.encode(), moved.encode()))


@dataclass(slots=True)
class _Part:
    """`manifest` is None until it is known which tasks the records of idempotency keys let pass."""

    number: int
    tasks: list[_Prepared]
    manifest: bytes | None = None
    attempted: bool = False


class Submission:
    """Tasks submitted together to one lane, whose name must pass `checked_lane`. Not for several threads.

    `add` publishes full parts and keeps the rest until more come; only `close` publishes the last ones. Memory holds one part,
    however many tasks there are.
    """

    def __init__(
        self,
        *,
        lane: str,
        topic: Topic,
        store: ObjectStore,
        clock: Clock,
        rng: random.Random,
        check: Check | None = None,
        on_refusal: Callable[[Refusal], None] | None = None,
        tasks_per_part: int = TASKS_PER_PART,
    ) -> None:
        self._lane, self._topic, self._store, self._clock, self._rng = checked_lane(lane), topic, store, clock, rng
        self._check, self._on_refusal, self._tasks_per_part = check, on_refusal, tasks_per_part
        self._submitted_at = clock.now()
        self.submission_id = f"s-{datetime.fromtimestamp(self._submitted_at, UTC):%Y%m%d-%H%M%S}-{rng.getrandbits(32):08x}"
        self._shard = ""
        self._shards: dict[str, None] = {}
        self._waiting: list[_Prepared] = []
        self._waiting_bytes = 0
        self._unsent: _Part | None = None
        self._last_position = self._accepted_count = self._refused_count = self._part_count = 0
        self._refusals: list[Refusal] = []
        self._closing: bytes | None = None
        self._closed = False

    @property
    def report(self) -> Report:
        """What is known so far; final once it is `closed`."""
        part = self._unsent if self._unsent is not None and self._unsent.attempted else None
        return Report(
            self.submission_id,
            self._accepted_count,
            self._refused_count,
            tuple(self._refusals),
            uncertain_count=len(part.tasks) if part else 0,
            uncertain=(part.tasks[0].position, part.tasks[-1].position) if part else None,
            part_count=self._part_count,
            closed=self._closed,
        )

    def add(self, items: Iterable[NewTask | Refusal]) -> None:
        """Take tasks; those that cannot travel are counted as refused, others go on. Raises SubmissionInterrupted."""
        if self._closed or self._closing is not None:
            raise ValueError(f"submission {self.submission_id} is closed; open a new one")
        self._send()
        for item in items:
            self._last_position = item.position or self._last_position + 1
            prepared = self._prepared(item, self._last_position)
            if prepared is None:
                continue
            size = len(prepared.data)
            full = part_is_full(len(self._waiting), self._waiting_bytes, size, self._tasks_per_part)
            # The new task joins first: if sending fails, it is kept for the next try.
            if full:
                self._cut(ended=False)
            self._waiting.append(prepared)
            self._waiting_bytes += size
            if full:
                self._send()

    def close(self) -> Report:
        """Publish what is left and write down how many tasks there are. Raises SubmissionInterrupted; may be called again then."""
        if self._closed:
            return self.report
        self._send()
        if self._waiting:
            self._cut(ended=True)
            self._send()
        self._closing = self._closing or self._summary()
        self._guarded(lambda: self._create(submission_object(self.submission_id), self._closing or b"", "application/json"))
        self._closed = True
        return self.report

    def _prepared(self, item: NewTask | Refusal, position: int) -> _Prepared | None:
        if isinstance(item, Refusal):
            self._refuse(Refusal(position, item.reason))
            return None
        try:
            data, attributes = checked_message(
                item,
                lane=self._lane,
                unix_s=self._clock.now(),
                rng=self._rng,
                check=self._check,
                submission_id=self.submission_id,
            )
        except MessageRefused as error:
            self._refuse(Refusal(position, str(error)))
            return None
        return _Prepared(position, data, attributes, item.idempotency_key)

    def _refuse(self, refusal: Refusal) -> None:
        self._refused_count += 1
        if len(self._refusals) < REFUSALS_KEPT:
            self._refusals.append(refusal)
        if self._on_refusal is not None:
            self._on_refusal(refusal)

    def _cut(self, *, ended: bool) -> None:
        """Make the waiting tasks the next part."""
        taken, self._waiting, self._waiting_bytes = self._waiting, [], 0
        if not self._shard:
            self._shard = choose_shard(self.submission_id, self._lane, len(taken), self._clock.now(), ended=ended)
        self._unsent = _Part(self._part_count, [one.to_shard(self._shard) for one in taken])

    def _send(self) -> None:
        part = self._unsent
        if part is None:
            return
        if part.manifest is None:
            self._guarded(lambda: self._settle(part))
        if part.tasks:
            name, manifest = manifest_object(self.submission_id, part.number), part.manifest or b""
            self._guarded(lambda: self._create(name, manifest, "application/x-ndjson"))
            part.attempted = True
            self._guarded(lambda: self._topic.publish([one.message for one in part.tasks]))
            self._accepted_count += len(part.tasks)
            self._part_count += 1
        self._unsent = None

    def _settle(self, part: _Part) -> None:
        """Make the manifest, of the tasks that no other has the idempotency key of."""
        keyed = [Keyed(one.key, one.message) for one in part.tasks if one.key is not None]
        if keyed:
            answers = iter(all_settled(self._store, keyed, self._clock.now()))
            tasks: list[_Prepared] = []
            for one in part.tasks:
                answer = one if one.key is None else next(answers)
                if isinstance(answer, MessageRefused):
                    self._refuse(Refusal(one.position, str(answer)))
                else:
                    tasks.append(one._replace(data=answer.data, attributes=dict(answer.attributes)))
            part.tasks = tasks
        told = [{name: one.attributes[name] for name in ("task_id", "task_type", "shard")} for one in part.tasks]
        part.manifest = "".join(f"{json.dumps(line, separators=(',', ':'))}\n" for line in told).encode()
        self._shards |= dict.fromkeys(line["shard"] for line in told)

    def _guarded(self, action: Callable[[], object]) -> None:
        try:
            action()
        except (DependencyError, ServiceRefused) as error:
            raise SubmissionInterrupted(self.report, error) from error

    def _create(self, name: str, body: bytes, content_type: str) -> None:
        try:
            self._store.write(name, body, content_type=content_type, if_generation=0)
        except PreconditionFailed:
            # After a lost response it is our own; anything else would mix two submissions.
            if self._store.read(name) != body:
                raise FanoutError(f"{name} exists with other content: two submissions share an id; submit again") from None

    def _summary(self) -> bytes:
        body = {
            "submission_id": self.submission_id,
            "task_count": self._accepted_count,
            "refused_count": self._refused_count,
            "part_count": self._part_count,
            "lane": self._lane,
            "topic": self._topic.name,
            "shards": list(self._shards),
            "submitted_at": iso(self._submitted_at),
            "closed_at": iso(self._clock.now()),
        }
        return json.dumps(body, indent=1).encode() + b"\n"
