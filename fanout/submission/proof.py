"""`fanout proof`: what became of a submission, or by count of a lane's messages. Ends with 0 only when all are accounted for."""

from __future__ import annotations

import sys

import click

from batch.client.proof import DeadGroup, Proof
from batch.client.stored_proof import ToldProof, proof_of
from batch.model.clock import iso
from batch.model.errors import ObjectMissing
from batch.model.texts import printable
from batch.services.ports import ObjectStore
from controller.model.wording import are
from fanout import cloud
from fanout.output import counted, show_json
from fanout.submission.lane_proof import as_object, counted_lane
from fanout.submission.lane_proof import as_text as lane_text

SHOWN = 20
"""How many missing or dead tasks are named in the text; `--json` names all."""


@click.command()
@click.argument("submission_id", required=False)
@click.option("--lane", default="", help="Count the messages of a lane instead, whose publishers made no submission.")
@click.option("--since", default="", metavar="AGE|TIME", help="With --lane: published within an age such as 2h, or since a time.")
@click.option("--until", default="", metavar="AGE|TIME", help="With --lane: published until then; now by default.")
@click.option("--given", type=click.IntRange(0), help="With --lane: how many messages were published in that time.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole proof as JSON.")
@cloud.with_store
def command(submission_id: str | None, lane: str, since: str, until: str, given: int | None, as_json: bool, store: ObjectStore) -> None:
    """Prove what became of a submission's tasks, or count a lane's.

    Ends with 0 when the submission is closed and every task has an outcome, whichever; else with 1. A complete proof is stored, and told
    again at the cost of a list while nothing newer is in the bucket.

    With --lane it is a proof by count, of whole hours (UTC): 0 when as many messages ended as --given says, else 1.

    \b
    fanout proof s-20260131-120000-0a1b2c3d
    fanout proof --lane uploads --since 2026-01-31T12:00 --until 2026-01-31T13:59 --given 5000
    """
    if lane:
        if submission_id or not since:
            raise click.UsageError("--lane needs --since, and no submission")
        found = counted_lane(store, lane, since, until, given)
        show_json(as_object(found)) if as_json else click.echo(lane_text(found))
        sys.exit(0 if found.complete else 1)
    if submission_id is None or since or until or given is not None:
        raise click.UsageError("name a submission, or --lane with --since, --until and --given")
    try:
        told = proof_of(store, submission_id)
    except ObjectMissing as error:
        raise no_submission(store, submission_id, error) from error
    if as_json:
        show_json(told.as_object())
    else:
        click.echo(as_text(told.proof))
        click.echo(_basis(told), nl=False)
    sys.exit(0 if told.proof.complete else 1)


def no_submission(store: ObjectStore, submission_id: str, error: ObjectMissing) -> click.ClickException:
    """What to say of an id that nothing has."""
    return click.ClickException(f"there is no submission {submission_id} in bucket {store.bucket_name} ({error})")


def _basis(told: ToldProof) -> str:
    """What a stored proof is worth, where that is not the same as a new one's."""
    gone = "outcomes that it was made from are gone since, so it cannot be proved again"
    return f"as stored at {iso(told.stored_at)}: {gone}\n" if told.as_stored else ""


