"""`fanout dead ls` and `export`: what waits, by what killed it, or letter by letter."""

from __future__ import annotations

from collections import Counter
from typing import Any

import click

from batch.dead import segments
from batch.dead.letters import to_line
from batch.dead.selecting import Group, grouped, waiting
from batch.model.clock import SystemClock, hour
from fanout import cloud
from fanout.dead.scope import NO_MATCH, Scope, with_scope
from fanout.output import Listing, counted, say, show, show_json

COLUMNS = ("count", "lane", "last 24 h", "fingerprint")
HOURS = 24
_BARS = " ▁▂▃▄▅▆▇█"


@click.command()
@cloud.as_json_option
@with_scope
def ls(as_json: bool, scope: Scope) -> None:
    """Show what waits, grouped by what killed it: below each group the task type, the error, and one of the letters.

    LAST 24 H has a bar for each hour, the present one last: how many died then, whatever was done to them since. Counts are made from what
    the log's segments say of themselves, so a letter that was delivered twice counts twice; with a filter other than --lane and
    --fingerprint the letters are read.

    \b
    fanout dead ls --lane default
    fanout dead ls --type resize --newer-than 2h

    JSON: groups (lane, fingerprint, title, error_type, task_type, waiting_count, hours, example).
    """
    found = [(lane.name, group) for lane in scope.lanes for group in grouped(scope.store, lane.name, scope.wanted)]
    found.sort(key=lambda one: -one[1].waiting_count)
    if as_json:
        show_json({"groups": [group_json(lane, group) for lane, group in found]})
        return
    if not found:
        say("no dead letter waits" if scope.wanted.is_empty else NO_MATCH)
        return
    now = SystemClock().now()
    rows, below = (_row(lane, group, now) for lane, group in found), (_below(group) for _, group in found)
    show(Listing(COLUMNS, tuple(rows), frozenset({"count"}), tuple(below)))
    total = sum(group.waiting_count for _, group in found)
    one = _example(found[0][1]) or "TASK"
    say(f"{counted(total, 'dead letter')} in {counted(len(found), 'group')}", f"one in full: fanout dead show {one}")


def _row(lane: str, group: Group, now: float) -> tuple[str, ...]:
    return (f"{group.waiting_count:,}", lane, bars(group.hours, now), group.fingerprint)


def _below(group: Group) -> tuple[str, ...]:
    if group.example is None:
        return (group.title,)
    task_type = f"{group.example.task_type}: " if group.example.task_type else ""
    return (f"{task_type}{group.title}", f"such as {group.example.task_id}")


def _example(group: Group) -> str:
    return group.example.task_id if group.example else ""


def bars(hours: Counter[str], now: float) -> str:
    """One for each of the last hours, `·` for one without; the highest is the full height."""
    counts = [hours[hour(now - 3600 * ago)] for ago in reversed(range(HOURS))]
    most = max(counts) or 1
    return "".join(_BARS[max(1, round(count / most * 8))] if count else "·" for count in counts)


def group_json(lane: str, group: Group) -> dict[str, Any]:
    example = group.example
    return {
        "lane": lane,
        "fingerprint": group.fingerprint,
        "title": group.title,
        "error_type": example.error_type if example else group.title.partition(":")[0],
        "task_type": example.task_type if example else None,
        "waiting_count": group.waiting_count,
        "hours": dict(sorted(group.hours.items())),
        "example": example.task_id if example else None,
    }


@click.command()
@with_scope
def export(scope: Scope) -> None:
    """Print what waits, each a line of JSON.

    Letters are printed as the log keeps them; data that is not UTF-8 in base64.

    \b
    fanout dead export --fingerprint 0123456789abcdef > letters.ndjson
    """
    for lane in scope.lanes:
        infos = list(segments.listed(scope.store, lane.name))
        for found in waiting(scope.store, infos, segments.folded(scope.store, infos), scope.wanted.matches, scope.wanted):
            for letter in found.letters.values():
                click.echo(to_line(letter), nl=False)
