"""`fanout dead replay`, `discard` and `purge`: what ends the waiting of dead letters. Each leaves its entry in their log."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import click

from batch.dead import segments
from batch.dead.action import Progress, Replayed
from batch.dead.filters import Filter
from batch.dead.lanes import LaneFacts
from batch.dead.log import Act
from batch.dead.purging import purge as purge_now
from batch.dead.purging import purge_of
from batch.dead.replaying import replay as replay_letters
from batch.dead.replaying import resume
from batch.dead.rules import SLOWEST_RATE
from batch.dead.selecting import grouped
from batch.formats.kinds import no_envelopes
from batch.model.clock import SystemClock, from_iso
from batch.model.errors import DependencyError, SettingsError
from batch.services.ports import Topic
from controller.config import ControllerSettings
from fanout import cloud, doctor
from fanout.dead.scope import NO_MATCH, Scope, opened, when, who, with_scope
from fanout.doctor.readers import refuse_readers
from fanout.output import EXIT_TROUBLE, CommandFailed, counted, say

REPLAYED, DISCARDED = "replayed", "discarded"
_why = click.option("--why", default="", help="The reason, for the log.")
_yes = click.option("--yes", is_flag=True, help="Do not ask, also where no filter is given.")
_dry_run = click.option("--dry-run", is_flag=True, help="Only say what would be done.")
_limit = click.option("--limit", type=click.IntRange(1), help="At most so many letters of a lane.")


@click.command()
@_dry_run
@click.option("--rate", type=click.FloatRange(SLOWEST_RATE, 1_000_000), help="So many messages a second, in all lanes one after the other.")
@_limit
@click.option("--to-lane", help="Publish to this lane's topic; ids and outcome shards stay.")
@click.option("--all-subscriptions", is_flag=True, help="Also where subscriptions that are no lane's get the messages again.")
@click.option(
    "--resume", "resumed", metavar="REPLAY", help="Go on with a replay, or a discard, that was interrupted; no filter goes with it."
)
@_why
@_yes
@with_scope
def replay(
    dry_run: bool,
    rate: float | None,
    limit: int | None,
    to_lane: str | None,
    all_subscriptions: bool,
    resumed: str | None,
    why: str,
    yes: bool,
    scope: Scope,
) -> None:
    """Publish dead letters again, untried.

    First the replay claims its letters, so that nobody else replays them; each then takes effect once, however often this is interrupted:
    `--resume` goes on, and so does the dead-letters job after ten minutes. Tasks that have succeeded, or were superseded or cancelled, are
    skipped. `fanout dead replays` shows what became of the others.

    \b
    fanout dead replay --error KeyError --dry-run
    fanout dead replay --fingerprint 0123456789abcdef --rate 50 --why 'fixed in release 12'
    """
    if resumed:
        if dry_run or rate or limit or to_lane or all_subscriptions or not scope.wanted.is_empty:
            raise click.UsageError(
                f"--resume goes on with {resumed} as it was begun: no filter goes with it, nor --dry-run or another option"
            )
        _resume(scope, resumed)
        return
    if to_lane is not None and to_lane not in scope.all_lanes:
        raise click.UsageError(f"there is no lane {to_lane!r}; known are {', '.join(scope.all_lanes)}")
    if _asked(scope, "replay", limit, yes=yes, dry_run=dry_run):
        target = scope.all_lanes[to_lane] if to_lane else None
        replay_all(scope, rate=rate, limit=limit, to_lane=target, why=why, all_subscriptions=all_subscriptions)


@click.command()
@_dry_run
@_limit
@_why
@_yes
@with_scope
def discard(dry_run: bool, limit: int | None, why: str, yes: bool, scope: Scope) -> None:
    """End the waiting of letters.

    Their tasks stay dead; the log keeps them until they are purged.

    \b
    fanout dead discard --type resize --older-than 30d --why 'nobody wants them any more'
    """
    if _asked(scope, "discard", limit, yes=yes, dry_run=dry_run):
        _on_all(scope, scope.lanes, DISCARDED, limit=limit, why=why, rate=None, act=Act.DISCARDED)


def replay_all(
    scope: Scope,
    *,
    rate: float | None = None,
    limit: int | None = None,
    to_lane: LaneFacts | None = None,
    why: str = "",
    all_subscriptions: bool = False,
) -> int:
    """Replay what matches in each lane of the scope, and say so; returns how many letters. Raises DependencyError, SettingsError."""
    lanes = [lane for lane in scope.lanes if to_lane or lane.topic]
    lost = [one.name for one in scope.lanes if one not in lanes and grouped(scope.store, one.name, scope.wanted)]
    if lost:
        told = "letters in log {0} are of no lane: publish them first, with fanout dead replay --lane {0} --to-lane LANE"
        raise SettingsError([told.format(name) for name in lost])
    with doctor.open_facts(scope.settings) as facts:
        targets = [to_lane] if to_lane else lanes
        refuse_readers(facts, targets, {one.subscription for one in scope.all_lanes.values()}, all_subscriptions=all_subscriptions)
    return _on_all(scope, lanes, REPLAYED, limit=limit, why=why, rate=rate, to_lane=to_lane)


def _on_all(scope: Scope, lanes: Sequence[LaneFacts], done: str, **options: Any) -> int:
    count, found, target = 0, False, options.get("to_lane")
    with Topics(scope.settings.project) as topics:
        for lane in lanes:
            with _resumable():
                result = replay_letters(
                    scope.store,
                    topics,
                    lane,
                    scope.wanted.matches,
                    clock=SystemClock(),
                    rng=random.SystemRandom(),
                    progress=_progress(lane.name),
                    details={"by": "fanout dead"},
                    who=who(),
                    wanted=scope.wanted,
                    **options,
                )
            if result.action_id:
                count += result.done_count
                say(*_told(lane.name, result, done))
            if result.untaken_count:
                to = target or lane
                say(f"lane {lane.name}: {counted(result.untaken_count, 'dead letter')} not {done}: {no_envelopes(to.name, to.accept)}")
            found = found or bool(result.action_id or result.untaken_count)
    if not found:
        say(NO_MATCH)
    return count


def _resume(scope: Scope, action_id: str) -> None:
    for lane in scope.lanes:
        fold = segments.folded(scope.store, segments.listed(scope.store, lane.name))
        entry = fold.replays.get(action_id)
        if entry is None:
            continue
        if action_id in fold.closed:
            raise click.ClickException(f"{action_id} has ended: `fanout dead replays {action_id}` shows what became of its tasks")
        done = REPLAYED if entry.details.get("act") == Act.REPLAYED else DISCARDED
        with Topics(scope.settings.project) as topics, _resumable():
            clock, rng = SystemClock(), random.SystemRandom()
            result = resume(scope.store, topics, lane, entry, clock=clock, rng=rng, progress=_progress(lane.name))
        say(*_told(lane.name, result, done))
        return
    raise click.ClickException(f"no lane's log has a replay {action_id!r}: `fanout dead replays` lists them")


class Topics(ExitStack):
    """The topics that a command publishes to, each connected once and closed with it."""

    def __init__(self, project: str) -> None:
        super().__init__()
        self._project = project
        self._made: dict[str, Topic] = {}

    def __call__(self, name: str) -> Topic:
        if name not in self._made:
            self._made[name] = self.enter_context(cloud.open_topic(self._project, name))
        return self._made[name]


@contextmanager
def _resumable() -> Iterator[None]:
    """Around what can be resumed: says how."""
    try:
        yield
    except (KeyboardInterrupt, DependencyError) as error:
        how = "what was begun is in the log: `fanout dead replays` names it, `fanout dead replay --resume REPLAY` goes on"
        why = str(error) or "interrupted"
        raise CommandFailed(EXIT_TROUBLE, f"{why}; {how}, and so does the dead-letters job after 10 minutes") from error


def _asked(scope: Scope, verb: str, limit: int | None, *, yes: bool, dry_run: bool) -> bool:
    """Whether to do it: says what it is about where that is asked for, or no filter is given."""
    if not dry_run and (yes or not scope.wanted.is_empty):
        return True
    found = [(lane.name, group) for lane in scope.lanes for group in grouped(scope.store, lane.name, scope.wanted)]
    total = sum(group.waiting_count for _, group in found)
    named = " and ".join(lane.name for lane in scope.lanes)
    for lane, group in found:
        say(f"{group.waiting_count:>9,} × {group.title} ({lane}, {group.fingerprint})")
    most = f", at most {limit:,} of a lane" if limit else ""
    if dry_run or not total:
        say(f"would {verb} {counted(total, 'dead letter')} of {named}{most}")
        return False
    return click.confirm(f"{verb} all {counted(total, 'dead letter')} of {named}{most}?", abort=True)


def _told(lane: str, result: Replayed, done: str) -> list[str]:
    lines = [f"lane {lane}: {counted(result.done_count, 'dead letter')} {done}, as {result.action_id}"]
    if result.repeated_count:
        lines.append(f"  at most {result.repeated_count:,} of them were published twice, after an interruption; each takes effect once")
    for why, count in sorted(result.skipped.items()):
        told = "cancelled, and a cancelled task cannot be retried: submit it anew" if why == "cancelled" else why
        lines.append(f"  {counted(count, 'task')} skipped: {told}")
    if not result.closed:
        lines.append("  somebody else goes on with the rest")
    if result.done_count and done == REPLAYED:
        lines.append(f"  what becomes of them: fanout dead replays {result.action_id}")
    return lines


def _progress(lane: str) -> Progress | None:
    if not sys.stderr.isatty():
        return None
    return lambda done, of: click.echo(f"\r{lane}: {done:,} of {of:,}" + ("\n" if done >= of else ""), nl=False, err=True)


@click.command()
@click.option("--before", callback=when, metavar="AGE|TIME", required=True, help="What is older than this: an age such as 30d, or a time.")
@click.option("--lane", "lanes", multiple=True, help="Of this lane; of all by default.")
@_dry_run
@_why
@_yes
@cloud.with_settings
def purge(before: str, lanes: tuple[str, ...], dry_run: bool, why: str, yes: bool, settings: ControllerSettings) -> None:
    """Delete old letters that are done with.

    Segments of the log go whose letters are all done with, and what was noted of them. What waits stays, however old it is.

    \b
    fanout dead purge --before 90d --dry-run
    """
    with opened(settings, lanes, Filter()) as scope:
        for lane in scope.lanes:
            found = purge_of(scope.store, lane.name, from_iso(before))
            count = len(found.with_letters) + len(found.with_acts)
            what = f"{counted(count, 'segment')} of the log, with {counted(found.letter_count, 'letter')}"
            if dry_run or not count:
                say(f"lane {lane.name}: would delete {what}")
                continue
            if not yes:
                click.confirm(f"lane {lane.name}: delete {what}?", abort=True)
            action_id = purge_now(scope.store, lane.name, found, clock=SystemClock(), rng=random.SystemRandom(), who=who(), why=why)
            say(f"lane {lane.name}: deleted {what}, as {action_id}")
