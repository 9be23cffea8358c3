"""`fanout proof`: what became of a submission's tasks. Ends with 0 only when every task is accounted for."""

from __future__ import annotations

import sys

import click

from batch.client.proof import DeadGroup, Proof, prove
from batch.model.errors import ObjectMissing
from batch.model.texts import printable
from controller.model.wording import are
from fanout import cloud
from fanout.output import counted, explained_errors, show_json

SHOWN = 20
"""How many missing or dead tasks are named in the text; `--json` names all."""


@click.command()
@click.argument("submission_id")
@click.option("--project", envvar="GOOGLE_CLOUD_PROJECT", required=True, show_envvar=True, help="The project of the bucket.")
@click.option("--bucket", envvar="BUCKET_NAME", required=True, show_envvar=True, help="The bucket with manifests and outcomes.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole proof as JSON.")
def command(submission_id: str, project: str, bucket: str, as_json: bool) -> None:
    """Prove what became of a submission's tasks.

    Ends with 0 when the submission is closed and every task has an outcome, whichever; else with 1.
    """
    with explained_errors(), cloud.open_store(project, bucket) as store:
        try:
            proof = prove(store, submission_id)
        except ObjectMissing as error:
            raise click.ClickException(f"there is no submission {submission_id} in bucket {bucket} ({error})") from error
    if as_json:
        show_json(as_object(proof))
    else:
        click.echo(as_text(proof))
    sys.exit(0 if proof.complete else 1)


def as_object(proof: Proof) -> dict[str, object]:
    """The proof as JSON values."""
    return {
        "submission_id": proof.submission_id,
        "complete": proof.complete,
        "closed": proof.closed,
        "submitted_count": proof.submitted_count,
        **{f"{name}_count": count for name, count in proof.counts.items()},
        "missing_count": len(proof.missing),
        "missing": list(proof.missing),
        "delayed_until": dict(proof.delayed),
        "damaged": dict(proof.damaged),
        "replayed": dict(proof.replayed),
        "dead": [group_json(group) for group in proof.dead],
        "repeated_line_count": proof.repeated_line_count,
        "repeated_task_count": proof.repeated_task_count,
        "unknown_count": proof.unknown_count,
        "problems": list(proof.problems),
        "workers": [{"execution": execution, "index": index, "count": count} for (execution, index), count in proof.workers.items()],
        "submitted_at": proof.submitted_at,
        "first_finished_at": proof.first_finished_at,
        "last_finished_at": proof.last_finished_at,
        "handler_s": round(proof.handler_s, 3),
        "tasks_per_s": round(proof.tasks_per_s, 3),
    }


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


def group_json(group: DeadGroup) -> dict[str, object]:
    one = group.example
    return {
        "fingerprint": group.fingerprint,
        "task_type": group.task_type,
        "count": group.count,
        "title": group.title,
        "error_type": one.error_type,
        "reason": one.reason,
        "execution": one.execution,
        "index": one.index,
        "task_ids": list(group.task_ids),
    }


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
