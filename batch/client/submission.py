"""The client that submits many tasks together, so that every one of them can be asked for by name later.

A task is in a durable manifest before it is published, so that no published task of a submission is unknown to its proof.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from batch.client.closing import PARTS as COUNTED
from batch.client.closing import (
    Opened,
    as_object,
    close_opened,
    create_same,
    is_closing,
    read_opened,
    short_name,
    write_summary,
)
from batch.client.keys import Keyed, all_settled
from batch.client.parts import TASKS_PER_PART, Part, Prepared, choose_shard, part_is_full
from batch.client.submit import Check, NewTask, Refusal, checked_lane, checked_message
from batch.ends import marks
from batch.ends.options import LANE, NO_ENDS, WEBHOOK, End, Ends
from batch.model.clock import Clock
from batch.model.delivery import Outgoing
from batch.model.errors import DependencyError, FanoutError, MessageRefused, PreconditionFailed, ServiceRefused
from batch.model.message import WEBHOOK_TYPE
from batch.model.names import manifest_object, opened_object, submission_object
from batch.model.outcomes import PRECEDENCE
from batch.services.ports import ObjectStore, Topic

REFUSALS_KEPT = 1000
KEYS_AT_ONCE = 64
"""Of tasks, before it is asked again whether to go on: a slow bucket needs minutes for those of a whole part."""


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
        self.report, self.cause = report, cause
        maybe = "nothing of the rest is published"
        if report.uncertain is not None:
            first, last = report.uncertain
            maybe = f"{report.uncertain_count} (positions {first} to {last}) may be published, later ones are not"
        self.known = f"submission {report.submission_id} was interrupted: {report.accepted_count} tasks are published, {maybe}: {cause}"
        super().__init__(f"{self.known}; calling add() or close() again repeats that part with the same ids, which is harmless")


class SubmissionClosed(FanoutError):
    """An open submission was closed before this part of it was counted; nothing of the part is published. `report` says what is."""

    def __init__(self, report: Report) -> None:
        self.report = report
        super().__init__(
            f"submission {report.submission_id} is closed: {report.accepted_count} tasks of this request are published, the others are "
            "not; submit them as another submission"
        )


@dataclass(frozen=True, slots=True)
class Identity:
    """Which submission it is. `submitted_at` is Unix seconds. `keyed`: ids and times of tasks come from it and their positions, so that a
    repeat makes the same messages. `added` (16 hex digits) tells a later request of an open submission from the others."""

    submission_id: str
    submitted_at: float
    keyed: bool = False
    added: str = ""

    def first_digits(self, position: int) -> str:
        """Of the id of the task there; empty: random ones."""
        if not self.keyed:
            return ""
        seed = f"{self.submission_id}\n{self.added}\n{position}"
        return hashlib.sha1(seed.encode(), usedforsecurity=False).hexdigest()[:16]


def new_identity(now: float, rng: random.Random) -> Identity:
    """One of its own for each submission."""
    return Identity(f"s-{datetime.fromtimestamp(now, UTC):%Y%m%d-%H%M%S}-{rng.getrandbits(32):08x}", now)


class Submission:
    """Tasks submitted together to one lane, whose name must pass `checked_lane`. Not for several threads.

    `add` publishes full parts and keeps the rest until more come; only `close` publishes the last ones. Memory holds one part,
    however many tasks there are. One that `stays_open` takes more parts, through others of the same identity, until `close_opened`.
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
        identity: Identity | None = None,
        ends: Ends = NO_ENDS,
        stays_open: bool = False,
        may_go_on: Callable[[], object] | None = None,
    ) -> None:
        """`may_go_on` is called before anything is written or published, and raises DependencyError to stop it. Raises MessageRefused for
        ends whose tasks cannot travel."""
        self._lane, self._topic, self._store, self._clock, self._rng = checked_lane(lane), topic, store, clock, rng
        self._check, self._on_refusal, self._tasks_per_part = check, on_refusal, tasks_per_part
        self._identity = identity or new_identity(clock.now(), rng)
        self.submission_id = self._identity.submission_id
        check_ends(ends, lane, check)
        self._opened = Opened(self.submission_id, lane, topic.name, self._identity.submitted_at, ends)
        self._stays_open, self._may_go_on = stays_open, may_go_on or (lambda: None)
        self._shard = self.submission_id if stays_open else ""
        self._shards: dict[str, None] = {}
        self._waiting: list[Prepared] = []
        self._waiting_bytes = 0
        self._unsent: Part | None = None
        self._last_position = self._accepted_count = self._refused_count = self._part_count = 0
        self._refusals: list[Refusal] = []
        self.has_keys = False
        """Whether a task so far had an idempotency key of its own."""
        self._begun = self._closing = self._done = False

    @property
    def report(self) -> Report:
        """What is known so far; final once it is `closed`, or its last `close` has returned."""
        part = self._unsent if self._unsent is not None and self._unsent.attempted else None
        return Report(
            self.submission_id,
            self._accepted_count,
            self._refused_count,
            tuple(self._refusals),
            uncertain_count=len(part.tasks) if part else 0,
            uncertain=part.positions if part else None,
            part_count=self._part_count,
            closed=self._done and not self._stays_open,
        )

    def examine(self, items: Iterable[NewTask | Refusal], *, settle_keys: bool = False) -> Report:
        """Look at all tasks before any is added: `accepted_count` can travel. Nothing is published; with `settle_keys`, the second time,
        the records of their own idempotency keys are written, which tells those that another task has. Raises DependencyError."""
        count, keyed = 0, list[Prepared]()
        for prepared in self._all_prepared(items):
            if not settle_keys or prepared.key is None:
                count += 1
                continue
            keyed.append(prepared)
            if len(keyed) >= TASKS_PER_PART:
                count += len(self._let_pass(keyed))
                keyed.clear()
        count += len(self._let_pass(keyed))
        report = Report(self.submission_id, count, self._refused_count, tuple(self._refusals))
        self._shard = self._shard or choose_shard(self.submission_id, self._lane, count, self._identity.submitted_at, ended=True)
        self._refusals, self._refused_count, self._last_position = [], 0, 0
        return report

    def add(self, items: Iterable[NewTask | Refusal]) -> None:
        """Take tasks; those that cannot travel are counted as refused, others go on. Raises SubmissionInterrupted, SubmissionClosed."""
        if self._done or self._closing:
            raise ValueError(f"submission {self.submission_id} is closed; open a new one")
        self._send()
        for prepared in self._all_prepared(items):
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
        """Publish what is left and, unless it stays open, write down how many tasks there are. Raises SubmissionInterrupted and
        SubmissionClosed; may be called again after the first."""
        if self._done:
            return self.report
        self._send()
        if self._waiting:
            self._cut(ended=True)
            self._send()
        self._closing = True
        self._guarded(self._finish)
        self._done = True
        return self.report

    def _all_prepared(self, items: Iterable[NewTask | Refusal]) -> Iterable[Prepared]:
        for item in items:
            position = self._last_position = item.position or self._last_position + 1
            if isinstance(item, Refusal):
                self._refuse(Refusal(position, item.reason, item.fields))
                continue
            try:
                data, attributes = checked_message(
                    item,
                    lane=self._lane,
                    # A microsecond each keeps the order in which they stand: of two that write one output the later one counts.
                    unix_s=self._identity.submitted_at + position / 1e6 if self._identity.keyed else self._clock.now(),
                    rng=self._rng,
                    check=self._check,
                    submission_id=self.submission_id,
                    shard=self._shard,
                    first_digits=self._identity.first_digits(position),
                )
            except MessageRefused as error:
                self._refuse(Refusal(position, str(error), error.fields))
                continue
            self.has_keys = self.has_keys or item.idempotency_key is not None
            yield Prepared(position, data, attributes, item.idempotency_key)

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
        self._unsent = Part(self._part_count, [one.to_shard(self._shard) for one in taken])

    def _send(self) -> None:
        part = self._unsent
        if part is None:
            return
        if part.manifest is None:
            self._guarded(lambda: part.write_down(self._let_pass(part.tasks)))
            self._shards |= part.shards
        if part.tasks:
            self._guarded(lambda: self._record(part))
            if not part.published:
                part.attempted = True
                self._guarded(lambda: self._topic.publish([one.message for one in part.tasks]))
            self._accepted_count += len(part.tasks)
            self._part_count += 1
        self._unsent = None

    def _let_pass(self, tasks: list[Prepared]) -> list[Prepared]:
        """Those that no other task has the idempotency key of, as they were first submitted."""
        keyed = [Keyed(one.key, one.message) for one in tasks if one.key is not None]
        if not keyed:
            return tasks
        answers = iter(list(self._settled(keyed)))
        passed: list[Prepared] = []
        for one in tasks:
            answer = one if one.key is None else next(answers)
            if isinstance(answer, MessageRefused):
                self._refuse(Refusal(one.position, str(answer), answer.fields))
            else:
                passed.append(one._replace(data=answer.data, attributes=dict(answer.attributes)))
        return passed

    def _settled(self, keyed: list[Keyed]) -> Iterator[Outgoing | MessageRefused]:
        for at in range(0, len(keyed), KEYS_AT_ONCE):
            self._may_go_on()
            yield from all_settled(self._store, keyed[at : at + KEYS_AT_ONCE], self._clock.now())

    def _record(self, part: Part) -> None:
        """Write the manifest; what an open submission does not count is not published."""
        self._begin()
        self._may_go_on()
        name = manifest_object(self.submission_id, part.number, self._identity.added)
        is_new = create_same(self._store, name, part.manifest or b"", "application/x-ndjson", part.metadata)
        if self._stays_open and is_closing(self._store, self.submission_id) and short_name(name) not in self._counted():
            self._store.delete(name)
            self._unsent, self._done = None, True
            raise SubmissionClosed(self.report)
        # Who wrote the next manifest had a confirmation of every message of this part.
        following = manifest_object(self.submission_id, part.number + 1, self._identity.added)
        part.published = not is_new and self._store.info(following) is not None
        self._may_go_on()

    def _counted(self) -> Sequence[str]:
        opened = read_opened(self._store, self.submission_id) or self._opened
        found: Sequence[str] = close_opened(self._store, opened, self._clock.now()).get(COUNTED, ())
        return found

    def _begin(self) -> None:
        """What must stand before the first manifest: what an open submission is, and the mark of an end to fire. Not that of a submission
        that is closed: its end may have been fired."""
        if self._begun or self._identity.added:
            return
        if self._stays_open:
            create_same(self._store, opened_object(self.submission_id), as_object(self._opened.members))
        if self._opened.ends and self._store.info(submission_object(self.submission_id)) is None:
            with suppress(PreconditionFailed):  # an earlier try of this submission has written it
                marks.write(self._store, marks.Mark(self.submission_id, self._lane), self._opened.ends)
        self._begun = True

    def _finish(self) -> None:
        self._begin()
        if self._stays_open:
            if self._identity.added and not self._part_count and is_closing(self._store, self.submission_id):
                raise SubmissionClosed(self.report)  # also where there was nothing to add
            return
        self._may_go_on()
        counts = {"task_count": self._accepted_count, "refused_count": self._refused_count, "part_count": self._part_count}
        write_summary(self._store, self.submission_id, self._opened.summary(counts, self._shards, self._clock.now()))

    def _guarded(self, action: Callable[[], object]) -> None:
        try:
            action()
        except (DependencyError, ServiceRefused) as error:
            raise SubmissionInterrupted(self.report, error) from error


def check_ends(ends: Ends, lane: str, check: Check | None) -> None:
    """Raises MessageRefused where the task of an end could not travel, or its handler would not take it, naming it. A webhook's address is
    checked by what calls it."""
    for end in End:
        wanted = ends.task(end)
        if wanted is None:
            continue
        sample = marks.fields_of_end(marks.Mark("s-", lane), marks.Firing(0.0, end, 0, dict.fromkeys(PRECEDENCE, 0)), wanted)
        is_webhook = WEBHOOK in wanted
        new = NewTask(WEBHOOK_TYPE if is_webhook else wanted["task_type"], sample)
        asked = None if is_webhook else check
        try:
            to = checked_lane(wanted.get(LANE) or lane)
            checked_message(new, lane=to, unix_s=0.0, rng=random.Random(0), check=asked, shard="end", built_in=is_webhook)
        except MessageRefused as error:
            names = [f"{end.value}.{name}" for name in error.fields] or [end.value]
            raise MessageRefused(error.kind, f"{end.value}: {error}", names) from error
