"""What the front door takes and answers: bodies, refusals, and their documentation. A refusal says which field breaks which rule."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from batch.client.strict import Strict
from batch.client.submit import NewTask, check_by, single_message
from batch.handling.registry import Registry
from batch.model.delivery import Outgoing
from batch.model.errors import DependencyError, MessageRefused
from intake.problems import RequestRefused

DEFAULT_FILE = {"filename": "sample.txt"}
DEFAULT_DATA = {"transformation": "normalize"}
"""What an empty body means: a first try needs no file of its own, and says so in its output."""


class Submitted(BaseModel):
    """The broker has the task."""

    task_id: str = Field(description="ask for the task by this id; the same for every request with the same Idempotency-Key")
    message_id: str = Field(description="the broker's id of the message")
    status: Literal["submitted"] = "submitted"


class TaskBody(BaseModel):
    """A task: its type, and its own fields beside it."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": [{"task_type": "file_processing", "filename": "a.csv"}]})

    task_type: str = Field(description="which handler is to process it")


class FileTaskBody(BaseModel):
    """A file to process: the object input/<filename> of the bucket."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": [{"filename": "reports/2026.csv", "operation": "describe"}]})

    filename: str = Field(description="a relative name without '..'")


class DataTaskBody(BaseModel):
    """Data to transform."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": [{"transformation": "normalize", "dataset_size": 1000}]})

    transformation: str | None = Field(default=None, description="normalize, aggregation, filter or deduplicate")


@dataclass(frozen=True, slots=True)
class Door:
    """What one endpoint needs to make a message of a body. `task_type` is None where the client names it; `default` stands for an empty
    body."""

    registry: Registry
    task_type: str | None = None
    default: Mapping[str, Any] | None = None


def message_of(door: Door, body: bytes, key: str | None, lane: str, unix_s: float, rng: random.Random) -> Outgoing:
    """The message of a request's body. Raises RequestRefused."""
    fields = json_object(body) if door.default is None or body.strip() else dict(door.default)
    task_type = fields.pop("task_type", door.task_type)
    if door.task_type not in (None, task_type):
        raise RequestRefused(422, f"this endpoint takes {door.task_type} tasks only; use /submit-task for other types", ["task_type"])
    if "idempotency_key" in fields:
        raise RequestRefused(422, "idempotency_key must be left out: send it as the header Idempotency-Key", ["idempotency_key"])
    try:
        return single_message(NewTask(task_type, fields, key), lane=lane, unix_s=unix_s, rng=rng, check=check_by(door.registry))
    except MessageRefused as error:
        if error.fields == ("idempotency_key",):
            raise RequestRefused(422, f"Idempotency-Key: {error}") from error
        status = {"too_large": 413, "no_task_type": 400 if task_type is None else 422}.get(error.kind, 422)
        raise RequestRefused(status, str(error), error.fields) from error
    except DependencyError as error:  # of a payload model that asks a service
        raise RequestRefused(503, str(error)) from error


def json_object(body: bytes) -> dict[str, Any]:
    """Raises RequestRefused (400)."""
    try:
        value = Strict().whole(body)
    except (ValueError, RecursionError) as error:
        raise RequestRefused(400, f"the body is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise RequestRefused(400, f"the body must be a JSON object, got {_KINDS.get(type(value), 'null')}")
    return value


_KINDS = {list: "an array", str: "a text", int: "a number", float: "a number", bool: "true or false"}
