"""Many tasks of one request, submitted in a thread: looked at, published, and what became of them, whatever fails on the way."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from io import BufferedReader
from itertools import islice
from math import ceil
from pathlib import Path
from typing import Any

from batch.client.closing import Opened
from batch.client.receipts import Held, Judged, Record, Turn, request_id
from batch.client.source import is_array, tasks_in
from batch.client.submission import Identity, Report, Submission, SubmissionClosed, SubmissionInterrupted, new_identity
from batch.client.submit import Check, NewTask, Refusal
from batch.events import log
from batch.model.clock import Clock, from_iso, iso
from batch.model.errors import DependencyError, DependencyUnavailable, FanoutError, MessageRefused, ObjectMissing, ObjectTooLarge
from batch.model.names import KEYED
from batch.services.ports import ObjectStore, Topic
from intake.bodies import RETRY_AFTER_S, kept
from intake.problems import RequestRefused, Wrong, escaped
from intake.submissions.options import Options

MAX_TASKS = 100_000
MAX_SOURCE_TASKS = 1_000_000
MAX_SOURCE_BYTES = 256_000_000
ERRORS_KEPT = 1000
TASKS_PER_PART = 4000
"""Four publish requests at a time, and one manifest for them."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What every submission needs. `ending` says whether the service is about to end."""

    store: ObjectStore
    clock: Clock
    rng: random.Random
    check: Check
    ending: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Work:
    """One request: the file with its body, its options, its Idempotency-Key, and the open submission that it adds to."""

    path: Path
    options: Options
    topic: Topic
    key: str | None = None
    opened: Opened | None = None


class Bulk:
    """The work of one request. Belongs to one thread."""

    def __init__(self, tools: Tools, work: Work) -> None:
        self._tools, self._work, self._options = tools, work, work.options
        self._held: Held | None = None
        if work.key is not None:
            request = request_id(work.opened.submission_id if work.opened else work.options.lane, work.key)
            self._held = Held(tools.store, request, tools.clock, tools.rng)

    def run(self) -> tuple[Mapping[str, Any], bool]:
        """The receipt, and whether it is that of an earlier request with this key. Raises RequestRefused."""
        try:
            if self._options.source:
                self._download()
            with self._work.path.open("rb") as file:
                return self._submitted(file)
        except SubmissionInterrupted as error:
            raise self._interrupted(error) from error
        except SubmissionClosed as error:
            raise RequestRefused(409, str(error), more=_members(error.report)) from error
        except DependencyError as error:
            raise refused_by(error, f"this request has published nothing: {error}") from error
        except FanoutError as error:
            if isinstance(error, RequestRefused):
                raise
            log("task_not_submitted", f"a submission could not be accepted: {error}", error=str(error))
            raise RequestRefused(500, str(error)) from error

    def _submitted(self, file: BufferedReader) -> tuple[Mapping[str, Any], bool]:
        body_hash = hashlib.file_digest(file, "sha256").hexdigest()
        new = Record(hashlib.sha256(f"{body_hash}\n{self._options.text}".encode()).hexdigest(), self._now(), self._options.lane)
        file.seek(0)
        array = is_array(file)
        while True:
            record = new
            if self._held is not None:
                if (done := self._answered(self._held.look(new.body_hash))) is not None:
                    return done, True
                record = self._held.record or new
            submission = self._submission(record)
            self._examine(submission, file, array)
            if self._held is None:
                break
            if (done := self._answered(self._held.claim(record))) is not None:
                return done, True
            if self._held.record == record:
                break
        return self._published(submission, file, array), False

    def _now(self) -> str:
        return iso(self._tools.clock.now())

    def _answered(self, judged: Judged) -> Mapping[str, Any] | None:
        """The receipt that there is; None: go on. Raises RequestRefused."""
        if judged.turn is Turn.OTHER_BODY:
            text = "Idempotency-Key: another body, or other options, came first with this key; nothing of this request is published"
            raise RequestRefused(422, text, wrong=[Wrong(pointer="Idempotency-Key", detail="give this request a key of its own")])
        if judged.turn is Turn.WAIT:
            text = "a request with this Idempotency-Key is under way; send it again to get its receipt"
            raise RequestRefused(409, text, retry_after_s=max(1, ceil(judged.retry_after_s)))
        record = self._held.record if self._held is not None else None
        return record.receipt if record is not None and judged.turn is Turn.DONE else None

    def _submission(self, record: Record) -> Submission:
        tools, work = self._tools, self._work
        return Submission(
            lane=self._options.lane,
            topic=work.topic,
            store=tools.store,
            clock=tools.clock,
            rng=tools.rng,
            check=tools.check,
            tasks_per_part=TASKS_PER_PART,
            identity=self._identity(record),
            ends=self._options.ends,
            stays_open=self._options.stays_open,
            may_go_on=self._may_go_on,
        )

    def _identity(self, record: Record) -> Identity:
        opened, held, rng, at = self._work.opened, self._held, self._tools.rng, from_iso(record.submitted_at)
        digits = held.request.removeprefix(KEYED)[:16] if held else f"{rng.getrandbits(64):016x}"
        if opened is not None:
            return Identity(opened.submission_id, at, keyed=held is not None, added=digits)
        return Identity(held.request, at, keyed=True) if held else new_identity(at, rng)

    def _may_go_on(self) -> None:
        if self._tools.ending():
            raise DependencyUnavailable("the service is about to end")
        if self._held is not None and self._held.record is not None:
            self._held.renew()

    def _examine(self, submission: Submission, file: BufferedReader, array: bool) -> None:
        """Everything is looked at before anything is published: an array may break at its end. Raises RequestRefused."""
        try:
            report = submission.examine(self._tasks(file))
            if submission.has_keys and not report.refused_count and not self._options.accept_good:
                report = submission.examine(self._tasks(file), settle_keys=True)
        except MessageRefused as error:
            status = 413 if error.kind == "too_large" else 400
            raise RequestRefused(
                status, str(error), wrong=[Wrong(pointer=f"#/{name}", detail=str(error)) for name in error.fields]
            ) from error
        if report.refused_count and not self._options.accept_good:
            wrong = wrong_places(report.refusals, array)
            total = report.refused_count + report.accepted_count
            text = f"{report.refused_count} of {total} tasks are wrong, so none is submitted (accept=good submits the others)"
            more = {"accepted_count": 0, "refused_count": report.refused_count}
            raise RequestRefused(422, f"{text}: {wrong[0].detail}", wrong=wrong, more=more)

    def _tasks(self, file: BufferedReader) -> Iterator[NewTask | Refusal]:
        most = MAX_SOURCE_TASKS if self._options.source else MAX_TASKS
        tasks = tasks_in(file)
        yield from islice(tasks, most)
        for _ in tasks:
            raise MessageRefused("too_large", f"there are more than {most} tasks; send the rest as parts of an open submission (open=true)")

    def _published(self, submission: Submission, file: BufferedReader, array: bool) -> Mapping[str, Any]:
        try:
            submission.add(self._tasks(file))
            report = submission.close()
        except FanoutError as error:
            if self._held is not None:
                with suppress(FanoutError):  # the mark expires by itself
                    self._held.release()
            if isinstance(error, SubmissionInterrupted | SubmissionClosed):
                raise
            raise SubmissionInterrupted(submission.report, error) from error
        receipt = receipt_of(report, self._options, array)
        if self._held is not None:
            try:
                self._held.finish(receipt)
            except FanoutError as error:
                raise SubmissionInterrupted(report, error) from error
        return receipt

    def _interrupted(self, error: SubmissionInterrupted) -> RequestRefused:
        """What is accepted, what is uncertain, and what the client can do."""
        known = error.report
        if self._held is not None:
            advice = "send the same request with the same Idempotency-Key again: it goes on where this one ended, with the same ids"
        elif not known.accepted_count and known.uncertain is None:
            advice = "send it again"
        else:
            advice = "without an Idempotency-Key it cannot be gone on with: sent again, its tasks become another submission and run again"
        return refused_by(error.cause, f"{error.known}; {advice}", _members(known))

    def _download(self) -> None:
        name, store = self._options.source, self._tools.store
        wrong: FanoutError
        try:
            with kept():
                store.download(name, self._work.path, max_bytes=MAX_SOURCE_BYTES)
            return
        except ObjectMissing as error:
            wrong, status = error, 422
        except ObjectTooLarge as error:
            wrong, status = error, 413
        except (DependencyError, RequestRefused):
            raise
        except FanoutError as error:  # damaged, or kept from being read
            wrong, status = error, 422
        raise RequestRefused(
            status, f"source gs://{store.bucket_name}/{name}: {wrong}", wrong=[Wrong(pointer="?source", detail=str(wrong))]
        )


