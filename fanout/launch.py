"""`fanout launch`: start an execution of a lane's job by hand. It has no decision id: each worker takes at most `--max-messages`."""

from __future__ import annotations

import click

from controller.lanes.lanes import lanes_named
from controller.model.execution import MAX_WORKERS_PER_EXECUTION
from controller.observe.jobs import JobRunner, LaunchUnclear, RunRequest
from fanout import cloud
from fanout.output import counted, say, show_json


@click.command()
@click.argument("lane")
@click.option(
    "--workers", "--tasks", "workers", type=click.IntRange(1, MAX_WORKERS_PER_EXECUTION), required=True, help="How many workers to start."
)
@click.option("--max-messages", type=click.IntRange(1), default=None, help="The most messages a worker takes; the job's own by default.")
@cloud.as_json_option
@cloud.with_jobs
def command(lane: str, workers: int, max_messages: int | None, as_json: bool, runner: JobRunner) -> None:
    """Start an execution of LANE with this many workers, whatever the backlog; the controller counts it as capacity.

    A paused lane, or one on hold, is launched too. Ends with 1 when Cloud Run refused, or gave no clear answer.

    \b
    fanout launch default --workers 20
    fanout launch default --workers 1 --max-messages 1     # try a single message

    JSON: lane, execution, worker_count, max_messages.
    """
    env = {} if max_messages is None else {"MAX_MESSAGES": str(max_messages)}
    (chosen,) = lanes_named(runner.jobs(), [lane])
    say(*(f"advice: {problem}" for problem in chosen.problems), err=True)
    try:
        execution = runner.run(chosen.job, RunRequest(workers, env, chosen.container))
    except LaunchUnclear as error:
        raise click.ClickException(f"{error}; it may have started: look at `fanout executions {lane}` before trying again") from error
    if as_json:
        show_json({"lane": lane, "execution": execution.name, "worker_count": workers, "max_messages": max_messages})
    else:
        say(f"launched {execution.name} with {counted(workers, 'worker')}")
