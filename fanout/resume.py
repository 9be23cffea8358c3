"""`fanout resume`: the controller launches for a paused lane again."""

from __future__ import annotations

import click

from controller.observe.jobs import JobRunner
from fanout import cloud
from fanout.pause import marked


@click.command()
@click.argument("lanes", nargs=-1, required=True)
@cloud.as_json_option
@cloud.with_jobs
def command(lanes: tuple[str, ...], as_json: bool, runner: JobRunner) -> None:
    """Launch for LANES again, from the next tick on.

    Where jobs.yaml says `fanout/paused: "true"` change that too, or the next `fanout apply` pauses the lane again.

    \b
    fanout resume default && fanout tick default

    JSON: lanes (lane, job, paused, changed).
    """
    marked(runner, lanes, paused=False, as_json=as_json)
