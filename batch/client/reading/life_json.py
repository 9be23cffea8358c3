"""A task's life as JSON: what `fanout task --json` and the front door tell."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from batch.client.life import Life
from batch.dead import letters
from batch.model.attempts import AttemptError
from batch.model.clock import iso
from batch.model.outcomes import REPLAYED, to_line
from batch.services.ports import ObjectInfo


def as_object(life: Life) -> dict[str, Any]:
    """The life as JSON values."""
    running, outcome = life.running, life.outcome
    told = None if outcome is None or outcome.outcome == REPLAYED else json.loads(to_line(outcome))
    encoding, payload = payload_of(life)
    return {
        "task_id": life.task_id,
        "state": life.state.value,
        "replay_number": life.replay_number,
        "lane": life.where.lane or None,
        "shards": list(life.where.shards),
        "outcome": told,
        "running": None if running is None else {**asdict(running), "since": iso(running.since), "told_at": iso(running.told_at)},
        "cancelled_by": life.cancelled_by or None,
        "due_at": iso(life.due) if life.due else None,
        "attempt_count": life.attempts.attempt_count,
        "attempts": [asdict(error) for error in errors_of(life)],
        "in_progress": asdict(life.attempts.in_progress) if life.attempts.in_progress else None,
        "letter": json.loads(letters.to_line(life.letter)) if life.letter else None,
        "payload": payload,
        "payload_encoding": encoding,
        "outputs": [_output_json(info) for info in life.outputs],
        "log_filter": log_filter(life.task_id),
        "problems": list(life.problems),
    }


def payload_of(life: Life) -> tuple[str | None, str | None]:
    """How the data of its message is written here, and the data; None where it is not kept."""
    one = life.delayed or life.letter
    if one is None or (life.letter is one and life.letter.raw_object):
        return None, None
    ((name, text),) = letters.data_fields(one.data).items()
    return ("utf-8" if name == "data" else "base64"), text


def errors_of(life: Life) -> tuple[AttemptError, ...]:
    """Its failures, the first first."""
    return life.attempts.errors or (life.letter.errors if life.letter else ())


def _output_json(info: ObjectInfo) -> dict[str, Any]:
    return {"name": info.name, "generation": info.generation, "size": info.size, "task_id": info.metadata.get("task_id")}


def log_filter(task_id: str) -> str:
    """What selects all that was logged while the task ran, in any worker."""
    return f'jsonPayload.task_id="{task_id}"'
