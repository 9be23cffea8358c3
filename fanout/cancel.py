"""`fanout cancel`: tasks and submissions that nobody wants any longer. What has not started ends `cancelled`."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import TextIO

import click

from batch.client.life import located
from batch.handling.cancels import cancel
from batch.model.clock import iso
from batch.model.errors import DependencyError, ObjectMissing, SettingsError
from batch.model.message import TASK_ID_PATTERN, shard_in_id
from batch.model.names import manifest_object, outcome_folder, submission_object
from batch.model.outcomes import REPLAYED, Outcome
from batch.services.ports import ObjectStore
from batch.shards import outcomes_of
from controller.config import ControllerSettings
from controller.lanes.annotations import chosen_lanes, lanes_of
from controller.observe.jobs import JobRunner
from fanout import cloud
from fanout.dead.scope import who
from fanout.output import counted, say, show_json

MAX_LOOKED_UP = 20
MAX_OBJECTS = 200
"""Whether a task has ended already is looked up for a few tasks, in shards of a few objects."""


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
        by_lane = _by_lane(outside.store, named, lane)
        paused, notes = _paused(outside.runner, list(by_lane), strict=lane is not None)
        bodies = []
        for name, of_lane in by_lane.items():
            entry = cancel(outside.store, name, of_lane, who=who(), why=why, now=outside.clock.now())
            bodies.append({"lane": name, "ids": of_lane, "at": iso(entry.at), "until": iso(entry.until), "paused": paused.get(name)})
        ended = _ended(outside.store, named) if len(named) <= MAX_LOOKED_UP else {}
    if as_json:
        rows = [{"task_id": task_id, "outcome": one.outcome} for task_id, one in ended.items()]
        show_json({"lanes": bodies, "ended": rows, "notes": notes})
        return
    for name, of_lane in by_lane.items():
        what = of_lane[0] if len(of_lane) == 1 else counted(len(of_lane), "id")
        say(f"cancelled in lane {name}: {what}; what has not started ends cancelled once its worker has read this")
        if paused.get(name):
            say(f"lane {name} is paused: its tasks stay pending until it drains; `fanout resume {name}` ends the pause")
    say(*(_already(task_id, one) for task_id, one in ended.items()), *(f"note: {note}" for note in notes))


def _already(task_id: str, outcome: Outcome) -> str:
    if outcome.outcome == "dead":
        return f"task {task_id} is dead already, which stays so; if it is replayed from now on it runs"
    return f"task {task_id} had ended before: {outcome.outcome}, which stays so"


def _by_lane(store: ObjectStore, ids: Sequence[str], lane: str | None) -> dict[str, list[str]]:
    """The ids of each lane. Raises SettingsError with each id that is none, or whose lane is not known; DependencyError."""
    found: dict[str, list[str]] = defaultdict(list)
    problems: list[str] = []
    known: dict[str, str | None] = {}
    for one in ids:
        if not re.fullmatch(TASK_ID_PATTERN, one):
            problems.append(f"{one[:200]!r} is no id of a task or submission")
            continue
        key = shard_in_id(one) or one
        if lane is None and key not in known:
            known[key] = _lane_of(store, one, problems)
        name = lane or known[key]
        if name is not None:
            found[name].append(one)
    if problems:
        raise SettingsError(problems)
    return found


def _lane_of(store: ObjectStore, one: str, problems: list[str]) -> str | None:
    """By the task's id, the record of its key, or its submission."""
    try:
        where = located(store, one)
    except SettingsError:
        return _lane_of_submission(store, one, problems)
    return where.lane or _lane_of_submission(store, where.shards[0], problems)


def _lane_of_submission(store: ObjectStore, submission_id: str, problems: list[str]) -> str | None:
    name = submission_object(submission_id)
    try:
        lane = json.loads(store.read(name))["lane"]
        if isinstance(lane, str) and lane:
            return lane
        problems.append(f"{name} names no lane: name it with --lane")
    except ObjectMissing:
        is_open = store.info(manifest_object(submission_id, 0)) is not None
        what = f"submission {submission_id} is not closed" if is_open else f"bucket {store.bucket_name} has no submission {submission_id}"
        problems.append(f"{what}, so the lane is not known: name it with --lane")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        problems.append(f"{name} cannot be read ({error!r:.100}): name the lane with --lane")
    return None


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


def _ended(store: ObjectStore, ids: Iterable[str]) -> dict[str, Outcome]:
    """The outcomes that tasks among these have already, as far as that is quick to find."""
    wanted: dict[str, list[str]] = defaultdict(list)
    for one in ids:
        if (shard := shard_in_id(one)) is not None:
            wanted[shard].append(one)
    quick = {shard: of_shard for shard, of_shard in wanted.items() if _object_count(store, shard) <= MAX_OBJECTS}
    return {task_id: one for task_id, one in outcomes_of(store, quick).items() if one.outcome != REPLAYED}


def _object_count(store: ObjectStore, shard: str) -> int:
    return sum(1 for _ in islice(store.list(outcome_folder(shard)), MAX_OBJECTS + 1))
