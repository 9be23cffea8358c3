"""`fanout submit`: tasks from the command line, a file, local files, or what lies in the bucket. Says which lines were refused."""

from __future__ import annotations

import json
import os
import random
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import click

from batch.client.submission import Report, Submission, SubmissionInterrupted
from batch.client.submit import Check, NewTask, Refusal, check_by, submit_one, task_from_line
from batch.ends.options import NO_ENDS, Ends, ends_of
from batch.model.clock import SystemClock
from batch.model.errors import DependencyError, MessageRefused, NameRefused, SettingsError
from batch.model.names import checked, input_object
from batch.services.ports import ObjectStore, Topic
from fanout import cloud
from fanout.output import counted, explained_errors, say
from fanout.submission.starting import starts
from fanout.submission.target import Target, look_at

UPLOADS = 8
"""Local files that are uploaded at a time."""


@dataclass(frozen=True, slots=True)
class Request:
    """The options. `paths` are an NDJSON file, or with `files` the local files to upload."""

    task_type: str | None
    fields: tuple[str, ...]
    key: str | None
    files: bool
    folder: Path | None
    from_prefix: str | None
    paths: tuple[Path, ...]
    on_complete: str | None
    on_failure: str | None
    tolerate_count: int | None
    tolerate_percent: float | None

    @property
    def ends(self) -> Ends:
        """Raises click.UsageError for what is to happen at the end and cannot."""
        tolerate = {"count": self.tolerate_count, "percent": self.tolerate_percent}
        given: dict[str, Any] = {"tolerate": {name: value for name, value in tolerate.items() if value is not None}}
        for name, value in (("on_complete", self.on_complete), ("on_failure", self.on_failure)):
            try:
                given[name] = None if value is None else json.loads(value)
            except (ValueError, RecursionError) as error:
                raise click.UsageError(f"--{name.replace('_', '-')} is not JSON: {error}") from error
        try:
            return ends_of(given)
        except MessageRefused as error:
            raise click.UsageError(str(error)) from error

    def checked(self) -> Request:
        """Raises click.UsageError unless exactly one source is named."""
        lines = bool(self.paths) and not self.files
        given = [self.task_type is not None, self.files, self.folder is not None, self.from_prefix is not None, lines]
        if sum(given) != 1:
            raise click.UsageError("name one source: an NDJSON file or '-', or --task-type, or --files F…, or --dir, or --from-prefix")
        if self.files and not self.paths:
            raise click.UsageError("--files needs the files to upload")
        if lines and len(self.paths) > 1:
            raise click.UsageError("one NDJSON file at a time; to upload files and submit a task for each, add --files")
        if self.key is not None and self.task_type is None:
            raise click.UsageError("--idempotency-key goes with --task-type; lines of NDJSON carry a field idempotency_key")
        if self.task_type is None and self.fields and lines:
            raise click.UsageError("--field does not go with NDJSON: the lines have their own fields")
        if self.task_type is not None and self.ends != NO_ENDS:
            raise click.UsageError("--on-complete, --on-failure and --tolerate-… go with a submission, not with a single task")
        return self


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path, exists=True, allow_dash=True, dir_okay=False))
@click.option("--project", envvar="GOOGLE_CLOUD_PROJECT", required=True, show_envvar=True, help="The project of topic and bucket.")
@click.option("--topic", help="The lane's topic; by default TOPIC_NAME when --lane is not given, else the topic named like the lane.")
@click.option("--bucket", envvar="BUCKET_NAME", show_envvar=True, help="The bucket; a single task needs none, unless it has a key.")
@click.option("--lane", envvar="LANE", show_envvar=True, help="The lane to submit to.  [default: default]")
@click.option("--task-type", help="Submit one task of this type.")
@click.option("--field", "fields", multiple=True, metavar="NAME=VALUE", help="A field of the task; a value that is JSON is read as JSON.")
@click.option(
    "--idempotency-key",
    "key",
    help="Under one key one task, however often; with a bucket, others are refused.",
)
@click.option("--files", is_flag=True, help="Upload the files that are named and submit a file_processing task for each.")
@click.option("--dir", "folder", type=click.Path(path_type=Path, exists=True, file_okay=False), help="The same for all files of a folder.")
@click.option("--from-prefix", metavar="gs://BUCKET/input/…", help="A file_processing task for each object below it.")
@click.option("--handlers", envvar="HANDLERS", default="batch.handlers", show_default=True, show_envvar=True, help="Modules to check with.")
@click.option(
    "--on-complete", metavar="JSON", help='Submit this task once every task has ended: {"task_type": …} or {"webhook": "https://…"}.'
)
@click.option("--on-failure", metavar="JSON", help="Submit this one instead if more tasks are dead than are tolerated.")
@click.option("--tolerate-count", type=click.IntRange(0), help="So many dead tasks are no failure.  [default: 0]")
@click.option("--tolerate-percent", type=click.FloatRange(0, 100), help="So many dead tasks of a hundred are no failure.")
@click.option("--any-type", is_flag=True, help="Accept task types that these handlers do not know.")
@click.option("--anyway", is_flag=True, help="Do not look first whether the lane's subscription would get the tasks.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    project: str,
    topic: str | None,
    bucket: str | None,
    lane: str | None,
    handlers: str,
    any_type: bool,
    anyway: bool,
    as_json: bool,
    **source: Any,
) -> None:
    """Submit tasks.

    PATHS is a file of JSON objects, one a line ('-': standard input), each with task_type, its own fields and, if it is to be
    repeatable, idempotency_key. Ends with 0 when everything was accepted, with 1 when something was refused or failed.

    It looks at the lane first, as far as the caller may (roles/run.viewer in REGION, roles/pubsub.viewer). Tasks that the lane's
    subscription would never get are refused; that they have to wait, for a paused lane, is told, and when the lane starts workers for them
    as far as its policy says it.
    """
    request = Request(**source).checked()
    # TOPIC_NAME may be another lane's: the topic is named like the lane where one is named.
    topic, lane = topic or lane or os.environ.get("TOPIC_NAME") or "default", lane or "default"
    fields = _fields(request.fields)
    if bucket is None and request.from_prefix is not None:
        bucket = request.from_prefix.removeprefix("gs://").split("/")[0]
    if bucket is None and request.task_type is None:
        raise click.UsageError("--bucket is needed: set BUCKET_NAME; the submission is recorded there")
    check = check_with(handlers, any_type)
    with explained_errors():
        target = Target() if anyway else look_at(project, os.environ.get("REGION", "us-central1"), lane, topic)
        _tell_of(target)
        if request.task_type is not None:
            records: AbstractContextManager[ObjectStore | None] = nullcontext()
            if bucket is not None and request.key is not None:
                records = cloud.open_store(project, bucket)
            with records as keys, cloud.open_topic(project, topic) as to:
                _single(to, keys, NewTask(request.task_type, fields, request.key), lane, check, as_json)
            _tell_start(target)
            return
        with cloud.open_store(project, bucket or "") as store, cloud.open_topic(project, topic) as to:
            what = "line" if request.paths and not request.files else "file"
            ok = _many(store, to, lane, check, _shown(_source(request, store, fields)), as_json, what, request.ends)
        _tell_start(target)
    sys.exit(0 if ok else 1)


