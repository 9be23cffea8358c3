"""`fanout proof --lane`: the proof by count, as a person reads it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from batch.client.lane_count import HOUR_S, MAX_HOURS, LaneCount, count
from batch.dead.lanes import read_lanes
from batch.model.clock import SystemClock
from batch.model.texts import printable
from batch.services.ports import ObjectStore
from fanout.explain import moment
from fanout.output import counted


def counted_lane(store: ObjectStore, name: str, since_text: str, until_text: str, given_count: int | None) -> LaneCount:
    """Raises UsageError for a time that is none, and for a lane that is none, FanoutError."""
    now = SystemClock().now()
    try:
        since, until = moment(since_text, now), moment(until_text, now) if until_text else now
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if not 0 <= until - since <= MAX_HOURS * HOUR_S:
        raise click.UsageError(f"--since must come before --until, by at most {MAX_HOURS // 24} days")
    lanes = read_lanes(store)
    if name not in lanes:
        raise click.UsageError(f"there is no lane {name!r}; lanes are: {', '.join(lanes) or 'not known before the first fanout tick'}")
    return count(store, name, lanes[name].subscription, since, until, given_count)


def as_object(found: LaneCount) -> dict[str, Any]:
    """For `--json`."""
    return {"by": "count", **asdict(found), "ended_count": found.ended_count, "complete": found.complete}


def as_text(found: LaneCount) -> str:
    """As a person reads it."""
    lines = [f"lane {found.lane}: {_verdict(found)}", f"  of messages first published from {found.since[:16]}Z until {found.until[:16]}Z"]
    if found.given_count is not None:
        lines.append(f"  {found.given_count:>9,} given, as you say")
    lines += [f"  {ended:>9,} {name}" for name, ended in found.counts.items()]
    if found.pending_count:
        lines.append(f"  {found.pending_count:>9,} pending again, by a replay")
    if found.given_count is not None:
        lines.append(f"  {max(0, found.given_count - found.ended_count):>9,} without an outcome")
    if found.delayed_count:
        lines.append(f"delayed tasks of the lane, whenever they were published: {found.delayed_count:,}")
    if found.given_count is None:
        lines.append("what the subscription was given is not known: say how many messages were published with --given N")
    lines.append("this proof is by count, not by name: it says how many messages ended, not which did not")
    return "\n".join(map(printable, [*lines, *(f"problem: {problem}" for problem in found.problems)]))


def _verdict(found: LaneCount) -> str:
    if found.problems:
        return "cannot be counted, its records are damaged"
    ended = counted(found.ended_count, "message")
    if found.given_count is None:
        return f"{ended} ended"
    left = found.given_count - found.ended_count
    if left > 0:
        return f"not finished, {counted(left, 'message')} of {found.given_count:,} {'has' if left == 1 else 'have'} no outcome yet"
    if left < 0:
        return f"{ended} ended, {-left:,} more than were given: others were published in these hours"
    return f"complete by count, as many messages ended as were given ({found.given_count:,})"