def refused_by(error: FanoutError, text: str, more: Mapping[str, Any] | None = None) -> RequestRefused:
    """The answer where a service failed: 503 if it may be better soon, else 500, which an operator has to mend."""
    if isinstance(error, DependencyUnavailable):
        return RequestRefused(503, text, retry_after_s=RETRY_AFTER_S, more=more)
    log("task_not_submitted", f"a submission was interrupted: {text}", error=text)
    return RequestRefused(500, text, more=more)


def receipt_of(report: Report, options: Options, array: bool) -> dict[str, Any]:
    """What the client gets, and a repeat with its key gets again."""
    return {
        "submission_id": report.submission_id,
        "lane": options.lane,
        "accepted_count": report.accepted_count,
        "refused_count": report.refused_count,
        "errors": [one.model_dump() for one in wrong_places(report.refusals, array)],
        "closed": report.closed,
        "status": "submitted" if report.closed else "open",
    }


def wrong_places(refusals: Iterable[Refusal], array: bool) -> list[Wrong]:
    """The first thousand, each field of a task that is wrong one."""
    what = "item" if array else "line"
    found = (
        Wrong(pointer=f"#/{one.position - 1}{place}", detail=f"{what} {one.position}: {one.reason}"[:2000])
        for one in refusals
        for place in ([f"/{escaped(name)}" for name in one.fields] or [""])
    )
    return list(islice(found, ERRORS_KEPT))


def _members(report: Report) -> dict[str, Any]:
    first_last = {"uncertain": list(report.uncertain)} if report.uncertain is not None else {}
    return {
        "submission_id": report.submission_id,
        "accepted_count": report.accepted_count,
        "uncertain_count": report.uncertain_count,
        **first_last,
    }
