"""`fanout tick`: read the backlog, decide, launch, once. The same tick as the controller's, with its reasons in plain lines."""

from __future__ import annotations

import json
import os
import sys

import click

from controller.config import controller_settings
from controller.explanation import explained_round
from controller.jobs import LANE_LABEL
from controller.logs import round_json
from controller.tick import Round, tick_lanes
from controller.wiring import connected
from fanout.apply import explained_errors

EXIT_DECIDED = 0
EXIT_NOT_LAUNCHED = 1
EXIT_ON_HOLD = 3


@click.command()
@click.argument("lanes", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print the decisions as JSON.")
@click.option("--dry-run", is_flag=True, help="Decide and explain; launch nothing, write nothing.")
def command(lanes: tuple[str, ...], as_json: bool, dry_run: bool) -> None:
    """Decide for LANES, or for all, and launch what was decided.

    Reads GOOGLE_CLOUD_PROJECT, BUCKET_NAME and REGION. Ends with 0 when every lane was decided, with 1 when a launch failed or there
    is no lane, with 2 when settings are wrong, and with 3 when a lane is on hold: something could not be known, or the lane is broken.
    """
    with explained_errors():
        settings = controller_settings(os.environ)
        with connected(settings) as outside:
            outcome = tick_lanes(outside, lanes, dry_run=dry_run)
    click.echo(json.dumps(round_json(outcome), indent=1) if as_json else "\n".join(explained_round(outcome)))
    if not outcome.results and not outcome.refused:
        click.echo(
            f"Error: {settings.where} has no job labelled {LANE_LABEL}: run `fanout apply`, or fix GOOGLE_CLOUD_PROJECT or REGION", err=True
        )
        sys.exit(EXIT_NOT_LAUNCHED)
    sys.exit(exit_code(outcome))


def exit_code(outcome: Round) -> int:
    if outcome.refused or any(result.decision.troubled for result in outcome.results):
        return EXIT_ON_HOLD
    return EXIT_NOT_LAUNCHED if any(result.failures for result in outcome.results) else EXIT_DECIDED
