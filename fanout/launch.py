"""`fanout launch`: start an execution of a lane's job by hand. It has no decision id: each worker takes at most `--max-messages`."""

from __future__ import annotations

import os
from contextlib import closing

import click

from controller.config import RUN_EMULATOR
from controller.google_jobs import GoogleJobRunner
from controller.jobs import MAX_WORKERS_PER_EXECUTION, LaunchUnclear, RunRequest
from controller.lanes import lanes_of
from controller.tick import chosen_lanes
from controller.wording import counted
from fanout.apply import explained_errors


@click.command()
@click.argument("lane")
@click.option("--tasks", "workers", type=click.IntRange(1, MAX_WORKERS_PER_EXECUTION), required=True, help="How many workers to start.")
@click.option("--max-messages", type=click.IntRange(1), default=None, help="The most messages a worker takes; the job's own by default.")
@click.option("--project", envvar="GOOGLE_CLOUD_PROJECT", required=True, show_envvar=True, help="The project of the jobs.")
@click.option("--region", envvar="REGION", default="us-central1", show_default=True, show_envvar=True, help="The region of the jobs.")
def command(lane: str, workers: int, max_messages: int | None, project: str, region: str) -> None:
    """Start an execution of LANE with this many workers, whatever the backlog; the controller counts it as capacity."""
    env = {} if max_messages is None else {"MAX_MESSAGES": str(max_messages)}
    with explained_errors(), closing(GoogleJobRunner(project, region, emulator_url=os.environ.get(RUN_EMULATOR, ""))) as runner:
        lanes, refused = lanes_of(runner.jobs())
        (chosen,) = chosen_lanes(lanes, refused, [lane])
        try:
            execution = runner.run(chosen.job, RunRequest(workers, env))
        except LaunchUnclear as error:
            advice = "it may have started: look at `gcloud run jobs executions list` before trying again"
            raise click.ClickException(f"{error}; {advice}") from error
    click.echo(f"launched {execution.name} with {counted(workers, 'worker')}")
