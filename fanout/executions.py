"""`fanout executions`: the newest executions of a lane or of all, launched by the controller or by hand, with their workers' progress."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click

from batch.model.clock import iso
from controller.config import ControllerSettings
from controller.lanes.annotations import lanes_named
from controller.model.execution import ExecutionInfo, Tries
from controller.model.together import together
from controller.model.wording import spoken
from controller.observe.listing import listed_json, newest_executions
from controller.observe.survey import read_progress
from controller.tick.outside import Outside
from controller.tick.rounds import LANES_AT_A_TIME
from fanout import cloud
from fanout.output import Listing, counted, say, show, show_json

COLUMNS = ("execution", "lane", "state", "workers", "done", "of", "decision", "started", "took")
NUMBERS = frozenset({"done", "of", "took"})


@dataclass(frozen=True, slots=True)
class Seen:
    """An execution of a lane, the progress that its workers wrote, and what of it could not be read. `now` is Unix seconds."""

    lane: str
    info: ExecutionInfo
    tries: Tries
    problems: tuple[str, ...]
    now: float


@click.command()
@click.argument("lane", required=False, default="")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="The most executions to show.")
@click.option("--live", is_flag=True, help="Only those of the newest `--limit` that have not ended.")
@cloud.as_json_option
@cloud.with_settings
def command(lane: str, limit: int, live: bool, as_json: bool, settings: ControllerSettings) -> None:
    """Show the newest executions of LANE, or of all lanes, newest first.

    WORKERS by state: waiting (not started), running, succeeded, failed, cancelled; retried counts tries that Cloud Run repeated. DONE is
    what workers have acknowledged, OF the most that they may take. DECISION is what launched it; `fanout explain` argues it.

    \b
    fanout executions default
    fanout executions --live --json

    JSON: executions (execution, lane, state, worker_count, waiting_count, running_count, succeeded_count, failed_count, cancelled_count,
    retried_count, taken_count, acked_count, returned_count, share_count, exit_reasons, decision_id, created_at, started_at, completed_at,
    duration_s, problems).
    """
    with cloud.connected(settings) as outside:
        found = [one for one in seen(outside, lane, limit) if one.info.live or not live]
    if as_json:
        show_json({"executions": [execution_json(one) for one in found]})
        return
    show(Listing(COLUMNS, tuple(row(one) for one in found), NUMBERS))
    for one in found:
        for problem in one.problems:
            say(f"{one.info.name}: {problem}", err=True)


def seen(outside: Outside, lane: str, limit: int) -> list[Seen]:
    """The newest of all, newest first, with progress. Raises SettingsError, DependencyError."""
    newest = newest_executions(outside.runner, lanes_named(outside.runner.jobs(), [lane] if lane else []), limit)
    now = outside.clock.now()

    def told(pair: tuple[str, ExecutionInfo]) -> Seen:
        tries, problems = read_progress(outside.store, pair[1].name)
        return Seen(pair[0], pair[1], tries, tuple(problems), now)

    return together(told, newest, LANES_AT_A_TIME, "progress")


def execution_json(one: Seen) -> dict[str, Any]:
    """Counts are over all tries of its workers; `share_count` is null where its workers have no bound that is known."""
    info, tries = one.info, [progress for tries in one.tries.values() for progress in tries]
    last = [tries[-1] for tries in one.tries.values() if tries]
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
        "duration_s": round(max(0.0, (info.completed_at or one.now) - began_at), 3),
        "problems": list(one.problems),
    }


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
        one.lane,
        _state(body),
        _workers(body),
        str(body["acked_count"]),
        "" if body["share_count"] is None else str(body["share_count"]),
        one.info.decision_id or "by hand",
        iso(one.info.started_at)[:19] + "Z" if one.info.started_at is not None else "",
        spoken(body["duration_s"]),
    )


def _state(body: dict[str, Any]) -> str:
    """With the reasons that say more than that it ended."""
    telling = [f"{reason} {count}" for reason, count in body["exit_reasons"].items() if reason not in ("share_done", "drained")]
    return f"{body['state']} ({', '.join(telling)})" if telling else str(body["state"])


def _workers(body: dict[str, Any]) -> str:
    parts: Sequence[str] = [
        f"{body[f'{name}_count']} {name}"
        for name in ("waiting", "running", "succeeded", "failed", "cancelled", "retried")
        if body[f"{name}_count"]
    ]
    return ", ".join(parts) or counted(body["worker_count"], "worker")
