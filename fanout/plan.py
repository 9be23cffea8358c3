"""`fanout plan`: what a tick would do now, and why. It launches nothing and writes nothing."""

from __future__ import annotations

import click

from controller.config import ControllerSettings
from fanout import cloud
from fanout.tick import decided


@click.command()
@click.argument("lanes", nargs=-1)
@cloud.as_json_option
@cloud.with_settings
def command(lanes: tuple[str, ...], as_json: bool, settings: ControllerSettings) -> None:
    """Decide for LANES, or for all, explain it, and do nothing.

    Ends as `fanout tick` does, with 1 when a lane is on hold because something could not be known or does not work.

    \b
    fanout plan                   # all lanes
    fanout plan default

    JSON: as `fanout tick`, with dry_run true.
    """
    decided(settings, lanes, as_json=as_json, dry_run=True)
