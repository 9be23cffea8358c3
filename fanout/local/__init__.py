"""`fanout local`: the local cloud as a program of its own: start it, use it, look at it, disturb it, end it.

`up` runs until it is told to end, and then ends all that it has started; the other commands find it through its state folder.
"""

from __future__ import annotations

import click

from fanout.local.faults import faults
from fanout.local.gcloud import gcloud
from fanout.local.services import SERVICE_COMMANDS, advance
from fanout.local.status import env, status
from fanout.local.up import down, reset, up


@click.group()
def command() -> None:
    """Start and use the local cloud: Pub/Sub, Storage, Cloud Run Jobs and Monitoring on this machine.

    \b
      fanout local up --quick            # in one terminal, until Ctrl-C
      eval "$(fanout local env)"         # in another one: Google's clients talk to it
      fanout local gcloud -- run jobs list
      fanout local status
    """


for _command in (up, down, reset, status, env, advance, *SERVICE_COMMANDS, faults, gcloud):
    command.add_command(_command)
