"""`fanout status` and `fanout wait`: how far a submission is, once or until it has ended."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from batch import prices
from batch.client.reading.cost import Cost
from batch.client.reading.progress import Known, SubmissionProgress, SubmissionState, progress
from batch.client.stored_proof import proof_of
from batch.dead.lanes import read_lanes
from batch.model.clock import Clock, SystemClock, iso
from batch.model.errors import ObjectMissing
from batch.services.ports import ObjectStore
from controller.model.wording import duration
from fanout import cloud
from fanout.output import EXIT_FINE, EXIT_TROUBLE, counted, say, show_json, tell
from fanout.submission.proof import no_submission

EXIT_TIMEOUT = 3
EVERY_S, AT_MOST_EVERY_S = 1.0, 10.0
"""Between two looks: more and more."""
PROVE_AGAIN_S = 60.0
"""After a proof that found missing tasks, unless more has been written since."""
Show = Callable[[SubmissionProgress], object]


@click.command()
@click.argument("submission_id")
@cloud.as_json_option
@cloud.with_store
def status(submission_id: str, as_json: bool, store: ObjectStore) -> None:
    """Show how far SUBMISSION_ID is, and what it has cost.

    Its state is open (tasks may be added), running, finishing (counts suggest the end; `fanout proof` decides), complete, or failed (more
    tasks are dead than are tolerated). Counts come from the metadata of outcome objects and are approximate until it is proven.

    \b
    fanout status s-20260131-120000-0a1b2c3d
    fanout status s-20260131-120000-0a1b2c3d --json | jq .pending_count

    JSON: submission_id, lane, state, task_count (null while it is open), accepted_count, succeeded_count, superseded_count,
    cancelled_count, dead_count, pending_count, running_count, delayed_count, approximate, tasks_per_s, expected_end_at, submitted_at,
    closed_at, proved_at, end (waiting, fired), end_error, cost (usd, worker_s, vcpu_s, gib_s, message_count, write_count, execution_count,
    unknown_execution_count, prices_of, price_percent). What is not known is null.
    """
    found = _looked(store, submission_id, SystemClock().now(), Known())
    if as_json:
        show_json(found.as_object())
    else:
        tell(*as_text(found))


@click.command()
@click.argument("submission_id")
@click.option("--timeout", metavar="AGE", help="Wait no longer than this, such as 10m.")
@cloud.as_json_option
@cloud.with_store
def wait(submission_id: str, timeout: str | None, as_json: bool, store: ObjectStore) -> None:
    """Wait until SUBMISSION_ID has ended, with a bar on a terminal.

    When counts suggest the end it is proven, and the proof stored. Ends with 0 when it is complete, with 1 when it failed (more tasks are
    dead than are tolerated), with 3 when the time is over.

    \b
    fanout wait s-20260131-120000-0a1b2c3d --timeout 30m && echo done

    JSON: as `fanout status`, of the last look.
    """
    clock = SystemClock()
    try:
        until = clock.monotonic() + duration(timeout) if timeout else None
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--timeout") from error
    with _screen(as_json) as show:
        found = waited(store, submission_id, clock, until, show)
    if as_json:
        show_json(found.as_object())
    else:
        tell(*as_text(found))
    if not found.state.is_end:
        say(f"the time is over, and submission {submission_id} has not ended", err=True)
        sys.exit(EXIT_TIMEOUT)
    sys.exit(EXIT_FINE if found.state is SubmissionState.COMPLETE else EXIT_TROUBLE)


def waited(store: ObjectStore, submission_id: str, clock: Clock, until: float | None, show: Show) -> SubmissionProgress:
    """The last look: at the end, or when the clock's `monotonic` has come to `until`. Raises DependencyError."""
    known, never, every_s = Known(), threading.Event(), EVERY_S
    proved_written, prove_at = -1, 0.0
    while True:
        found = _looked(store, submission_id, clock.now(), known)
        if found.state is SubmissionState.FINISHING and (found.cost.write_count > proved_written or clock.monotonic() >= prove_at):
            proof_of(store, submission_id)
            proved_written, prove_at = found.cost.write_count, clock.monotonic() + PROVE_AGAIN_S
            found = _looked(store, submission_id, clock.now(), known)
        show(found)
        left_s = every_s if until is None else min(every_s, until - clock.monotonic())
        if found.state.is_end or left_s <= 0:
            return found
        clock.wait(never, left_s)
        every_s = min(AT_MOST_EVERY_S, every_s * 1.2)


def _looked(store: ObjectStore, submission_id: str, now: float, known: Known) -> SubmissionProgress:
    try:
        return progress(store, submission_id, read_lanes(store), now, known)
    except ObjectMissing as error:
        raise no_submission(store, submission_id, error) from error


@contextmanager
def _screen(quiet: bool) -> Iterator[Show]:
    """A bar on a terminal; else a line when something has changed."""
    if quiet:
        yield lambda _found: None
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
            bar = bars.add_task("", total=None)
            yield lambda found: bars.update(bar, description=found.state.value, total=found.task_count, completed=_ended(found))
    else:
        told: list[str] = []

        def show(found: SubmissionProgress) -> None:
            line = headline(found)
            if told[-1:] != [line]:
                told[:] = [line]
                say(line, err=True)

        yield show


def headline(found: SubmissionProgress) -> str:
    """One line: the state, and how many tasks have ended."""
    about = "about " if found.is_approximate and _ended(found) else ""
    of = f"{found.accepted_count:,}{' so far' if found.task_count is None else ''}"
    return f"submission {found.submission_id}: {found.state.value}, {about}{_ended(found):,} of {of} ended"


def as_text(found: SubmissionProgress) -> Iterator[str]:
    """Line by line."""
    yield headline(found)
    for name, count in found.counts.items():
        yield f"  {count:>9,} {name}"
    running = f", at least {found.running_count:,} of them running" if found.running_count else ""
    delayed = f", {found.delayed_count:,} of them delayed" if found.delayed_count else ""
    yield f"  {found.pending_count:>9,} pending{running}{delayed}"
    if found.tasks_per_s:
        until = f", so it ends about {iso(found.expected_end_at)[:19]}Z" if found.expected_end_at else ""
        yield f"{found.tasks_per_s:,.1f} tasks a second in the last minutes{until}"
    if found.end:
        yield {"waiting": "what is to happen at its end waits for it", "fired": "what was to happen at its end has been submitted"}[
            found.end
        ]
    if found.end_error:
        yield f"  {found.end_error}; `fanout dead ls --type fanout.finish` shows whether it is dead, `fanout dead replay` runs it again"
    yield _cost(found.cost)
    if found.state is SubmissionState.FINISHING:
        yield f"counts suggest the end; `fanout proof {found.submission_id}` decides"


def _cost(cost: Cost) -> str:
    dollars = "an unknown sum (a tick writes down how large the lane's workers are)" if cost.usd is None else f"${cost.usd:,.4f}"
    missing = f", without {counted(cost.unknown_count, 'execution')} whose time is not known" if cost.unknown_count else ""
    part = "" if cost.price_percent == prices.LIST_PERCENT else f"workers at {cost.price_percent:g} % of "
    return f"cost so far: {dollars}, {cost.worker_s:,.0f} worker seconds{missing} ({part}list prices of {prices.DATE})"


def _ended(found: SubmissionProgress) -> int:
    return sum(found.counts.values())
