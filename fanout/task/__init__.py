"""`fanout task ID`: what became of one task, or what it waits for, and all that the bucket knows of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import click

from batch.client.counting import Requests
from batch.client.life import Life, Running, State, Tracing, located
from batch.client.reading.life_json import as_object
from batch.dead.lanes import read_lanes
from batch.formats.kinds import ENVELOPE, RAW
from batch.model.errors import DependencyError
from batch.services.ports import ObjectStore
from controller.config import RUN_EMULATOR, ControllerSettings
from controller.lanes.lanes import lanes_of
from controller.model.lane import Lane
from controller.observe.running import running_worker
from controller.tick.outside import Outside
from fanout import cloud
from fanout.explain import moment
from fanout.output import EXIT_FINE, EXIT_TROUBLE, counted, say, show_json, tell
from fanout.task.texts import as_text

BY_MESSAGE = "message-"
MAX_REQUESTS = 1000
"""More are made only after a question."""


@click.command()
@click.argument("task_id")
@click.option("--lane", default="", help="The task's lane, where its id does not tell.")
@click.option(
    "--at", "at_text", metavar="TIME", default="", help="About when it was published: 2026-01-31T03:10, 03:10 (UTC), or 2h (ago)."
)
@click.option("--shard", default="", help="The outcome shard, where the message had this attribute.")
@click.option("--yes", is_flag=True, help="Make more than 1,000 requests without asking.")
@cloud.as_json_option
@cloud.with_settings
def command(task_id: str, lane: str, at_text: str, shard: str, yes: bool, as_json: bool, settings: ControllerSettings) -> None:
    """Show what became of the task TASK_ID, or what it waits for.

    Its state is succeeded, superseded, cancelled or dead; running, where a live worker says so of its 20 oldest tasks; delayed; retrying;
    pending again, by a replay; or `waiting or running`, which nothing in the bucket tells apart. Ids of keyed tasks of a front door
    without a bucket, and of other clients' messages, do not tell where the outcome is: give --lane and --at. For others --at saves
    requests: nothing is read that was written more than 5 minutes before. Ends with 0 when the task is known, with 1 when it is not.

    \b
    fanout task 9f2c4e1ab8d03f57-rolling-default-2026013112
    fanout task message-8811223344 --lane default --at 2h
    fanout task 9f2c4e1ab8d03f57-s-20260131-120000-0a1b2c3d --json | jq .attempts

    JSON: task_id, state, replay_number, lane, shards, outcome (null while it is pending; as its line in the bucket), running
    (execution, index, retry, since, told_at), cancelled_by, due_at, attempt_count, attempts (at, error_type, reason, execution, index,
    traceback, message_id), in_progress, letter (as its line in the log of dead letters), payload, payload_encoding, outputs (name,
    generation, size, task_id), log_filter, problems, request_count (to the bucket), seconds.
    """
    with cloud.connected(settings) as outside:
        began_at = outside.clock.monotonic()
        requests = Requests(outside.store)
        try:
            at = moment(at_text, outside.clock.now()) if at_text else None
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--at") from error
        life = traced(outside, requests, task_id, lane, at, shard, (lambda _count: None) if yes else _ask(requests))
        seconds = outside.clock.monotonic() - began_at
    project = "" if os.environ.get(RUN_EMULATOR) else settings.project
    if as_json:
        show_json({**as_object(life), "request_count": requests.count, "seconds": round(seconds, 3)})
    else:
        headline, *rows = as_text(life, project)
        tell(headline)
        say(*rows, f"requests to the bucket: {requests.count:,} ({seconds:.1f} s)")
    sys.exit(EXIT_TROUBLE if life.state is State.NOT_KNOWN else EXIT_FINE)


def traced(
    outside: Outside, requests: Requests, task_id: str, lane: str, at: float | None, shard: str, before_reading: Callable[[int], None]
) -> Life:
    """The life of a task. Raises SettingsError when nothing leads to its outcome, DependencyError."""
    task_id = _by_message(requests.store, task_id, lane)
    where = located(requests.store, task_id, shard=shard, lane=lane, at=at)
    deployed = Deployed(outside, requests, task_id)
    tracing = Tracing(
        requests.store, task_id, where, outside.clock.now(), deployed.subscriptions, deployed.running, before_reading, deployed.problems
    )
    return tracing.life()


def _by_message(store: ObjectStore, task_id: str, lane: str) -> str:
    """The id of the task that a raw message is, where it is named as its publisher knows it. Raises ObjectDamaged, DependencyError."""
    named = task_id.removeprefix(BY_MESSAGE)
    facts = read_lanes(store).get(lane) if lane and named != task_id else None
    return facts.forms.id_of_message(named) if facts and RAW in facts.accept and ENVELOPE not in facts.accept else task_id


def _ask(requests: Requests) -> Callable[[int], None]:
    allowed = MAX_REQUESTS

    def before_reading(count: int) -> None:
        nonlocal allowed
        most = requests.count + count
        if most > allowed:
            click.confirm(f"it may take {counted(most, 'request')} (--at may need fewer); go on?", abort=True, err=True)
            allowed = 2 * most  # who agreed is not asked again for a few more

    return before_reading


@dataclass
class Deployed:
    """What Cloud Run tells of the lanes. Without its answer the bucket still tells the rest, and `problems` that it did not come."""

    outside: Outside
    requests: Requests
    task_id: str

    def __post_init__(self) -> None:
        self.problems: list[str] = []

    @cached_property
    def _lanes(self) -> Mapping[str, Lane]:
        try:
            return {lane.name: lane for lane in lanes_of(self.outside.runner.jobs(), self.outside.home)[0]}
        except DependencyError as error:
            self.problems.append(f"the lanes are unknown: {error}")
            return {}

    def subscriptions(self) -> Mapping[str, str]:
        """By lane."""
        return {name: lane.subscription for name, lane in self._lanes.items()}

    def running(self, names: Sequence[str]) -> Running | None:
        """The worker of one of these lanes that says that it runs the task."""
        lanes = [self._lanes[name] for name in names if name in self._lanes]
        try:
            return running_worker(self.task_id, lanes, self.outside.runner, self.requests.store, self.outside.clock.now())
        except DependencyError as error:
            self.problems.append(f"whether a worker runs it is unknown: {error}")
            return None
