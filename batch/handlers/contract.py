"""What both built-in handlers take and leave: the fields of their payloads, and the JSON report.

A name that comes from a client passes `batch.model.names.checked`, always. A task's facts are those of the report in the bucket, never
others: when an earlier run of the same task had written it, its input may have changed since; then the earlier report counts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from batch.handling.context import Context
from batch.model.errors import NameRefused, Permanent
from batch.model.names import checked, outside

DATA_MAX_BYTES = 50 << 20
"""Where the worker's setting is not known."""
MAX_PROCESSING_TIME_S = 3600.0
"""As long as most workers live: a longer task would be begun by many, and ended by none."""


def _checked(value: object, info: ValidationInfo) -> str:
    try:
        return checked(value, info.field_name or "name")
    except NameRefused as error:
        raise ValueError(str(error)) from error


def _outside(value: str, info: ValidationInfo) -> str:
    try:
        return outside(value, info.field_name or "name")
    except NameRefused as error:
        raise ValueError(str(error)) from error


RelativeName = Annotated[str, BeforeValidator(_checked)]
"""A name within a folder of ours, such as `input/`."""
ObjectName = Annotated[RelativeName, AfterValidator(_outside)]
"""Any object of the bucket that is not Fanout's own."""
ColumnName = Annotated[str, Field(max_length=1000)]


class Payload(BaseModel):
    """What both handlers take. Fields that are not named here are allowed and ignored: they are the client's own.

    `processing_time` is slept before the work begins, in seconds: it makes a task as long as a demonstration needs.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    processing_time: float = Field(default=0.0, ge=0, allow_inf_nan=False)

    @field_validator("processing_time")
    @classmethod
    def _bounded(cls, value: float) -> float:
        if value > MAX_PROCESSING_TIME_S:
            most = f"at most {MAX_PROCESSING_TIME_S:g} s"
            raise ValueError(f"must be {most}, and less than the TASK_TIMEOUT_S of the lane's workers: a longer task is never done")
        return value


def data_max_bytes() -> int:
    """How large a content these handlers take: the worker's setting, which its children have in their environment."""
    return int(os.environ.get("DATA_MAX_BYTES") or DATA_MAX_BYTES)


def too_large(what: str) -> Permanent:
    """The refusal of a content beyond that."""
    return Permanent(
        f"{what} is larger than {data_max_bytes():,} bytes, the DATA_MAX_BYTES of this lane: send it to a lane with a larger one, "
        "or split it"
    )


def write_report(ctx: Context, name: str, report: Mapping[str, Any]) -> Mapping[str, Any]:
    """Write `report`, which names its task as `task_id`, and return the one that stands.

    Raises Superseded when a newer task owns the name, DependencyError when the bucket fails.
    """
    data = json.dumps(report, ensure_ascii=False, allow_nan=False, indent=2).encode() + b"\n"
    written = ctx.write(name, data, "application/json")
    return report if written.created else _standing(ctx, name) or report


def _standing(ctx: Context, name: str) -> Mapping[str, Any] | None:
    """None when the object is a newer task's by now, or not a report (the task was edited and replayed under its id)."""
    try:
        body = json.loads(ctx.read(name))
    except ValueError:
        return None
    return body if isinstance(body, dict) and body.get("task_id") == ctx.task.task_id else None