def _tell_of(target: Target) -> None:
    """Raises click.ClickException where the tasks would be lost."""
    say(*(f"warning: {one}" for one in target.told), err=True)
    if target.lost:
        raise click.ClickException(f"{'; '.join(target.lost)}; nothing was submitted, --anyway submits all the same")


def _tell_start(target: Target) -> None:
    if target.lane is not None:
        say(starts(target.lane, SystemClock().now()), err=True)


def check_with(handlers: str, any_type: bool) -> Check:
    """By the payload models of the handlers in these modules. Raises click.UsageError."""
    from batch.handling.registry import load_handlers

    # A console script does not look for modules in the folder it is run from, where an application has its handlers.
    sys.path.insert(0, str(Path.cwd()))
    try:
        return check_by(load_handlers(handlers.split(",")), unknown_types=any_type)
    except SettingsError as error:
        raise click.UsageError("; ".join(error.problems)) from error


def _fields(pairs: Iterable[str]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise click.UsageError(f"--field {pair!r} is not NAME=VALUE")
        try:
            fields[name] = json.loads(value)
        except ValueError:
            fields[name] = value
    return fields


def _single(topic: Topic, store: ObjectStore | None, new: NewTask, lane: str, check: Check, as_json: bool) -> None:
    clock, rng = SystemClock(), random.SystemRandom()
    task_id, message_id = submit_one(topic, new, lane=lane, clock=clock, rng=rng, check=check, store=store)
    if as_json:
        click.echo(json.dumps({"task_id": task_id, "message_id": message_id, "status": "submitted"}))
    else:
        click.echo(f"task {task_id} submitted to {topic.name}")


def _shown(tasks: Iterator[NewTask | Refusal]) -> Iterator[NewTask | Refusal]:
    """On a terminal with a count of those that were taken; how many will come nobody knows."""
    if not sys.stderr.isatty():
        return tasks
    from rich.console import Console
    from rich.progress import track

    return iter(track(tasks, "submitting", console=Console(stderr=True), transient=True))


def _many(
    store: ObjectStore,
    topic: Topic,
    lane: str,
    check: Check,
    tasks: Iterator[NewTask | Refusal],
    as_json: bool,
    what: str = "line",
    ends: Ends = NO_ENDS,
) -> bool:
    def tell(refusal: Refusal) -> None:
        say(f"{what} {refusal.position}: {refusal.reason}", err=True)

    try:
        submission = Submission(
            lane=lane, topic=topic, store=store, clock=SystemClock(), rng=random.SystemRandom(), check=check, on_refusal=tell, ends=ends
        )
    except MessageRefused as error:
        raise click.UsageError(str(error)) from error
    failure = ""
    try:
        submission.add(tasks)
        submission.close()
    except DependencyError as error:
        before = counted(submission.report.accepted_count, "task")
        failure = f"{error}" if isinstance(error, SubmissionInterrupted) else f"{error} ({before} submitted before)"
        say(f"Error: {failure}", err=True)
    report = submission.report
    say(json.dumps(_object(report, failure)) if as_json else _line(report, topic.name))
    return report.closed and not report.refused_count


def _object(report: Report, failure: str) -> dict[str, object]:
    return {
        "submission_id": report.submission_id,
        "closed": report.closed,
        "accepted_count": report.accepted_count,
        "refused_count": report.refused_count,
        "refused": [{"position": one.position, "reason": one.reason} for one in report.refusals],
        "uncertain_count": report.uncertain_count,
        "uncertain_positions": report.uncertain,
        "failure": failure,
    }


def _line(report: Report, topic: str) -> str:
    refused = f", {report.refused_count:,} refused" if report.refused_count else ""
    maybe = f", {report.uncertain_count:,} uncertain" if report.uncertain_count else ""
    state = "" if report.closed else ", not closed"
    return f"submission {report.submission_id}: {counted(report.accepted_count, 'task')} submitted to {topic}{refused}{maybe}{state}"


def _source(request: Request, store: ObjectStore, fields: dict[str, Any]) -> Iterator[NewTask | Refusal]:
    if request.folder is not None:
        folder = request.folder
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return _uploaded(store, ((path.relative_to(folder).as_posix(), path) for path in files), fields)
    if request.files:
        return _uploaded(store, ((path.name, path) for path in request.paths), fields)
    if request.from_prefix is not None:
        return _stored(store, request.from_prefix, fields)
    return _lines(request.paths[0])


def _lines(path: Path) -> Iterator[NewTask | Refusal]:
    stream: BinaryIO = sys.stdin.buffer if str(path) == "-" else path.open("rb")
    with closing(stream):
        for position, line in enumerate(stream, start=1):
            if line.strip():
                yield task_from_line(line, position)


def _uploaded(store: ObjectStore, files: Iterable[tuple[str, Path]], fields: dict[str, Any]) -> Iterator[NewTask | Refusal]:
    """Uploads run ahead of the tasks by a bounded number; a task is yielded when its file is in the bucket."""
    seen: set[str] = set()
    ahead: deque[Future[NewTask | Refusal]] = deque()
    with ThreadPoolExecutor(UPLOADS, thread_name_prefix="upload") as pool:
        for position, (name, path) in enumerate(files, start=1):
            ahead.append(pool.submit(_upload, store, name, path, position, fields, name in seen))
            seen.add(name)
            if len(ahead) >= 2 * UPLOADS:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _upload(store: ObjectStore, name: str, path: Path, position: int, fields: dict[str, Any], taken: bool) -> NewTask | Refusal:
    if taken:
        return Refusal(position, f"{path}: another file named {name} is submitted already; use --dir to keep folders in the names")
    try:
        store.write(input_object(checked(name)), path.read_bytes())
    except NameRefused as error:
        return Refusal(position, str(error))
    except OSError as error:
        return Refusal(position, f"{path} cannot be read: {error.strerror or error}")
    return NewTask("file_processing", {**fields, "filename": name}, position=position)


def _stored(store: ObjectStore, prefix: str, fields: dict[str, Any]) -> Iterator[NewTask | Refusal]:
    bucket, _, path = prefix.removeprefix("gs://").partition("/")
    root = input_object("")
    if not prefix.startswith("gs://") or bucket != store.bucket_name or not path.startswith(root):
        raise click.UsageError(f"--from-prefix {prefix!r} must begin with gs://{store.bucket_name}/{root}: that is where workers read")
    names = (info.name.removeprefix(root) for info in store.list(path))
    # Consoles show folders as empty objects whose name ends in a slash.
    for position, name in enumerate((name for name in names if name and not name.endswith("/")), start=1):
        try:
            yield NewTask("file_processing", {**fields, "filename": checked(name)}, position=position)
        except NameRefused as error:
            yield Refusal(position, str(error))
