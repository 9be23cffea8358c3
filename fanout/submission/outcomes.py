"""`fanout outcomes`: what became of a submission's tasks, as the lines that workers wrote."""

from __future__ import annotations

import sys

import click

from batch.client.reading.lines import MAX_TASKS_HELD, Wanted, outcome_lines
from batch.model.clock import from_iso
from batch.model.errors import ObjectMissing
from batch.model.outcomes import RANK
from batch.services.ports import ObjectStore
from fanout import cloud
from fanout.dead.scope import when
from fanout.submission.proof import no_submission


@click.command()
@click.argument("submission_id")
@click.option("--outcome", "outcomes", multiple=True, type=click.Choice(list(RANK)), help="Only lines with this outcome.")
@click.option("--type", "task_types", multiple=True, help="Only of tasks of this type.")
@click.option("--since", callback=when, metavar="AGE|TIME", help="Only what finished within an age such as 10m, or since a time.")
@click.option("--final", is_flag=True, help=f"Of each task the line that counts, if it has ended; for at most {MAX_TASKS_HELD:,} tasks.")
@cloud.with_store
def command(
    submission_id: str, outcomes: tuple[str, ...], task_types: tuple[str, ...], since: str, final: bool, store: ObjectStore
) -> None:
    """Print the outcomes of SUBMISSION_ID as JSON, one line each, while they are read.

    A task may have more than one: a redelivery repeats its line, a replay adds `replayed` and another outcome. `fanout proof` counts each
    task once.

    \b
    fanout outcomes s-20260131-120000-0a1b2c3d --outcome dead | jq -r .reason
    fanout outcomes s-20260131-120000-0a1b2c3d --since 10m --type resize
    """
    wanted = Wanted(frozenset(outcomes), frozenset(task_types), from_iso(since) if since else 0.0, final)
    stream = sys.stdout.buffer
    try:
        for line in outcome_lines(store, submission_id, wanted):
            stream.write(line)
    except ObjectMissing as error:
        raise no_submission(store, submission_id, error) from error
    stream.flush()
