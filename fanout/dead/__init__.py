"""`fanout dead`: a workbench for tasks that died: see them by what killed them, mend, replay or discard them."""

from __future__ import annotations

import click

from fanout.dead.acting import discard, purge, replay
from fanout.dead.editing import edit
from fanout.dead.listing import export, ls
from fanout.dead.showing import replays, show


@click.group()
def command() -> None:
    """See, mend and replay tasks that died.

    A rule of the lane may replay some without you (`fanout/replay-…` in jobs.yaml); the rest waits in the log that the dead-letters job
    keeps in the bucket. Filters are joined by AND; whatever is done is in the log too: when, by whom, and why.

    \b
      fanout dead ls                                            # what killed how many, by lane
      fanout dead show TASK                                     # one: payload, errors with tracebacks, what was done to it
      fanout dead edit TASK --patch '{"filename": "a.csv"}'     # mend it
      fanout dead replay --fingerprint 0123456789abcdef         # publish them again
      fanout dead replays                                       # what became of them
    """


for _command in (ls, show, edit, replay, discard, replays, export, purge):
    command.add_command(_command)
