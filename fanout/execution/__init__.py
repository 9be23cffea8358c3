"""`fanout execution NAME`: one execution, worker by worker and try by try: what each has done, how it ended, where its log is."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click

from batch.model.clock import iso
from batch.model.errors import SettingsError
from controller.config import RUN_EMULATOR, ControllerSettings
from controller.model.execution import ExecutionInfo
from controller.model.wording import rough
from controller.observe.jobs import LANE_LABEL, JobInfo
from controller.observe.killed import killed_tries, with_outcomes
from controller.observe.listing import listed_json
from controller.observe.survey import read_tries
from controller.tick.outside import Outside
from fanout import cloud
from fanout.execution.last_words import last_words
from fanout.execution.tries import OLD_S, WorkerTry, console_link, oldest_text, tries_of
from fanout.output import Listing, counted, one_line, say, show, show_json, tell

COLUMNS = ("worker", "try", "state", "share", "taken", "done", "took", "oldest", "ended")
NUMBERS = frozenset({"worker", "try", "share", "taken", "done", "took", "oldest"})
MAX_TOLD = 10
"""Tries whose last words are shown; all of them stand in the table."""


@dataclass(frozen=True, slots=True)
class Looked:
    """An execution with the tries of its workers; `problems` name progress that could not be read."""

    lane: str
    info: ExecutionInfo
    tries: tuple[WorkerTry, ...]
    problems: tuple[str, ...]


@click.command()
@click.argument("name")
@cloud.as_json_option
@cloud.with_settings
def command(name: str, as_json: bool, settings: ControllerSettings) -> None:
    """Show the workers of the execution NAME, one row for each try, while it runs and afterwards.

    STATE is `waiting`, `starting`, `running`, the exit reason, or `killed`, `failed`, `cancelled`, `lost` where a try ended without one.
    DONE counts acknowledged messages; of a killed try what its outcomes say. OLDEST is how long its oldest task has been running, or had
    been at the last progress. ENDED is the signal or exit code, which Cloud Run keeps of a worker's last try.

    Of tries that ended so, and of those whose oldest task runs for a minute and more, follow that task, what they said last, and the log.

    \b
    fanout execution default-x7k2p
    fanout execution default-x7k2p --json | jq '.workers[] | select(.state == "killed")'

    JSON: execution (as `fanout executions --json`, without counts of workers' progress), workers (worker, try, state, share_count,
    taken_count, acked_count, returned_count, dead_count, seconds, exit_code, signal, ended, message, running, log, last_words), problems.
    """
    with cloud.connected(settings) as outside:
        found = looked(outside, name)
        now = outside.clock.now()
    words = {(one.index, one.retry): words_of(one) for one in [one for one in found.tries if one.died][:MAX_TOLD]}
    if as_json:
        workers = [try_json(one, words.get((one.index, one.retry), ())) for one in found.tries]
        show_json({"execution": listed_json(found.lane, found.info), "workers": workers, "problems": list(found.problems)})
        return
    tell(headline(found), f"launched by decision {found.info.decision_id}" if found.info.decision_id else "launched by hand")
    show(Listing(COLUMNS, tuple(row(one, now) for one in found.tries), NUMBERS))
    for one in [one for one in found.tries if one.died or _age_s(one, now) >= OLD_S][:MAX_TOLD]:
        tell(*(f"worker {one.index}, try {one.retry}: {line}" for line in [*remarks(one, now), *words.get((one.index, one.retry), ())]))
    logs = {one.log_uri: one.index for one in found.tries if one.log_uri}
    if logs:
        last, index = list(logs.items())[-1]
        say(f"log: {last}" if len(logs) == 1 else f"log of worker {index} (--json has all): {last}")
    for problem in found.problems:
        tell(problem, err=True)


def looked(outside: Outside, name: str) -> Looked:
    """The execution with this name, short or full. Raises SettingsError, DependencyError."""
    lane, info = named(outside, name)
    workers = {one.index: one for one in outside.runner.workers(info.full_name)}
    tries, problems = read_tries(outside.store, info.name)
    ended = {index for index, one in workers.items() if one.completed_at is not None}
    counted = with_outcomes(outside.store, info, tries, killed_tries(tries, live=info.live, ended=ended))
    console = "" if os.environ.get(RUN_EMULATOR) else console_link(info.full_name)
    return Looked(lane, info, tuple(tries_of(lane, info, counted, workers, console=console)), tuple(problems))


def named(outside: Outside, name: str) -> tuple[str, ExecutionInfo]:
    """The execution with this name, and its lane's. Cloud Run begins the name of an execution with its job's."""
    short = name.rsplit("/", 1)[-1]
    jobs: Sequence[JobInfo] = [job for job in outside.runner.jobs() if short.startswith(f"{job.name}-")]
    for job in sorted(jobs, key=lambda job: -len(job.name)):
        info = outside.runner.execution(f"{job.full_name}/executions/{short}")
        if info is not None:
            return job.labels[LANE_LABEL], info
    raise SettingsError([f"no lane has an execution {short!r}: `fanout executions` lists the newest"])


def words_of(one: WorkerTry) -> list[str]:
    """What it said last: to Cloud Run, and on standard error."""
    return [line for line in (one_line(one.message), *last_words(one.log_uri, os.environ.get(RUN_EMULATOR, ""))) if line]


def headline(found: Looked) -> str:
    """One line about the whole execution."""
    info = found.info
    parts = {"succeeded": info.succeeded_count, "failed": info.failed_count, "cancelled": info.cancelled_count}
    counts = [f"{count} {what}" for what, count in parts.items() if count] or ["none has ended"]
    died = sum(one.died for one in found.tries)
    more = f"; {counted(died, 'try').replace('trys', 'tries')} ended without an exit reason" if died else ""
    state = "runs" if info.live else "has ended"
    return f"{info.name} of lane {found.lane} {state}: {counted(info.task_count, 'worker')}, {', '.join(counts)}{more}"


def row(one: WorkerTry, now: float) -> tuple[str, ...]:
    """The cells of COLUMNS; times are as of `now` (Unix seconds)."""
    told = one.progress
    return (
        str(one.index),
        str(one.retry),
        one.state,
        str(told.share),
        str(told.taken),
        str(told.acked),
        f"{one.seconds:.1f}",
        "" if one.oldest is None else rough(_age_s(one, now)),
        one.ended.partition(" (")[0],
    )


def remarks(one: WorkerTry, now: float) -> list[str]:
    """How it ended and what that may mean, its oldest task, and where its log is."""
    found = [one.ended] if "(" in one.ended else []
    found += [f"its oldest task: {text}"] if (text := oldest_text(one.oldest, _at(one, now))) else []
    return found + ([f"log: {one.log_uri}"] if one.log_uri else [])


def _at(one: WorkerTry, now: float) -> float:
    return now if one.state == "running" else one.progress.updated_at


def _age_s(one: WorkerTry, now: float) -> float:
    """Seconds that its oldest task has been running."""
    return 0.0 if one.oldest is None else _at(one, now) - one.oldest.since


def try_json(one: WorkerTry, words: Sequence[str]) -> dict[str, Any]:
    """What is known of one try."""
    told = one.progress
    return {
        "worker": one.index,
        "try": one.retry,
        "state": one.state,
        "share_count": told.share,
        "taken_count": told.taken,
        "acked_count": told.acked,
        "returned_count": told.returned,
        "dead_count": told.dead,
        "seconds": round(one.seconds, 3),
        "exit_code": one.exit_code,
        "signal": one.signal_name or None,
        "ended": one.ended or None,
        "message": one.message,
        "running": [{"task_id": task.task_id, "task_type": task.task_type, "since": iso(task.since)} for task in told.running],
        "log": one.log_uri,
        "last_words": list(words),
    }