def as_text(proof: Proof) -> str:
    """The proof as a person reads it."""
    lines = [f"submission {proof.submission_id}: {verdict(proof)}", f"  {proof.submitted_count:>9,} submitted"]
    lines += [f"  {count:>9,} {name}" for name, count in proof.counts.items()]
    lines.append(f"  {len(proof.missing):>9,} missing")
    lines += [f"    dead {dead_group(group)}" for group in proof.dead[:SHOWN]]
    if len(proof.dead) > SHOWN:
        lines.append(f"    and {len(proof.dead) - SHOWN:,} more groups of dead tasks; see --json")
    # Those that somebody may have to look for come before those that come back by themselves.
    missing = sorted(proof.missing, key=lambda task_id: task_id in proof.delayed)
    lines += _named("missing", [(task_id, _trace(proof, task_id)) for task_id in missing])
    if proof.repeated_line_count:
        were = "was" if proof.repeated_line_count == 1 else "were"
        lines.append(f"{counted(proof.repeated_line_count, 'outcome')} {were} written again after a redelivery; this is harmless")
    if proof.second_output_count:
        named = ", ".join(proof.second_outputs[:SHOWN])
        lines.append(f"took effect twice, with another output each time: {counted(proof.second_output_count, 'outcome')}, of {named}")
    if proof.repeated_task_count:
        again = counted(proof.repeated_task_count, "task")
        lines.append(f"submitted again under the same idempotency key, and counted once: {again}")
    if proof.unknown_count:
        lines.append(f"in this submission's folder, of tasks that it never had: {counted(proof.unknown_count, 'outcome')}")
    if proof.last_finished_at:
        rate = f", {proof.tasks_per_s:,.1f} tasks a second" if proof.tasks_per_s else ""
        lines.append(f"finished {proof.first_finished_at} to {proof.last_finished_at} ({proof.finishing_s:,.1f} s{rate})")
        lines.append(_by_whom(proof))
    return "\n".join(map(printable, [*lines, *(f"problem: {problem}" for problem in proof.problems)]))


def dead_group(group: DeadGroup) -> str:
    """`50 × KeyError: 'lines' (resize), such as 1f0c…-rolling-default-2026013112 by worker default-x7k2p/3`: the error is the example's."""
    one = group.example
    error = ": ".join(filter(None, (one.error_type, one.reason)))
    by = f" by worker {one.execution}/{one.index}" if one.execution else ""
    what = error if group.fingerprint else f"one of many other errors, such as {error}"
    return f"{group.count:,} × {what} ({one.task_type}), such as {one.task_id}{by}"


def _by_whom(proof: Proof) -> str:
    counts = proof.workers.values()
    if len(counts) == 1:
        return "by 1 worker"
    executions = counted(len({execution for execution, _ in proof.workers}), "execution")
    fewest = f"{min(counts):,} to " if min(counts) < max(counts) else ""
    return f"by {counted(len(counts), 'worker')} in {executions}, {fewest}{counted(max(counts), 'task')} each"


def verdict(proof: Proof) -> str:
    """One phrase."""
    if proof.problems:
        return "cannot be proven, its records are damaged"
    if not proof.closed:
        return "not closed: its client has not finished submitting, or stopped in the middle"
    if proof.missing:
        have = "has" if len(proof.missing) == 1 else "have"
        return f"not finished, {counted(len(proof.missing), 'task')} {have} no outcome yet{_of_them_delayed(proof)}"
    return "complete, every task is accounted for"


def _of_them_delayed(proof: Proof) -> str:
    if not proof.delayed:
        return ""
    first, last = min(proof.delayed.values()), max(proof.delayed.values())
    until = first if first == last else f"{first} to {last}"
    return f", {len(proof.delayed):,} of them {are(len(proof.delayed))} delayed until {until}"


def _trace(proof: Proof, task_id: str) -> str:
    """Where a missing task is, as far as the bucket tells."""
    if task_id in proof.replayed and task_id not in proof.delayed:
        return f"pending again, by replay {proof.replayed[task_id]}"
    if task_id in proof.delayed:
        return f"delayed until {proof.delayed[task_id]}"
    return f"its delayed message is damaged, see {proof.damaged[task_id]}" if task_id in proof.damaged else ""


def _named(what: str, tasks: list[tuple[str, str]]) -> list[str]:
    lines = [f"    {what} {task_id}" + (f": {reason}" if reason else "") for task_id, reason in tasks[:SHOWN]]
    return [*lines, f"    and {len(tasks) - SHOWN:,} more {what}; see --json"] if len(tasks) > SHOWN else lines
