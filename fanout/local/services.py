"""`fanout local advance`, `freeze`, `thaw`, `kill` and `restart`: disturb a running local cloud on purpose.

The process of `fanout local up` carries them out, so that it takes none of them for a crash.
"""

from __future__ import annotations

from pathlib import Path

import click

from fanout.local.running import state_dir_option, told
from local_cloud.supervisor.control import VERBS, remote
from local_cloud.supervisor.supervisor import SERVICES

_HELP = {
    "freeze": "Stop SERVICE where it stands.\n\nIt gets SIGSTOP: connections stay open, nothing is answered.",
    "thaw": "Let a frozen SERVICE go on.",
    "kill": "End SERVICE as a crash would.\n\nIt gets SIGKILL; the others go on. `restart` brings it back with all that it confirmed.",
    "restart": "Start SERVICE again.\n\nWith its state and on the same ports, after `kill`. One that runs is ended in order first.",
}
_NOT_MOVED = """\
# Fanout and its workers keep this machine's time: `fanout lanes` and a controller
# find the backlog idle, as its samples lie in the future, until the local cloud
# is started anew. `fanout local up --delayed-start-s 60` starts delayed
# executions soon without moving clocks."""
_DONE = {"freeze": "is frozen", "thaw": "goes on", "kill": "is killed", "restart": "runs again"}


@click.command()
@click.argument("seconds", type=click.FloatRange(0))
@state_dir_option
def advance(seconds: float, state_dir: Path) -> None:
    """Move all clocks of the local cloud SECONDS forward.

    Deadlines, retention, gauges, timeouts and delayed executions move with them; Fanout and its workers do not.
    """
    with told():
        remote(state_dir).advance(seconds)
    click.echo(f"all clocks of the local cloud are {seconds:g} s further")
    click.echo(_NOT_MOVED, err=True)


def _command(verb: str) -> click.Command:
    @click.command(verb, help=_HELP[verb])
    @click.argument("service", type=click.Choice(SERVICES))
    @state_dir_option
    def change(service: str, state_dir: Path) -> None:
        with told():
            remote(state_dir).change(verb, service)
        click.echo(f"{service} {_DONE[verb]}")

    return change


SERVICE_COMMANDS = tuple(_command(verb) for verb in VERBS)
