"""`fanout executions`: the newest executions of a lane or of all, launched by the controller or by hand, with their workers' progress."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click

from batch.client.reading.cost import spent, usd_of
from batch.model.clock import iso
from batch.model.progress import RunningTask
from controller.config import ControllerSettings
from controller.lanes.lanes import lanes_named
from controller.model.execution import ExecutionInfo, NumberedTries
from controller.model.together import together
from controller.model.wording import rough
from controller.observe.killed import killed_text, killed_tries, with_outcomes
from controller.observe.listing import listed_json, newest_executions
from controller.observe.survey import read_tries
from controller.tick.outside import Outside
from controller.tick.rounds import LANES_AT_A_TIME
from fanout import cloud
from fanout.execution.tries import OLD_S, oldest_text
from fanout.output import Listing, show, show_json, tell
from fanout.watch import watch_options, watched

COLUMNS = ("execution", "state", "workers", "done", "of", "by", "started", "took")
NUMBERS = frozenset({"workers", "done", "of", "took"})


@dataclass(frozen=True, slots=True)
class Seen:
    """An execution of a lane, the progress of its workers' tries by index and number, which of them were `killed` (their counts are what
    their outcomes say), and what could not be read or is wrong. `now` is Unix seconds."""

    lane: str
    info: ExecutionInfo
    tries: NumberedTries
    killed: Sequence[tuple[int, int]]
    problems: tuple[str, ...]
    now: float
    usd: float
    """At list price, by the progress of its workers."""


@click.command()
@click.argument("lane", required=False, default="")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="The most executions to show.")
@click.option("--live", is_flag=True, help="Only those of the newest `--limit` that have not ended.")
@watch_options
@cloud.as_json_option
@cloud.with_settings
def command(lane: str, limit: int, live: bool, watch: bool, every_s: float, as_json: bool, settings: ControllerSettings) -> None:
    """Show the newest executions of LANE, or of all lanes, newest first.

    STATE is waiting (no worker has started), running, succeeded, failed or cancelled. DONE is what workers have acknowledged (of killed
    ones: what their outcomes say), OF the most that they may take. BY `tick` a decision launched it (`fanout execution NAME` says
    which), by `hand` a person. TOOK is its time until its end, or so far.

    Lines below tell of each what is not as usual: workers that wait, failed, were cancelled or retried, how they ended, and the task that
    has been running longest, from a minute on.

    \b
    fanout executions default --watch
    fanout executions --live --json

    JSON: executions (execution, lane, state, worker_count, waiting_count, running_count, succeeded_count, failed_count, cancelled_count,
    retried_count, killed_count, taken_count, acked_count, returned_count, share_count, exit_reasons, oldest_task, decision_id, created_at,
    started_at, completed_at, duration_s, usd, problems).
    """
    with cloud.connected(settings) as outside:

        def look() -> list[Seen]:
            return [one for one in seen(outside, lane, limit) if one.info.live or not live]

        if watch:
            watched(look, lambda found: draw(found, as_json=as_json), every_s, outside.clock, bare=as_json)
        found = look()
    draw(found, as_json=as_json)


def draw(found: Sequence[Seen], *, as_json: bool) -> None:
    if as_json:
        show_json({"executions": [execution_json(one) for one in found]})
        return
    show(Listing(COLUMNS, tuple(row(one) for one in found), NUMBERS))
    tell(*(f"{one.info.name}: {line}" for one in found for line in remarks(one)))
    for one in found:
        for problem in one.problems:
            tell(problem if problem.startswith(one.info.name) else f"{one.info.name}: {problem}", err=True)


def seen(outside: Outside, lane: str, limit: int) -> list[Seen]:
    """The newest of all, newest first, with progress. Raises SettingsError, DependencyError."""
    lanes = {one.name: one for one in lanes_named(outside.runner.jobs(), [lane] if lane else [], outside.home)}
    newest = newest_executions(outside.runner, list(lanes.values()), limit)
    now = outside.clock.now()

    def told(pair: tuple[str, ExecutionInfo]) -> Seen:
        lane, info = pair
        tries, problems = read_tries(outside.store, info.name)
        killed = killed_tries(tries, live=info.live)
        tries = with_outcomes(outside.store, info, tries, killed)
        usd = usd_of(spent(tries.values()), lanes[lane].vcpu, lanes[lane].memory_gib, lanes[lane].price_percent)
        return Seen(lane, info, tries, killed, (*problems, *([killed_text(info.name, killed)] if killed else [])), now, usd)

    return together(told, newest, LANES_AT_A_TIME, "progress")


def execution_json(one: Seen) -> dict[str, Any]:
    """Counts are over all tries of its workers; `share_count` is null where its workers have no bound that is known."""
    info, tries = one.info, list(one.tries.values())
    last = {index: progress for (index, _), progress in sorted(one.tries.items(), key=lambda pair: pair[0])}.values()
    oldest = oldest_of(one)
    began_at = info.started_at or info.created_at
    return {
        **listed_json(one.lane, info),
        "state": state_of(info),
        "waiting_count": info.pending_worker_count,
        "running_count": info.running_count if info.live else 0,
        "taken_count": sum(progress.taken for progress in tries),
        "acked_count": sum(progress.acked for progress in tries),
        "returned_count": sum(progress.returned for progress in tries),
        "share_count": share_count(info),
        "exit_reasons": dict(sorted(Counter(progress.exit_reason for progress in last if progress.exit_reason).items())),
        "killed_count": len(one.killed),
        "oldest_task": None if oldest is None else {**oldest._asdict(), "since": iso(oldest.since)},
        "duration_s": round(max(0.0, (info.completed_at or one.now) - began_at), 3),
        "usd": round(one.usd, 6),
        "problems": list(one.problems),
    }


def oldest_of(one: Seen) -> RunningTask | None:
    """The task that has been running longest in its workers that run."""
    running = [task for key, progress in one.tries.items() if one.info.live and key not in one.killed for task in progress.running]
    return min(running, key=lambda task: task.since, default=None)


def state_of(info: ExecutionInfo) -> str:
    if info.live:
        return "running" if info.running_count or info.succeeded_count or info.failed_count else "waiting"
    if info.failed_count:
        return "failed"
    return "cancelled" if info.cancelled_count else "succeeded"


def share_count(info: ExecutionInfo) -> int | None:
    """The most messages that its workers may take together: what its decision assigned, or what a person allowed each of them."""
    backlog, most = info.env.get("BACKLOG", ""), info.env.get("MAX_MESSAGES", "")
    if backlog.isdecimal():
        return int(backlog)
    return int(most) * info.task_count if most.isdecimal() else None


def row(one: Seen) -> tuple[str, ...]:
    body = execution_json(one)
    return (
        one.info.name,
        str(body["state"]),
        str(one.info.task_count),
        str(body["acked_count"]),
        "" if body["share_count"] is None else str(body["share_count"]),
        "tick" if one.info.decision_id else "hand",
        "" if one.info.started_at is None else f"{rough(one.now - one.info.started_at)} ago",
        rough(body["duration_s"]),
    )


def remarks(one: Seen) -> list[str]:
    """What is not as usual: how its workers are, where that is more than the state says, and a task that runs for long."""
    body = execution_json(one)
    usual = {"waiting"} if body["state"] == "waiting" else {"running", "succeeded"}
    told = [(name, body[f"{name}_count"]) for name in ("waiting", "running", "succeeded", "failed", "cancelled", "retried", "killed")]
    ends = {name: count for name, count in body["exit_reasons"].items() if name not in ("share_done", "drained")}
    parts = [f"{count} {name}" for name, count in told if count]
    found = []
    if ends or any(count and name not in usual for name, count in told):
        ended = f" ({', '.join(f'{name} {count}' for name, count in ends.items())})" if ends else ""
        found.append(f"{', '.join(parts)}{ended}")
    if one.info.cannot_start:
        found.append(f"it cannot start: {one.info.cannot_start}")
    oldest = oldest_of(one)
    if oldest is not None and one.now - oldest.since >= OLD_S:
        found.append(f"its oldest task: {oldest_text(oldest, one.now)}")
    return found
