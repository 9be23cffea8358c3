"""A task's life as a person reads it."""

from __future__ import annotations

import json
from collections.abc import Iterator

from batch.client.life import Life, State
from batch.client.reading.life_json import errors_of, log_filter, payload_of
from batch.model.clock import iso
from batch.model.outcomes import REPLAYED, Outcome
from controller.model.wording import counted

MAX_PAYLOAD_CHARS = 4000
_WIDTH = 10


def as_text(life: Life, project: str) -> Iterator[str]:
    """Line by line; without a project there is no log to read."""
    yield f"task {life.task_id}: {headline(life)}"
    if life.cancelled_by:
        yield _row("cancelled", f"{life.cancelled_by}; the worker that gets it ends it so, one that runs it tells its handler")
    outcome = life.outcome
    if outcome is not None and outcome.outcome != REPLAYED:
        yield from _of_outcome(outcome)
    for info in life.outputs:
        owner = info.metadata.get("task_id", life.task_id)
        other = "" if owner == life.task_id else f"; by now it is of task {owner}"
        yield _row("output", info.name)
        yield _row("", f"generation {info.generation}, {info.size:,} bytes{other}")
    yield from _of_payload(life)
    errors = errors_of(life)
    for number, error in enumerate(errors, 1):
        by = f" by worker {error.execution}/{error.index}" if error.execution else ""
        yield _row("failure", f"{number} of {len(errors)}, {error.at}{by}: {_error(error.error_type, error.reason)}")
        yield from (f"      {line}" for line in error.traceback.rstrip().splitlines())
    if life.attempts.in_progress is not None:
        yield _row("begun", f"{life.attempts.in_progress} (from its record of attempts)")
    if life.where.lane:
        yield _row("lane", life.where.lane)
    yield _row("shard", ", ".join(life.where.shards))
    if project:
        yield _row("log", f"gcloud logging read '{log_filter(life.task_id)}' --freshness=30d --project={project}")
    yield from (f"problem: {problem}" for problem in life.problems)


def headline(life: Life) -> str:
    """One phrase: the state, and since or until when."""
    failures = life.attempts.attempt_count
    again = f", after {counted(failures, 'failure')}" if failures else ""
    replay = f", in replay {life.replay_number}" if life.replay_number and life.state is not State.PENDING_AGAIN else ""
    if life.state is State.RUNNING and life.running is not None:
        one = life.running
        return f"running at worker {one.execution}/{one.index} (try {one.retry}) since {iso(one.since)}{again}{replay}"
    if life.state is State.DELAYED:
        return f"delayed until {iso(life.due)}{again}{replay}"
    if life.state is State.RETRYING:
        return f"retrying, after {counted(failures, 'failure')}; not before {iso(life.due)}{replay}"
    if life.state is State.PENDING_AGAIN:
        return f"pending again, by replay {life.replay_number}"
    if life.state is State.WAITING:
        return "waiting or running: it has left no trace yet, as any task before its first failure or its end"
    if life.state is State.NOT_KNOWN:
        return "not known: it has left no trace there, and nothing says that it was submitted; are --lane and --at right?"
    outcome = life.outcome
    error = f", {_error(outcome.error_type, outcome.reason)}" if outcome is not None and (outcome.error_type or outcome.reason) else ""
    return f"{life.state.value}{replay}{error}"


def _of_outcome(one: Outcome) -> Iterator[str]:
    yield _row("type", one.task_type)
    yield _row("finished", f"{one.finished_at}, {one.duration_s:.3f} s in attempt {one.attempt_count}")
    if one.execution:
        yield _row("worker", f"{one.execution}/{one.index}, try {one.retry}: `fanout execution {one.execution}`")
    if one.result not in (None, ""):
        yield _row("result", json.dumps(one.result, ensure_ascii=False))
    if one.fingerprint:
        yield _row("group", one.fingerprint)


def _of_payload(life: Life) -> Iterator[str]:
    if life.letter is not None and life.letter.raw_object:
        yield _row("payload", f"object {life.letter.raw_object}")
        return
    encoding, payload = payload_of(life)
    if payload is not None:
        cut = f" … ({len(payload):,} characters, --json has all)" if len(payload) > MAX_PAYLOAD_CHARS else ""
        yield _row("payload" if encoding == "utf-8" else "base64", payload[:MAX_PAYLOAD_CHARS] + cut)


def _error(error_type: str, reason: str) -> str:
    return f"{error_type}: {reason}" if error_type and reason else error_type or reason


def _row(name: str, text: str) -> str:
    return f"  {name:<{_WIDTH}}{text}"
