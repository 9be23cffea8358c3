"""`fanout tick` and `fanout plan`: the same tick as the controller's, once, with its reasons in plain lines; `plan` only shows it."""

from __future__ import annotations

import sys

import click

from controller.config import ControllerSettings
from controller.tick.results import Round, explained_round, round_json
from controller.tick.rounds import tick_lanes
from fanout import cloud
from fanout.output import EXIT_FINE, EXIT_TROUBLE, show_json, tell


@click.command("tick")
@click.argument("lanes", nargs=-1)
@cloud.as_json_option
@click.option("--dry-run", is_flag=True, help="The same as `fanout plan`: launch nothing, write nothing.")
@click.option("--now", is_flag=True, help="Launch at once what the lane would let wait for more messages.")
@cloud.with_settings
def tick(lanes: tuple[str, ...], as_json: bool, dry_run: bool, now: bool, settings: ControllerSettings) -> None:
    """Decide for LANES, or for all, and launch what was decided.

    Few messages may wait while one worker is enough for them, in time, and still will be at the next tick; no longer than fanout/max-wait.
    The decision says until when, and --now starts them: each launch is billed for a minute at least.

    A tick of all lanes also looks which submissions may have ended, and sends for the proof that fires their ends.

    Ends with 0 when every lane was decided and launched, or is paused; with 1 when a launch failed, a lane is on hold because something
    could not be known or does not work, ends cannot be fired, or there is no lane; with 2 when settings are wrong.

    \b
    fanout tick                   # all lanes
    fanout tick urgent --json     # one of them, for a script
    fanout tick default --now     # do not wait for more

    JSON: lanes (lane, decision, launched, failures, stood_down, dry_run, republished_count, cancelled_count, delayed_problems, notes),
    refused (job, problems) and, of a tick of all lanes, ends (open_count, looked_count, finish_count, request_count, problems).
    """
    _run(settings, lanes, as_json=as_json, dry_run=dry_run, wait=not now)


@click.command("plan")
@click.argument("lanes", nargs=-1)
@cloud.as_json_option
@cloud.with_settings
def plan(lanes: tuple[str, ...], as_json: bool, settings: ControllerSettings) -> None:
    """Decide for LANES, or for all, explain it, and do nothing.

    Ends as `fanout tick` does, with 1 when a lane is on hold because something could not be known or does not work.

    \b
    fanout plan                   # all lanes
    fanout plan default

    JSON: as `fanout tick`, with dry_run true.
    """
    _run(settings, lanes, as_json=as_json, dry_run=True)


def _run(settings: ControllerSettings, lanes: tuple[str, ...], *, as_json: bool, dry_run: bool, wait: bool = True) -> None:
    """Tick, print the decisions, and end the command. Raises SettingsError, DependencyError."""
    with cloud.connected(settings) as outside:
        outcome = tick_lanes(outside, lanes, dry_run=dry_run, wait=wait)
    if as_json:
        show_json(round_json(outcome))
    else:
        tell(*explained_round(outcome))
    if not outcome.results and not outcome.refused:
        click.echo(f"Error: {cloud.no_lane(settings)}", err=True)
        sys.exit(EXIT_TROUBLE)
    sys.exit(exit_code(outcome))


def exit_code(outcome: Round) -> int:
    """1 where a lane is not as its operator wants it."""
    troubled = any(result.failures or result.decision.troubled for result in outcome.results)
    return EXIT_TROUBLE if outcome.refused or troubled or outcome.endings.problems else EXIT_FINE
