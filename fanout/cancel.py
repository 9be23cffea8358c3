"""`fanout cancel`: tasks and submissions that nobody wants any longer. What has not started ends `cancelled`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TextIO

import click

from batch.client.reading.lane_of import by_lane, ended
from batch.handling.cancels import cancel
from batch.model.clock import iso
from batch.model.errors import DependencyError, SettingsError
from batch.model.outcomes import Outcome
from controller.config import ControllerSettings
from controller.lanes.lanes import chosen_lanes, lanes_of
from controller.observe.jobs import JobRunner
from fanout import cloud
from fanout.dead.scope import who
from fanout.output import counted, say, show_json

MAX_LOOKED_UP = 20
"""Whether a task has ended already is looked up for a few tasks."""


@click.command()
@click.argument("ids", nargs=-1, metavar="[TASK|SUBMISSION]...")
@click.option("--from-file", type=click.File(), help="A file with an id a line; '-' is standard input.")
@click.option("--lane", help="The lane; needed where neither the id nor a closed submission tells it.")
@click.option("--why", default="", help="The reason; it stands in each outcome.")
@cloud.as_json_option
@cloud.with_settings
def command(
    ids: tuple[str, ...], from_file: TextIO | None, lane: str | None, why: str, as_json: bool, settings: ControllerSettings
) -> None:
    """Cancel tasks, or all tasks of submissions.

    A task that has not started ends `cancelled` when a worker receives it, or with the next tick if it is delayed. Workers read the list
    when they begin to pull and with each progress write (every 15 s, slower for very many workers). A handler that runs sees
    `ctx.cancelled`, and goes on if it does not look. The entry holds for 7 days. A cancelled task cannot be retried: submit it anew, under
    another idempotency key if it had one.

    \b
    fanout cancel s-20260131-120000-0123abcd --why "wrong input"
    fanout cancel --from-file ids.txt --lane bulk

    JSON: lanes (lane, ids, at, until, paused), ended (task_id, outcome) for tasks that have ended already, and notes. What is not known
    is null.
    """
    named = list(dict.fromkeys((*ids, *(line.strip() for line in from_file or () if line.strip()))))
    if not named:
        raise click.UsageError("name a task or a submission, or a file of their ids with --from-file")
    with cloud.connected(settings) as outside:
        lanes = by_lane(outside.store, named, lane)
        paused, notes = _paused(outside.runner, list(lanes), strict=lane is not None)
        bodies = []
        for name, of_lane in lanes.items():
            entry = cancel(outside.store, name, of_lane, who=who(), why=why, now=outside.clock.now())
            bodies.append({"lane": name, "ids": of_lane, "at": iso(entry.at), "until": iso(entry.until), "paused": paused.get(name)})
        ended_before = ended(outside.store, named) if len(named) <= MAX_LOOKED_UP else {}
    if as_json:
        rows = [{"task_id": task_id, "outcome": one.outcome} for task_id, one in ended_before.items()]
        show_json({"lanes": bodies, "ended": rows, "notes": notes})
        return
    for name, of_lane in lanes.items():
        what = of_lane[0] if len(of_lane) == 1 else counted(len(of_lane), "id")
        say(f"cancelled in lane {name}: {what}; what has not started ends cancelled once its worker has read this")
        if paused.get(name):
            say(f"lane {name} is paused: its tasks stay pending until it drains; `fanout resume {name}` ends the pause")
    say(*(_already(task_id, one) for task_id, one in ended_before.items()), *(f"note: {note}" for note in notes))


def _already(task_id: str, outcome: Outcome) -> str:
    if outcome.outcome == "dead":
        return f"task {task_id} is dead already, which stays so; if it is replayed from now on it runs"
    return f"task {task_id} had ended before: {outcome.outcome}, which stays so"


def _paused(runner: JobRunner, names: Sequence[str], *, strict: bool) -> tuple[Mapping[str, bool], list[str]]:
    """By lane whether it is paused, and notes where that is not known. If `strict` raises SettingsError for a lane without a job."""
    try:
        lanes, refused = lanes_of(runner.jobs())
    except DependencyError as error:
        return {}, [f"whether a lane is paused is not known: {error}"]
    notes: list[str] = []
    for name in names:
        try:
            chosen_lanes(lanes, refused, [name])
        except SettingsError as error:
            if strict:
                raise
            notes += error.problems
    return {lane.name: lane.policy.paused for lane in lanes}, notes
